//! The syntax tree, as written: parentheses and positions are kept.
//!
//! `Display` gives the canonical one-line text, [`Expr::pretty`] what `/api/v1/format_query` answers (see `format`).
//! Two trees are equal when they mean the same text; positions do not count.

use triptych_model::Matcher;

use crate::functions::Function;

/// Byte offsets into the query, end exclusive. All spans compare equal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
    pub fn to(self, other: Span) -> Self {
        Self { start: self.start, end: other.end }
    }
    /// `line:column` in `text`, both from 1, columns in bytes.
    pub fn position(self, text: &str) -> String {
        let start = self.start.min(text.len());
        let before = &text.as_bytes()[..start];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = start - before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1) + 1;
        format!("{line}:{column}")
    }
}

impl PartialEq for Span {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The four types of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Scalar,
    String,
    Vector,
    Matrix,
}

impl Type {
    /// As error texts name it.
    pub fn documented(self) -> &'static str {
        match self {
            Type::Scalar => "scalar",
            Type::String => "string",
            Type::Vector => "instant vector",
            Type::Matrix => "range vector",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Number(Number),
    String(Str),
    Paren(Box<Expr>, Span),
    Unary(Box<Unary>),
    Binary(Box<Binary>),
    Call(Box<Call>),
    Aggregate(Box<Aggregate>),
    Vector(Box<VectorSelector>),
    Matrix(Box<MatrixSelector>),
    Subquery(Box<Subquery>),
}

#[derive(Debug, Clone)]
pub struct Number {
    pub value: f64,
    /// Written as a duration, `5m`.
    pub duration: bool,
    pub span: Span,
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        (self.value == other.value || (self.value.is_nan() && other.value.is_nan()))
            && self.duration == other.duration
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Str {
    /// Bytes that are not UTF-8, which escapes can write, stand here as `\xff`.
    pub value: String,
    /// The bytes, where they are not UTF-8.
    pub raw: Option<Vec<u8>>,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Unary {
    pub negative: bool,
    pub expr: Expr,
    pub span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
    /// `</`, for native histograms only.
    TrimUpper,
    /// `>/`, for native histograms only.
    TrimLower,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    pub const ALL: [BinaryOp; 18] = {
        use BinaryOp::*;
        [Add, Sub, Mul, Div, Mod, Pow, Atan2, Eq, Ne, Gt, Ge, Lt, Le, TrimUpper, TrimLower, And, Or, Unless]
    };
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Gt => ">",
            BinaryOp::Ge => ">=",
            BinaryOp::Lt => "<",
            BinaryOp::Le => "<=",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
        }
    }
    pub fn is_comparison(self) -> bool {
        use BinaryOp::*;
        matches!(self, Eq | Ne | Gt | Ge | Lt | Le)
    }
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }
    /// Binds tighter when larger.
    pub fn precedence(self) -> u8 {
        use BinaryOp::*;
        match self {
            Or => 1,
            And | Unless => 2,
            Eq | Ne | Gt | Ge | Lt | Le | TrimUpper | TrimLower => 3,
            Add | Sub => 4,
            Mul | Div | Mod | Atan2 => 5,
            Pow => 6,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    pub op: BinaryOp,
    pub left: Expr,
    pub right: Expr,
    pub return_bool: bool,
    pub matching: Matching,
    pub span: Span,
    /// Of the operator itself.
    pub op_span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grouping {
    #[default]
    None,
    /// `group_left`: many series on the left.
    Left,
    Right,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matching {
    /// `on(..)`, else `ignoring(..)`.
    pub on: bool,
    pub labels: Vec<String>,
    pub grouping: Grouping,
    /// The labels in `group_left(..)`.
    pub include: Vec<String>,
    pub fill_left: Option<f64>,
    pub fill_right: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub function: &'static Function,
    pub args: Vec<Expr>,
    pub span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    CountValues,
    Quantile,
    Limitk,
    LimitRatio,
}

impl AggregateOp {
    /// Name by name.
    pub const ALL: [(&'static str, AggregateOp); 14] = [
        ("sum", AggregateOp::Sum),
        ("avg", AggregateOp::Avg),
        ("count", AggregateOp::Count),
        ("min", AggregateOp::Min),
        ("max", AggregateOp::Max),
        ("group", AggregateOp::Group),
        ("stddev", AggregateOp::Stddev),
        ("stdvar", AggregateOp::Stdvar),
        ("topk", AggregateOp::Topk),
        ("bottomk", AggregateOp::Bottomk),
        ("count_values", AggregateOp::CountValues),
        ("quantile", AggregateOp::Quantile),
        ("limitk", AggregateOp::Limitk),
        ("limit_ratio", AggregateOp::LimitRatio),
    ];
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, op)| *op)
    }
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, op)| *op == self).map_or("", |(name, _)| name)
    }
    pub fn has_param(self) -> bool {
        use AggregateOp::*;
        matches!(self, Topk | Bottomk | CountValues | Quantile | Limitk | LimitRatio)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    pub op: AggregateOp,
    pub expr: Expr,
    pub param: Option<Expr>,
    pub without: bool,
    pub labels: Vec<String>,
    pub span: Span,
}

