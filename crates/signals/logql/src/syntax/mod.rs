//! Text to tree and back.

pub mod ast;
pub mod display;
pub mod lexer;
pub mod parser;
pub mod units;

#[cfg(test)]
mod tests;
