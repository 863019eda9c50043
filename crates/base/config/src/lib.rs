//! One YAML file for all roles.
//!
//! **Owns** how a config is read (file, `${ENV}`, `--set key=value`), text forms of durations and sizes, secrets that never show
//! themselves, the limits per tenant, and the generated reference.
//! **Must not know** what any service does: each crate owns its own `Config`; the binary puts them together.
//!
//! | module | what is in it |
//! |---|---|
//! | [`load`](mod@load) | file + environment + `--set` -> a typed value, with the path of the key that is wrong |
//! | [`limits`] | [`Limits`] and [`TenantLimits`]: defaults, overrides per tenant, replaced while running |
//! | [`duration`], [`bytes`] | `#[serde(with = "...")]` forms: `1h30m`, `64MiB` |
//! | [`secret`] | [`Secret`] |
//! | [`reference`] | Markdown from the JSON schema of a config |

pub mod bytes;
pub mod duration;
pub mod limits;
pub mod load;
pub mod reference;
pub mod secret;

pub use limits::{Limits, TenantLimits};
pub use load::{load, parse};
pub use secret::Secret;
