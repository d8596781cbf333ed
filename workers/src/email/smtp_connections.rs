//! Connections to the mail server, kept open between mails. They speak lettre's SMTP; only its own pool is not used,
//! because that leaves Nagle's algorithm on: the end of a mail, which lettre writes apart, then waits for the server's
//! delayed ack, 40 ms a mail and connection. The sender's `smtp.concurrency` bounds their number.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::{Duration, Instant},
};

use lettre::{
    Message,
    transport::smtp::{
        Error as SmtpError, SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Tls, TlsParameters},
        extension::ClientId,
    },
};
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use url::Url;

/// The time that an idle connection stays open.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A mail server, and the idle connections to it.
#[derive(Clone)]
pub(super) struct SmtpConnections {
    server: Arc<Server>,
    idle: Arc<Mutex<Vec<Idle>>>,
    idle_max: usize,
}

/// The cause why a mail was not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// There is no connection: its name has no address, it refuses connections, or it does not answer.
    #[error("the mail server cannot be reached")]
    Unreachable(#[source] io::Error),
    /// The server's error, or a connection that it closed.
    #[error(transparent)]
    Smtp(#[from] SmtpError),
}

/// The cause why a URL names no mail server.
#[derive(Debug, thiserror::Error)]
pub(super) enum UrlError {
    #[error("smtp.url: {0}")]
    Syntax(#[from] url::ParseError),
    #[error("smtp.url: it names no host")]
    Host,
    #[error("smtp.url: the scheme is smtp or smtps, and ?tls= is required or opportunistic")]
    Scheme,
    #[error("smtp.url: user and password are not UTF-8")]
    Credentials(#[from] std::str::Utf8Error),
    #[error("smtp.url: {0}")]
    Tls(#[from] SmtpError),
}

struct Server {
    host: String,
    port: u16,
    tls: Tls,
    hello: ClientId,
    credentials: Option<Credentials>,
    timeout: Duration,
}

struct Idle {
    connection: AsyncSmtpConnection,
    since: Instant,
}

impl SmtpConnections {
    /// Creates a client that connects when the first mail is sent; a connection takes at most `timeout` to open.
    ///
    /// # Errors
    /// [`UrlError`].
    pub(super) fn new(url: &str, idle_max: usize, timeout: Duration) -> Result<Self, UrlError> {
        let idle = Arc::default();
        tokio::spawn(close_idle(Arc::downgrade(&idle)));
        Ok(Self { server: Arc::new(Server::from_url(url, timeout)?), idle, idle_max })
    }

    /// Sends one mail. Dropping this future closes the connection.
    ///
    /// # Errors
    /// [`SendError`]
    pub(super) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let mut connection = match self.reuse().await {
            Some(connection) => connection,
            None => self.server.connect().await?,
        };
        connection.send(message.envelope(), &message.formatted()).await?;
        let mut idle = locked(&self.idle);
        if idle.len() < self.idle_max {
            idle.push(Idle { connection, since: Instant::now() });
        }
        Ok(())
    }

    /// Takes the connection that was used last, if it still answers: servers close connections after some time, or after
    /// some mails.
    async fn reuse(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let Idle { mut connection, .. } = locked(&self.idle).pop()?;
            if connection.test_connected().await {
                return Some(connection);
            }
        }
    }
}

impl fmt::Debug for SmtpConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpConnections").field("host", &self.server.host).finish_non_exhaustive()
    }
}

