//! Connections: one that dribbles a header is cut off soon, one that idles between two requests is kept for a while.

use std::time::{Duration, Instant};

use testkit::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::served::Served;

const HEADER: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(3);
const REQUEST: &[u8] = b"GET /health/live HTTP/1.1\r\nHost: gateway\r\n\r\n";

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

/// How long it stays open, with nothing more said.
async fn closed_after(stream: &mut TcpStream) -> Duration {
    let since = Instant::now();
    let mut rest = Vec::new();
    // A reset is an end too.
    stream.read_to_end(&mut rest).await.ok();
    since.elapsed()
}

#[tokio::test]
async fn dribblers_are_cut_off_and_idlers_are_kept() {
    let served = Served::start_with("connections", |settings| {
        settings.limits.header_read_ms = u64::try_from(HEADER.as_millis()).expect("small");
        settings.limits.idle_ms = u64::try_from(IDLE.as_millis()).expect("small");
    })
    .await;
    let mut dribbler = connect(&served).await;
    let began = Instant::now();
    let cut = eventually("the dribbler is cut off", IDLE, || {
        let written = dribbler.try_write(b"G");
        async move { written.is_err() }
    });
    cut.await;
    assert!(began.elapsed() >= HEADER / 2 && began.elapsed() < IDLE, "after {:?}", began.elapsed());
    assert!(closed_after(&mut dribbler).await < HEADER);

    let mut idler = connect(&served).await;
    idler.write_all(REQUEST).await.expect("it is open");
    assert_eq!(answered(&mut idler).await, "HTTP/1.1 200 OK");
    let quiet = tokio::time::timeout(HEADER * 3, idler.read_u8()).await;
    assert!(quiet.is_err(), "kept far longer than a header may take");
    idler.write_all(REQUEST).await.expect("it is open");
    assert_eq!(answered(&mut idler).await, "HTTP/1.1 200 OK");
    idler.write_all(&REQUEST[..20]).await.expect("it is open");
    assert!(closed_after(&mut idler).await < IDLE / 2, "a later request dribbles as little as the first");

    let mut idler = connect(&served).await;
    let kept = closed_after(&mut idler).await;
    assert!(kept >= IDLE - HEADER && kept < IDLE * 2, "kept for {kept:?}");
    served.close().await;
}
