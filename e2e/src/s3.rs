//! A server of the S3 protocol over a directory, in this process.

use std::path::Path;

use anyhow::Result;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::Options;

pub const BUCKET: &str = "telemetry";
pub const KEY_ID: &str = "key-id";
pub const KEY_SECRET: &str = "key-secret-that-nobody-shows";

/// Serves `root` for as long as the runtime lives; returns the options that make a process keep its data there.
pub async fn serve(root: &Path) -> Result<Options> {
    std::fs::create_dir_all(root.join(BUCKET))?;
    let files = s3s_fs::FileSystem::new(root).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let mut builder = s3s::service::S3ServiceBuilder::new(files);
    builder.set_auth(s3s::auth::SimpleAuth::from_single(KEY_ID, KEY_SECRET));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    Ok(Options::default()
        .set("bucket.type", "s3")
        .set("bucket.bucket", BUCKET)
        .set("bucket.endpoint", format_args!("http://{address}"))
        .set("bucket.access_key_id", KEY_ID)
        .set("bucket.secret_access_key", KEY_SECRET)
        .set("bucket.allow_http", true))
}
