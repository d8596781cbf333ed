//! One HTTP/1.1 keep-alive connection: write a rendered request, read its answer. As little as will do, so that the driver
//! leaves the machine to what it measures.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const HEADERS_MAX: usize = 32;
/// An answer comes in one read.
const ANSWER_BYTES: usize = 2_048;

/// A connection that is opened when it is first used, and again after it broke.
pub struct Connection {
    gateway: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// What matters of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u64>,
}

impl Connection {
    /// To this gateway.
    pub fn new(gateway: SocketAddr) -> Self {
        Self { gateway, stream: None, buffer: Vec::with_capacity(ANSWER_BYTES) }
    }

    /// Opens the connection, if it is not open.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn open(&mut self) -> io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.gateway).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        Ok(())
    }

    /// Sends and waits for the answer. How long is the caller's to limit: a timer a request would cost the driver more
    /// than the parsing does.
    ///
    /// # Errors
    /// Where the connection breaks. The request may have been taken.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.open().await?;
        let exchanged = self.on_open(request).await;
        if exchanged.is_err() {
            self.stream = None;
        }
        exchanged
    }

    async fn on_open(&mut self, request: &[u8]) -> io::Result<Answer> {
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

/// The answer, once it has come as a whole.
fn parse(bytes: &[u8]) -> io::Result<Option<Answer>> {
    Ok(parse_with_body(bytes)?.map(|(answer, _)| answer))
}

/// The answer and its body, once both have come as a whole.
///
/// # Errors
/// Where it is no HTTP/1.
pub fn parse_with_body(bytes: &[u8]) -> io::Result<Option<(Answer, &[u8])>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let httparse::Status::Complete(head) = parsed else { return Ok(None) };
    let number = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()?.parse::<u64>().ok()
    };
    let answer = Answer { status: response.code.unwrap_or_default(), retry_after: number("retry-after") };
    let body = bytes.get(head..head + number("content-length").unwrap_or(0) as usize);
    Ok(body.map(|body| (answer, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_body() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\nbusy";
        let answer = Answer { status: 503, retry_after: Some(2) };
        assert_eq!(parse(text).expect("is HTTP"), Some(answer));
        assert_eq!(parse(&text[..text.len() - 1]).expect("is HTTP"), None);
        assert_eq!(parse(&text[..20]).expect("is HTTP"), None);
        assert!(parse(b"nonsense\r\n\r\n").is_err());
    }
}