/// The `@` modifier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum At {
    Ms(i64),
    Start,
    End,
}

#[derive(Debug, Clone)]
pub struct VectorSelector {
    /// The name in front of the braces; empty where there is none. It is among `matchers` too, as the last.
    pub name: String,
    pub matchers: Vec<Matcher>,
    pub offset: Option<DurationExpr>,
    pub at: Option<At>,
    pub span: Span,
}

/// The order of matchers does not count.
impl PartialEq for VectorSelector {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |s: &Self| {
            let mut all: Vec<_> =
                s.matchers.iter().map(|m| (m.name.clone(), m.op.as_str(), m.value.clone())).collect();
            all.sort();
            all
        };
        self.name == other.name
            && self.offset == other.offset
            && self.at == other.at
            && sorted(self) == sorted(other)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSelector {
    /// Carries offset and `@` of the whole.
    pub selector: VectorSelector,
    pub range: DurationExpr,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    pub expr: Expr,
    pub range: DurationExpr,
    pub step: Option<DurationExpr>,
    pub offset: Option<DurationExpr>,
    pub at: Option<At>,
    pub span: Span,
}

/// A length of time: mostly a literal, else arithmetic on literals, `step()` and `range()`.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationExpr {
    /// Milliseconds.
    Ms(i64),
    Step,
    Range,
    Negative(Box<DurationExpr>),
    Paren(Box<DurationExpr>),
    Binary(BinaryOp, Box<DurationExpr>, Box<DurationExpr>),
    MinOf(Box<DurationExpr>, Box<DurationExpr>),
    MaxOf(Box<DurationExpr>, Box<DurationExpr>),
}

impl Expr {
    pub fn span(&self) -> Span {
        match self {
            Expr::Number(e) => e.span,
            Expr::String(e) => e.span,
            Expr::Paren(_, span) => *span,
            Expr::Unary(e) => e.span,
            Expr::Binary(e) => e.span,
            Expr::Call(e) => e.span,
            Expr::Aggregate(e) => e.span,
            Expr::Vector(e) => e.span,
            Expr::Matrix(e) => e.span,
            Expr::Subquery(e) => e.span,
        }
    }

    pub fn result_type(&self) -> Type {
        match self {
            Expr::Number(_) => Type::Scalar,
            Expr::String(_) => Type::String,
            Expr::Paren(e, _) => e.result_type(),
            Expr::Unary(e) => e.expr.result_type(),
            Expr::Binary(e) => match (e.left.result_type(), e.right.result_type()) {
                (Type::Scalar, Type::Scalar) => Type::Scalar,
                _ => Type::Vector,
            },
            Expr::Call(e) => e.function.returns,
            Expr::Aggregate(_) | Expr::Vector(_) => Type::Vector,
            Expr::Matrix(_) | Expr::Subquery(_) => Type::Matrix,
        }
    }

    /// The matchers of every selector in the expression, from left to right: what it reads.
    pub fn selectors(&self) -> Vec<Vec<Matcher>> {
        match self {
            Expr::Number(_) | Expr::String(_) => vec![],
            Expr::Paren(e, _) => e.selectors(),
            Expr::Unary(e) => e.expr.selectors(),
            Expr::Binary(e) => [e.left.selectors(), e.right.selectors()].concat(),
            Expr::Call(e) => e.args.iter().flat_map(Expr::selectors).collect(),
            Expr::Aggregate(e) => e.param.iter().chain([&e.expr]).flat_map(Expr::selectors).collect(),
            Expr::Vector(e) => vec![e.matchers.clone()],
            Expr::Matrix(e) => vec![e.selector.matchers.clone()],
            Expr::Subquery(e) => e.expr.selectors(),
        }
    }

    /// Without the parentheses around it.
    pub fn unwrap_parens(&self) -> &Expr {
        let mut expr = self;
        while let Expr::Paren(inner, _) = expr {
            expr = inner;
        }
        expr
    }
}
