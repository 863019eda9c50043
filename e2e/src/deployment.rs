//! One process or a cluster: what a scenario needs of either.

use anyhow::{Result, ensure};
use serde_json::Value as Json;

use crate::{Client, Cluster, Process};

/// What a scenario runs against.
#[allow(async_fn_in_trait, reason = "scenarios run on the test's own task")]
pub trait Deployment {
    /// Writes and reads.
    fn client(&self) -> Result<Client>;
    /// Where an application sends OTLP over gRPC, and over HTTP.
    fn otlp(&self) -> Result<(String, String)>;
    /// Everything that was acknowledged is in the bucket and is served from there.
    async fn flush(&self) -> Result<()>;
    /// One round of every compactor; what was done.
    async fn compact(&self) -> Result<Json>;
    /// Every process once, those of a zone at a time.
    async fn restart(&mut self) -> Result<()>;
    /// Fails with the log of a process that panicked.
    fn check_logs(&self) -> Result<()>;
}

impl Deployment for Process {
    fn client(&self) -> Result<Client> {
        Ok(self.client())
    }

    fn otlp(&self) -> Result<(String, String)> {
        Ok((self.otlp_grpc(), self.otlp_http()))
    }

    async fn flush(&self) -> Result<()> {
        self.client().flush().await
    }

    async fn compact(&self) -> Result<Json> {
        self.client().compact().await
    }

    async fn restart(&mut self) -> Result<()> {
        self.restart().await
    }

    fn check_logs(&self) -> Result<()> {
        ensure!(!self.log().contains("panicked"), "it panicked:\n{}", self.log());
        Ok(())
    }
}

impl Deployment for Cluster {
    fn client(&self) -> Result<Client> {
        self.client()
    }

    fn otlp(&self) -> Result<(String, String)> {
        let http = self.distributor()?.base().to_owned();
        let at = |port: u16| http.replace(":3300", &format!(":{port}"));
        Ok((at(4317), at(4318)))
    }

    async fn flush(&self) -> Result<()> {
        self.flush().await
    }

    async fn compact(&self) -> Result<Json> {
        self.compact().await
    }

    async fn restart(&mut self) -> Result<()> {
        self.restart_zones().await
    }

    fn check_logs(&self) -> Result<()> {
        self.check_logs()
    }
}
