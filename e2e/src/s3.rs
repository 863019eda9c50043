//! A server of the S3 protocol over a directory, in this process. It can be told to be away.

use std::convert::Infallible;
use std::path::Path;

use anyhow::Result;
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::{HttpError, HttpResponse};
use tokio::sync::watch;

use crate::Options;

pub const BUCKET: &str = "telemetry";
pub const KEY_ID: &str = "key-id";
pub const KEY_SECRET: &str = "key-secret-that-nobody-shows";

/// What becomes of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Well,
    /// 503 to everything.
    Refuses,
    /// No answer until the mood changes.
    Silent,
}

/// Serves for as long as the runtime lives.
pub struct Server {
    /// Make a process keep its data here.
    pub options: Options,
    mood: watch::Sender<Mood>,
}

impl Server {
    /// Serves `root`.
    pub async fn start(root: &Path) -> Result<Self> {
        std::fs::create_dir_all(root.join(BUCKET))?;
        let files = s3s_fs::FileSystem::new(root).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let mut builder = s3s::service::S3ServiceBuilder::new(files);
        builder.set_auth(s3s::auth::SimpleAuth::from_single(KEY_ID, KEY_SECRET));
        let service = builder.build();
        let (sender, mood) = watch::channel(Mood::Well);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, mood) = (service.clone(), mood.clone());
                let answer =
                    hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (service, mut mood) = (service.clone(), mood.clone());
                        async move {
                            let mood = mood.wait_for(|mood| *mood != Mood::Silent).await.map(|mood| *mood);
                            if !matches!(mood, Ok(Mood::Well)) {
                                return Ok(refusal());
                            }
                            let answer: Result<_, HttpError> =
                                hyper::service::Service::call(&service, request).await;
                            Ok::<_, Infallible>(answer.unwrap_or_else(|_| refusal()))
                        }
                    });
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), answer).await;
                });
            }
        });
        let options = Options::default()
            .set("bucket.type", "s3")
            .set("bucket.bucket", BUCKET)
            .set("bucket.endpoint", format_args!("http://{address}"))
            .set("bucket.access_key_id", KEY_ID)
            .set("bucket.secret_access_key", KEY_SECRET)
            .set("bucket.allow_http", true);
        Ok(Self { options, mood: sender })
    }

    pub fn set_mood(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

fn refusal() -> HttpResponse {
    let mut response = HttpResponse::new(s3s::Body::empty());
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    response
}
