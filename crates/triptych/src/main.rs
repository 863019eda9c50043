//! The binary: which roles there are, how they are wired, how they are started and stopped, and the small clients.
//!
//! **Owns** the command line, the whole config, the map of roles, listeners, admin endpoints.
//! **Must not know** what a role does inside.
//!
//! | module | what is in it |
//! |---|---|
//! | [`cli`] | commands and flags |
//! | [`config`] | the one file for all roles |
//! | [`roles`] | the map of roles and how each is built |
//! | [`app`] | a process: listeners, roles, drain |
//! | [`membership`] | who the others are, and the life of this process as they see it |
//! | [`budget`] | how the process' memory is shared out among its roles |
//! | [`admin`] | `/ready`, `/metrics`, `/config`, `/-/flush`, `/-/compact` |
//! | [`telemetry`] | the reference of our own metrics |
//! | [`client`] | `triptych query`, `triptych logs tail` |

mod admin;
mod app;
mod budget;
mod cli;
mod client;
mod config;
mod membership;
mod roles;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

/// Fewer threads than cores wait on each other in it than in the system's allocator, and it gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // One line, from the outermost to what caused it: what a person reads first, and all of it.
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    // One TLS provider for every client in the process; the second call of a process would fail and is not there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli::Cli::parse().command {
        cli::Command::Config(command) => config::run(command),
        cli::Command::Telemetry(cli::TelemetryCommand::Docs) => {
            print!("{}", telemetry::reference());
            Ok(())
        }
        cli::Command::Query(command) => client::query(command),
        cli::Command::Logs(command) => client::logs(command),
        cli::Command::Run(run) => {
            let (roles, flags) = run.roles();
            let config = flags.config()?;
            app::run(config, roles)
        }
    }
}
