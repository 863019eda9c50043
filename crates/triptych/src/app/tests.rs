//! Clients that stand still.

use axum::body::{Body, Bytes};
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;

/// An answer without an end; says when nobody wants it any more.
struct Endless(mpsc::UnboundedSender<()>);

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_loses_the_connection() {
    let (gone, mut is_gone) = mpsc::unbounded_channel();
    let endless = move || {
        let pieces = futures::stream::unfold(Endless(gone.clone()), async |endless| {
            Some((Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 65536])), endless))
        });
        async move { Body::from_stream(pieces) }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (routes, closing) = (Router::new().route("/", get(endless)), Shutdown::new());
    let serving = tokio::spawn(serve_http(listener, routes, closing.clone(), Duration::from_secs(2)));
    let ask = async || {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        client
    };
    // One that reads, slowly, for longer than that; one that does not read.
    let (mut reader, stalled) = (ask().await, ask().await);
    let mut bytes = vec![0; 1 << 20];
    for _ in 0..25 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(reader.read(&mut bytes).await.unwrap() > 0);
    }
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, is_gone.recv()).await.expect("the answer is still held").unwrap();
    assert!(is_gone.try_recv().is_err(), "who reads has lost the connection");
    assert!(reader.read(&mut bytes).await.unwrap() > 0);
    drop((reader, stalled));
    closing.trigger();
    tokio::time::timeout(patience, serving).await.expect("it does not end").unwrap().unwrap();
}
