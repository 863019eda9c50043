//! What all signals and the wire speak of: labels, matchers, tenants, batches on their way in, and the questions and
//! answers of the Store API.
//!
//! **Owns** the types that appear in the public interface of two signals or of the wire, and the encoding of a write
//! batch (which is also what rests in the WAL).
//! **Must not know** I/O, async, protobuf, storage formats, query languages, HTTP.
//!
//! | module | what is in it |
//! |---|---|
//! | [`error`] | the one list of error kinds, each an instruction to the caller |
//! | [`labels`], [`matcher`] | sorted label sets in one allocation; `=`, `!=`, `=~`, `!~` |
//! | [`tenant`] | a tenant id that was checked before it touches a path |
//! | [`batch`] | write batches: decoded once at the door, the same bytes on the wire and in the WAL |
//! | [`shard`], [`span`] | a part of all series or streams; a part of a query's time |
//! | [`push`] | what became of a write |
//! | [`share`] | who else is asked the same question |
//! | [`metrics`], [`logs`], [`traces`] | per signal: what is selected, what comes back |
//! | [`version`] | whether data may have changed since they were read |
//! | [`telemetry`] | how a crate declares its own metrics |

pub mod batch;
pub mod error;
pub mod labels;
pub mod logs;
pub mod matcher;
pub mod metrics;
pub mod push;
pub mod shard;
pub mod share;
pub mod span;
pub mod telemetry;
pub mod tenant;
pub mod traces;
pub mod version;

pub use error::{Error, Kind, Result};
pub use labels::{Labels, LabelsBuilder};
pub use matcher::{MatchOp, Matcher};
pub use shard::Shard;
pub use share::Share;
pub use tenant::TenantId;
pub use version::Version;

/// The three panels of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    Metrics,
    Logs,
    Traces,
}

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Metrics, Signal::Logs, Signal::Traces];

    /// The folder, prefix and label value this signal is called by everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
            Signal::Traces => "traces",
        }
    }
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
