//! How the bucket is said in the config, and built.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use triptych_model::{Error, Result};

use crate::{Bucket, CountedBucket};

/// Where the data is kept.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BucketConfig {
    /// A local directory: one machine, or a file system that all machines share.
    Filesystem(FilesystemConfig),
    /// Amazon S3, or anything that speaks its protocol.
    S3(S3Config),
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FilesystemConfig {
    /// Created where missing.
    pub dir: PathBuf,
}

impl Default for FilesystemConfig {
    fn default() -> Self {
        Self { dir: "data/bucket".into() }
    }
}

#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct S3Config {
    /// Name of the bucket. It must exist.
    pub bucket: String,
    /// Everything is put below this path inside of the bucket.
    pub prefix: String,
    /// Region; empty: `us-east-1`, which servers other than Amazon's do not look at.
    pub region: String,
    /// URL of the server; empty: Amazon's for the region.
    pub endpoint: String,
    /// Without keys: the AWS environment variables, web identity (IRSA), container or instance metadata.
    pub access_key_id: String,
    pub secret_access_key: Secret,
    /// `https://host/bucket` instead of `https://bucket.host`. Not set: with an `endpoint` yes, without one no.
    pub path_style: Option<bool>,
    /// Allows an `endpoint` with `http://`: keys are not sent in it, but the data are.
    pub allow_http: bool,
}

/// A text that does not show: not in logs, not in errors, not in `/config`.
#[derive(Clone, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// For the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

const HIDDEN: &str = "<hidden>";

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<empty>" } else { HIDDEN })
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { HIDDEN })
    }
}

impl Default for BucketConfig {
    fn default() -> Self {
        Self::Filesystem(FilesystemConfig::default())
    }
}

/// Retries of one request to S3. Whoever writes blocks tries again on top of this, with minutes between.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 6,
        retry_timeout: Duration::from_secs(60),
    }
}

/// A connection that is not up after 5 s will not be; a read that stands still for 20 s is dead; a whole request may be a
/// part of some dozen MiB over a slow line.
fn client() -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(5))
        .with_read_timeout(Duration::from_secs(20))
        .with_timeout(Duration::from_secs(180))
}

impl BucketConfig {
    /// Builds the bucket. Nothing is asked of the server yet.
    pub fn build(&self) -> Result<Bucket> {
        let store: Bucket = match self {
            Self::Filesystem(config) => Arc::new(config.build()?),
            Self::S3(config) if config.prefix.is_empty() => Arc::new(config.build()?),
            Self::S3(config) => Arc::new(PrefixStore::new(config.build()?, config.prefix.as_str())),
        };
        Ok(Arc::new(CountedBucket::new(store)))
    }

    /// Where it is, for a person; without secrets.
    pub fn describe(&self) -> String {
        match self {
            Self::Filesystem(config) => format!("directory {}", config.dir.display()),
            Self::S3(S3Config { bucket, endpoint, .. }) if endpoint.is_empty() => {
                format!("S3 bucket {bucket}")
            }
            Self::S3(S3Config { bucket, endpoint, .. }) => format!("S3 bucket {bucket} at {endpoint}"),
        }
    }
}

impl FilesystemConfig {
    fn build(&self) -> Result<impl ObjectStore + use<>> {
        let failed = |e: &dyn fmt::Display| Error::unavailable(format!("bucket {}: {e}", self.dir.display()));
        std::fs::create_dir_all(&self.dir).map_err(|e| failed(&e))?;
        let store = LocalFileSystem::new_with_prefix(&self.dir).map_err(|e| failed(&e))?;
        Ok(store.with_fsync(true).with_automatic_cleanup(true))
    }
}

/// A directory of this process alone, laid out like a bucket: as durable as one that is configured, not counted as one.
pub fn local(dir: &std::path::Path) -> Result<Bucket> {
    Ok(Arc::new(FilesystemConfig { dir: dir.to_owned() }.build()?))
}

impl S3Config {
    fn build(&self) -> Result<AmazonS3> {
        if self.bucket.is_empty() {
            return Err(Error::invalid("S3: `bucket` is empty"));
        }
        if self.access_key_id.is_empty() != self.secret_access_key.expose().is_empty() {
            return Err(Error::invalid("S3: `access_key_id` and `secret_access_key` go together"));
        }
        if self.endpoint.starts_with("http://") && !self.allow_http {
            return Err(Error::invalid(format!(
                "S3: the endpoint {} is not encrypted; set `allow_http: true` to use it",
                self.endpoint
            )));
        }
        // The HTTP client has no TLS backend of its own; the process' default is used, which `main` has set by now. Tests and
        // tools that have not set one get the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let region = if self.region.is_empty() { "us-east-1" } else { &self.region };
        let mut builder = if self.access_key_id.is_empty() {
            AmazonS3Builder::from_env()
        } else {
            AmazonS3Builder::new()
                .with_access_key_id(&self.access_key_id)
                .with_secret_access_key(self.secret_access_key.expose())
        };
        builder = builder
            .with_bucket_name(&self.bucket)
            .with_region(region)
            .with_retry(retry())
            .with_client_options(client())
            .with_allow_http(self.allow_http)
            .with_virtual_hosted_style_request(!self.path_style.unwrap_or(!self.endpoint.is_empty()));
        if !self.endpoint.is_empty() {
            builder = builder.with_endpoint(&self.endpoint);
        }
        builder.build().map_err(|e| Error::invalid(format!("S3: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_from_text_and_secrets_do_not_show() {
        let text = r#"{"type":"s3","bucket":"b","access_key_id":"id","secret_access_key":"hunter2"}"#;
        let config: BucketConfig = serde_json::from_str(text).unwrap();
        let shown = format!("{config:?} {} {}", serde_json::to_string(&config).unwrap(), config.describe());
        assert!(shown.contains(HIDDEN) && !shown.contains("hunter2"), "{shown}");
        let unknown = serde_json::from_str::<BucketConfig>(r#"{"type":"s3","bukket":"b"}"#).unwrap_err();
        assert!(unknown.to_string().contains("bukket"), "{unknown}");
        assert!(serde_json::from_str::<BucketConfig>(r#"{"type":"filesystem"}"#).is_ok());
    }

    #[test]
    fn mistakes_are_named() {
        let check = |config: S3Config, says: &str| {
            let error = BucketConfig::S3(config).build().unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        };
        let named = || S3Config { bucket: "b".into(), ..S3Config::default() };
        check(S3Config::default(), "`bucket` is empty");
        check(S3Config { access_key_id: "id".into(), ..named() }, "go together");
        check(S3Config { endpoint: "http://x:1".into(), ..named() }, "allow_http");
    }
}
