//! One HTTP/1.1 keep-alive connection that writes a rendered request and reads the response. It does no more than
//! that, so that the driver takes little CPU from the system that it measures.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const HEADERS_MAX: usize = 32;
/// Initial size of the read buffer: most responses arrive in one read.
const ANSWER_BYTES: usize = 2_048;

/// A connection that is opened on first use, and again after it broke.
pub(crate) struct Connection {
    gateway: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// Status and `Retry-After` of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u64>,
}

impl Connection {
    /// Returns a connection to this gateway, not opened yet.
    pub(crate) fn new(gateway: SocketAddr) -> Self {
        Self { gateway, stream: None, buffer: Vec::with_capacity(ANSWER_BYTES) }
    }

    /// Opens the connection unless it is open.
    ///
    /// # Errors
    /// Where the gateway refuses it.
    pub(crate) async fn open(&mut self) -> io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.gateway).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        Ok(())
    }

    /// Sends a request and reads the response. The caller limits the time: a timer for each request would cost the
    /// driver more CPU than the parsing.
    ///
    /// # Errors
    /// Where the connection breaks. The gateway may have accepted the request.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<ResponseHead> {
        self.open().await?;
        let exchanged = self.on_open(request).await;
        if exchanged.is_err() {
            self.stream = None;
        }
        exchanged
    }

    async fn on_open(&mut self, request: &[u8]) -> io::Result<ResponseHead> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_all(request).await?;
        self.buffer.clear();
        while stream.read_buf(&mut self.buffer).await? > 0 {
            if let Some(answer) = parse(&self.buffer)? {
                return Ok(answer);
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Returns the head of a response once the whole response has arrived, none before that.
fn parse(bytes: &[u8]) -> io::Result<Option<ResponseHead>> {
    Ok(parse_with_body(bytes)?.map(|(answer, _)| answer))
}

/// Returns the head and the body of a response once both have arrived, none before that.
///
/// # Errors
/// Where it is not HTTP/1.
pub(crate) fn parse_with_body(bytes: &[u8]) -> io::Result<Option<(ResponseHead, &[u8])>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let httparse::Status::Complete(head) = parsed else { return Ok(None) };
    let number = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()?.parse::<u64>().ok()
    };
    let answer = ResponseHead { status: response.code.unwrap_or_default(), retry_after: number("retry-after") };
    let body = bytes.get(head..head + number("content-length").unwrap_or(0) as usize);
    Ok(body.map(|body| (answer, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_complete_with_its_body() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\nbusy";
        let answer = ResponseHead { status: 503, retry_after: Some(2) };
        assert_eq!(parse(text).expect("is HTTP"), Some(answer));
        assert_eq!(parse(&text[..text.len() - 1]).expect("is HTTP"), None);
        assert_eq!(parse(&text[..20]).expect("is HTTP"), None);
        assert!(parse(b"nonsense\r\n\r\n").is_err());
    }
}