impl Server {
    /// Parses a URL as lettre does: `smtp://` without TLS or with STARTTLS, `smtps://`, credentials, and as path our own
    /// host name.
    fn from_url(url: &str, timeout: Duration) -> Result<Self, UrlError> {
        let url = Url::parse(url)?;
        let host = url.host_str().ok_or(UrlError::Host)?.to_owned();
        let starttls = url.query_pairs().find(|(key, _)| key == "tls").map(|(_, value)| value.into_owned());
        let parameters = || TlsParameters::new(host.clone());
        let (default_port, tls) = match (url.scheme(), starttls.as_deref()) {
            ("smtp", None) => (SMTP_PORT, Tls::None),
            ("smtp", Some("required")) => (SUBMISSION_PORT, Tls::Required(parameters()?)),
            ("smtp", Some("opportunistic")) => (SUBMISSION_PORT, Tls::Opportunistic(parameters()?)),
            ("smtps", _) => (SUBMISSIONS_PORT, Tls::Wrapper(parameters()?)),
            _ => return Err(UrlError::Scheme),
        };
        let decoded = |text| percent_decode_str(text).decode_utf8().map(String::from);
        let credentials = match url.password() {
            Some(password) => Some(Credentials::new(decoded(url.username())?, decoded(password)?)),
            None => None,
        };
        let hello = match url.path().trim_matches('/') {
            "" => ClientId::default(),
            name => ClientId::Domain(name.to_owned()),
        };
        let port = url.port().unwrap_or(default_port);
        Ok(Self { host, port, tls, hello, credentials, timeout })
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, SendError> {
        let address = (self.host.as_str(), self.port);
        let mut connection = match &self.tls {
            // lettre accepts no stream of ours for TLS from the first byte: here the end of a mail waits for the ack.
            Tls::Wrapper(tls) => {
                let (timeout, tls) = (Some(self.timeout), Some(tls.clone()));
                AsyncSmtpConnection::connect_tokio1(address, timeout, &self.hello, tls, None).await?
            }
            Tls::None | Tls::Opportunistic(_) | Tls::Required(_) => {
                let stream = self.stream().await.map_err(SendError::Unreachable)?;
                AsyncSmtpConnection::connect_with_transport(Box::new(stream), &self.hello).await?
            }
        };
        match &self.tls {
            Tls::Required(tls) => connection.starttls(tls.clone(), &self.hello).await?,
            Tls::Opportunistic(tls) if connection.can_starttls() => {
                connection.starttls(tls.clone(), &self.hello).await?;
            }
            Tls::None | Tls::Opportunistic(_) | Tls::Wrapper(_) => {}
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }

    /// Opens a TCP connection without Nagle's algorithm.
    async fn stream(&self) -> io::Result<TcpStream> {
        let opening = TcpStream::connect((self.host.as_str(), self.port));
        let stream = tokio::time::timeout(self.timeout, opening).await.map_err(io::Error::from).flatten()?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Closes connections that were idle for too long, until the client is dropped.
async fn close_idle(idle: Weak<Mutex<Vec<Idle>>>) {
    loop {
        tokio::time::sleep(IDLE_MAX).await;
        let Some(idle) = idle.upgrade() else { return };
        let expired: Vec<Idle> =
            locked(&idle).extract_if(.., |connection| connection.since.elapsed() >= IDLE_MAX).collect();
        drop(idle);
        for Idle { mut connection, .. } in expired {
            connection.abort().await;
        }
    }
}

fn locked(idle: &Mutex<Vec<Idle>>) -> MutexGuard<'_, Vec<Idle>> {
    idle.lock().expect("no code panics while it holds the idle connections")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// Starts a server that accepts every mail and closes a connection after so many; returns its URL and the number of
    /// its connections.
    async fn server(mails_a_connection: usize) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("smtp://{}", listener.local_addr().expect("bound"));
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(converse(stream, mails_a_connection));
            }
        });
        (url, connections)
    }

    async fn converse(mut stream: TcpStream, mails: usize) -> io::Result<()> {
        let (read, mut write) = stream.split();
        let mut lines = BufReader::new(read).lines();
        let mut taken = 0;
        write.write_all(b"220 here\r\n").await?;
        while let Some(line) = lines.next_line().await? {
            let reply: &[u8] = if line == "DATA" {
                write.write_all(b"354 go on\r\n").await?;
                while lines.next_line().await?.is_some_and(|line| line != ".") {}
                taken += 1;
                b"250 taken\r\n"
            } else {
                b"250 ok\r\n"
            };
            write.write_all(reply).await?;
            if taken == mails {
                break;
            }
        }
        Ok(())
    }

    fn message() -> Message {
        let parse = |text: &str| text.parse().expect("an address");
        let builder = Message::builder().from(parse("a@example.org")).to(parse("b@example.org"));
        builder.body("text".to_owned()).expect("a mail")
    }

    #[tokio::test]
    async fn mails_follow_each_other_on_one_connection() {
        let (url, opened) = server(usize::MAX).await;
        let connections = SmtpConnections::new(&url, 1, TIMEOUT).expect("a URL");
        for _ in 0..100 {
            connections.send(&message()).await.expect("sent");
        }
        assert_eq!(opened.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn the_end_of_a_mail_does_not_wait_for_an_ack() {
        let (url, _) = server(usize::MAX).await;
        let stream = Server::from_url(&url, TIMEOUT).expect("a URL").stream().await.expect("it listens");
        assert!(stream.nodelay().expect("an open socket"));
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_after_some_mails_fails_none() {
        let (url, opened) = server(2).await;
        let connections = SmtpConnections::new(&url, 1, TIMEOUT).expect("a URL");
        for _ in 0..6 {
            connections.send(&message()).await.expect("sent");
        }
        assert_eq!(opened.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_url_says_where_and_how() {
        let server = |url| Server::from_url(url, TIMEOUT);
        let plain = server("smtp://mail.example.org").expect("a URL");
        assert!(plain.port == 25 && matches!(plain.tls, Tls::None) && plain.credentials.is_none());
        let starttls = server("smtp://us%40x:p%2Fw@mail.example.org/our.name?tls=required").expect("a URL");
        assert!(starttls.port == 587 && matches!(starttls.tls, Tls::Required(_)));
        assert_eq!(starttls.hello, ClientId::Domain("our.name".to_owned()));
        assert_eq!(starttls.credentials, Some(Credentials::new("us@x".to_owned(), "p/w".to_owned())));
        let wrapped = server("smtps://mail.example.org:4650").expect("a URL");
        assert!(wrapped.port == 4650 && matches!(wrapped.tls, Tls::Wrapper(_)));
        assert!(matches!(server("smtp://mail.example.org?tls=perhaps"), Err(UrlError::Scheme)));
        assert!(matches!(server("http://mail.example.org"), Err(UrlError::Scheme)));
    }
}
