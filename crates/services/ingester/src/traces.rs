//! Plugs traces in.

use futures::future::BoxFuture;
use triptych_blob::Bucket;
use triptych_config::TenantLimits;
use triptych_model::batch::TracesReader;
use triptych_model::push::PushReport;
use triptych_model::{Error, Result, Signal, TenantId};
use triptych_traces::{Head, HeadConfig};

use crate::Deps;
use crate::generation::{Flushed, Kind};

pub(crate) struct Traces {
    bucket: Bucket,
    limits: TenantLimits,
}

impl Traces {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self { bucket: deps.bucket.clone(), limits: deps.limits.clone() }
    }
}

impl Kind for Traces {
    const SIGNAL: Signal = Signal::Traces;
    type Head = Head;

    fn new_head(&self, tenant: &TenantId) -> Head {
        let limits = &self.limits.of(tenant).traces;
        Head::new(HeadConfig {
            traces_max: limits.live_traces_max as usize,
            trace_bytes_max: limits.trace_bytes_max as usize,
            ..HeadConfig::default()
        })
    }

    fn append(&self, head: &Head, plain: &[u8], _replay: bool) -> Result<PushReport> {
        head.append(TracesReader::new(plain)?)
    }

    fn bytes(&self, head: &Head) -> usize {
        head.bytes()
    }

    fn items(&self, head: &Head) -> usize {
        head.trace_count()
    }

    fn flush(&self, head: Head, tenant: TenantId) -> BoxFuture<'static, Result<Flushed>> {
        let _ = (&self.bucket, head, tenant);
        Box::pin(async move { Err(Error::internal("not yet")) })
    }
}
