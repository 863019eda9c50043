//! Settings of the distributor.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use triptych_model::{Error, Result};

use crate::{Deps, Distributor};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Largest request body as it is sent.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub body_bytes_max: usize,
    /// Largest request body after decompression.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub request_bytes_max: usize,
    /// Largest write batch that one request may unfold into (labels repeated per bucket, resources repeated per trace).
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub batch_bytes_max: usize,
    /// Memory for bodies and batches of all requests that are under way; no size of a request may be more than a fifth of it. Above it pushes are
    /// answered with 429 where the tenant holds more than its fair share, else with 503. 0: a share of `memory_limit`.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub in_flight_bytes_max: usize,
    /// How long a request may take to send its body.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub body_timeout: Duration,
    /// How long an ingester may take to sync a write before another one of its zone is asked.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub push_timeout: Duration,
    /// Log streams without the label `service_name` get it, from labels such as `app` or `container`, as in Loki.
    pub discover_service_name: bool,
    /// Log lines get the structured metadata `detected_level`, from labels, fields or words of the line, as in Loki.
    pub discover_log_levels: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 << 20,
            request_bytes_max: 100 << 20,
            batch_bytes_max: 128 << 20,
            in_flight_bytes_max: 0,
            body_timeout: Duration::from_secs(30),
            push_timeout: Duration::from_secs(10),
            discover_service_name: true,
            discover_log_levels: true,
        }
    }
}

impl Config {
    pub fn build(self, deps: Deps) -> Result<Distributor> {
        // A request holds its body, what it unfolds to and that sealed, and as much once more where it goes on in the background; a
        // larger one would be refused again and again.
        let largest = deps.memory.bytes_max() / 5;
        if largest == 0 {
            return Err(Error::invalid("distributor: there is no memory for pushes; raise memory_limit"));
        }
        let config = Self {
            body_bytes_max: self.body_bytes_max.min(largest),
            request_bytes_max: self.request_bytes_max.min(largest),
            batch_bytes_max: self.batch_bytes_max.min(largest),
            ..self
        };
        Ok(Distributor::new(Arc::new(config), deps))
    }
}
