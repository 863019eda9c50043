//! Services that run on a pool of their own, whichever pool the connection is on.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;
use triptych_runtime::on;

use crate::status::to_status;

/// A service each of whose calls is a task on `pool`, what it makes of streams included; it ends when the caller goes away. So what a read
/// computes never holds up a connection that brings writes (I7).
#[derive(Debug, Clone)]
pub struct OnPool<S> {
    service: S,
    pool: Handle,
}

impl<S> OnPool<S> {
    pub fn new(service: S, pool: &Handle) -> Self {
        Self { service, pool: pool.clone() }
    }
}

impl<S: NamedService> NamedService for OnPool<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for OnPool<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (call, pool) = (self.service.call(request), self.pool.clone());
        async move { on(&pool, call).await.unwrap_or_else(|error| Ok(to_status(error).into_http())) }.boxed()
    }
}
