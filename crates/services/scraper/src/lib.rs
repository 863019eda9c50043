//! Scrapes targets as Prometheus' `scrape_configs` say, and this process' own `/metrics`.
//!
//! **Owns** service discovery (static, files), relabelling, when a target is scraped, staleness, `up` and `scrape_*`.
//! **Must not know** storage; samples leave through [`triptych_rpc::Write`], where limits apply as for every receiver.
//!
//! | module | what is in it |
//! |---|---|
//! | [`config`] | `scrape_configs` verbatim |
//! | [`relabel`] | relabelling rules |
//! | [`discovery`] | target groups from the config and from files |
//! | [`target`] | what a target is after relabelling |
//! | [`scrape`] | one target's series: cache, staleness, the batch of one scrape |
//! | [`manager`] | starts and stops a loop per target |
//!
//! One loop per target, spread over the interval by a hash of the target, so that a thousand targets do not knock at once.
//! Memory: per target its series' label sets once; per scrape the answer (at most `body_size_limit`).
//! Known holes: service discovery other than static and file; native histograms (no text form); exemplars' own limits.

pub mod config;
pub mod discovery;
pub mod manager;
pub mod relabel;
pub mod scrape;
pub mod target;
mod telemetry;

pub use config::Config;
pub use manager::{Deps, Scraper};
pub use telemetry::TELEMETRY;
