//! Connections: one that dribbles a header is cut off soon, one that idles between two requests is kept for a while.

use std::time::{Duration, Instant};

use testkit::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{served::Served, system::LIMIT};

/// The limit under test; the other one is longer than the test, so that what ends a connection is this one.
const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(3_600);
const REQUEST: &[u8] = b"GET /health/live HTTP/1.1\r\nHost: gateway\r\n\r\n";

/// A gateway with these limits of a header and of an idle connection.
async fn served(test: &str, header: Duration, idle: Duration) -> Served {
    let millis = |limit: Duration| u64::try_from(limit.as_millis()).expect("an hour");
    Served::start_with(test, |settings| {
        settings.limits.header_read_ms = millis(header);
        settings.limits.idle_ms = millis(idle);
    })
    .await
}

async fn connect(served: &Served) -> TcpStream {
    TcpStream::connect(served.gateway.address()).await.expect("the gateway listens")
}

/// Reads until there is an end of headers; answers the first line.
async fn answered(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.expect("an answer"));
    }
    String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned()
}

/// Waits until it is closed, with nothing more said.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end too.
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("it is closed").ok();
}

#[tokio::test]
async fn dribblers_are_cut_off_and_idlers_are_kept() {
    let served = served("dribblers", SHORT, LONG).await;
    let began = Instant::now();
    let mut dribbler = connect(&served).await;
    let cut = eventually("the dribbler is cut off", LIMIT, || {
        let written = dribbler.try_write(b"G");
        async move { written.is_err() }
    });
    cut.await;
    assert!(began.elapsed() >= SHORT, "after {:?}", began.elapsed());
    closed(&mut dribbler).await;

    let mut idler = connect(&served).await;
    idler.write_all(REQUEST).await.expect("it is open");
    assert_eq!(answered(&mut idler).await, "HTTP/1.1 200 OK");
    let quiet = tokio::time::timeout(SHORT * 3, idler.read_u8()).await;
    assert!(quiet.is_err(), "kept far longer than a header may take");
    idler.write_all(REQUEST).await.expect("it is open");
    assert_eq!(answered(&mut idler).await, "HTTP/1.1 200 OK");
    // A later request dribbles as little as the first.
    idler.write_all(&REQUEST[..20]).await.expect("it is open");
    closed(&mut idler).await;
    served.close().await;
}

#[tokio::test]
async fn an_idler_is_closed_in_the_end() {
    let served = served("idlers", LONG, SHORT).await;
    let began = Instant::now();
    let mut idler = connect(&served).await;
    closed(&mut idler).await;
    assert!(began.elapsed() >= SHORT, "after {:?}", began.elapsed());
    served.close().await;
}
