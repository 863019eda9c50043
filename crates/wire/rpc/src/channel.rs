//! Channels: to another process, and to a service in this process through the same gRPC code path.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use triptych_model::{Error, Result};
use triptych_runtime::Shutdown;

/// Largest single message. Frames are kept near 1 MiB; a write batch may be as large as a request.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// HTTP/2 window of a stream, which is what it may hold in memory while its reader is busy: large enough that it is not held up by
/// acknowledgements on a local network.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// The largest there is. A connection is shared by writes and by many reads: were its window used up by streams whose readers wait for
/// something else, everybody on it would wait for them, and they perhaps for each other.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// A peer that says nothing for so long is asked whether it is there, and given up when it does not answer for as long again: a machine
/// that stands still, or is cut off, closes no connection. Below what pushes wait (`distributor.push_timeout`).
const SILENCE: Duration = Duration::from_secs(4);
/// Bytes in flight inside the process before the writer waits.
const LOCAL_PIPE_BYTES: usize = 1 << 20;

/// A server with our HTTP/2 settings.
pub fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(1 << 20)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
}

fn endpoint(uri: Uri) -> Endpoint {
    Endpoint::from(uri)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
}

/// A channel to `host:port` or `http://host:port`. Connects when first used, and again after a failure.
pub fn connect(address: &str) -> Result<Channel> {
    connect_while_heard_of(address, SILENCE)
}

/// As [`connect`]; a peer is asked after so much silence, and given up after as much again.
pub(crate) fn connect_while_heard_of(address: &str, silence: Duration) -> Result<Channel> {
    let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let uri = uri.parse().map_err(|e| Error::invalid(format!("address {address:?}: {e}")))?;
    Ok(endpoint(uri).http2_keep_alive_interval(silence).keep_alive_timeout(silence).connect_lazy())
}

/// Serves the `routes` of `role` on `pool` through a pipe inside the process and returns the channel to it. Ends with `shutdown`.
pub fn local(role: &'static str, routes: Routes, pool: &Handle, shutdown: Shutdown) -> Channel {
    let (connections, incoming) = tokio::sync::mpsc::channel::<tokio::io::DuplexStream>(16);
    let incoming = async_stream::stream! {
        let mut incoming = incoming;
        while let Some(connection) = incoming.recv().await {
            yield Ok::<_, std::io::Error>(connection);
        }
    };
    pool.spawn(async move {
        let stop = async move { shutdown.triggered().await };
        // The same span that a request over the network gets, as a child of the caller's.
        let server = server().layer(triptych_telemetry::trace::layer(role)).add_routes(routes);
        if let Err(error) = server.serve_with_incoming_shutdown(incoming, stop).await {
            tracing::error!(%error, "in-process server ended");
        }
    });
    let connector = tower::service_fn(move |_: Uri| {
        let connections = connections.clone();
        async move {
            let (client, server) = tokio::io::duplex(LOCAL_PIPE_BYTES);
            connections
                .send(server)
                .await
                .map_err(|_| std::io::Error::other("in-process server has ended"))?;
            Ok::<_, std::io::Error>(TokioIo::new(client))
        }
    });
    let _guard = pool.enter();
    endpoint(Uri::from_static("http://in-process")).connect_with_connector_lazy(connector)
}
