//! A TCP proxy that disturbs connections: delays the server's bytes (a confirm, the response to a COMMIT) or the
//! client's, cuts open connections, refuses new ones.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};
use url::Url;

const BUFFER_BYTES: usize = 64 * 1024;

/// A proxy to one server. Dropping it ends it and its connections.
pub struct Proxy {
    address: SocketAddr,
    valve: Arc<Valve>,
    listener: JoinHandle<()>,
}

struct Valve {
    holding: watch::Sender<bool>,
    holding_client: watch::Sender<bool>,
    refusing: watch::Sender<bool>,
    /// Number of cuts: a connection ends when it changes.
    severed: watch::Sender<u64>,
    held_bytes: AtomicU64,
    connections: AtomicU64,
}

impl Proxy {
    /// Listens on a free port and forwards everything to the server in the URL.
    ///
    /// # Panics
    /// Where the URL has no host or no known port.
    pub async fn start(upstream: &str) -> Self {
        let upstream = Url::parse(upstream).expect("the server is named by a URL");
        let port = upstream.port_or_known_default().or_else(|| default_port(upstream.scheme()));
        let target = (upstream.host_str().expect("a host").to_owned(), port.expect("a port"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let valve = Arc::new(Valve {
            holding: watch::Sender::new(false),
            holding_client: watch::Sender::new(false),
            refusing: watch::Sender::new(false),
            severed: watch::Sender::new(0),
            held_bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&valve);
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !*accepting.refusing.borrow() {
                    tokio::spawn(pass(client, target.clone(), Arc::clone(&accepting)));
                }
            }
        });
        Self { address, valve, listener }
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the server with the proxy's address.
    pub fn url(&self, of_server: &str) -> String {
        let mut url = Url::parse(of_server).expect("the server is named by a URL");
        url.set_ip_host(self.address.ip()).expect("the URL has a host");
        url.set_port(Some(self.address.port())).expect("the URL has a host");
        url.to_string()
    }

    /// Holds back all bytes from the server to the client until [`Proxy::release`].
    pub fn hold_server_to_client(&self) {
        self.valve.held_bytes.store(0, Ordering::SeqCst);
        self.valve.holding.send_replace(true);
    }

    /// Holds back all bytes from the client to the server until [`Proxy::release`].
    pub fn hold_client_to_server(&self) {
        self.valve.holding_client.send_replace(true);
    }

    /// Forwards the held bytes, and all that follow.
    pub fn release(&self) {
        self.valve.holding.send_replace(false);
        self.valve.holding_client.send_replace(false);
    }

    /// Bytes that the server has sent since the hold began: above zero once a confirm is held here.
    pub fn held_bytes(&self) -> u64 {
        self.valve.held_bytes.load(Ordering::SeqCst)
    }

    /// Cuts every open connection; new ones are served.
    pub fn sever(&self) {
        self.valve.severed.send_modify(|cuts| *cuts += 1);
    }

    /// Closes new connections at once (true), or serves them again (false). Those that are open stay.
    pub fn refuse_new(&self, refuse: bool) {
        self.valve.refusing.send_replace(refuse);
    }

    /// Connections that are open now.
    pub fn connections(&self) -> u64 {
        self.valve.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.sever();
    }
}

/// Serves one connection until either side closes it or it is cut.
async fn pass(client: TcpStream, target: (String, u16), valve: Arc<Valve>) {
    let mut severed = valve.severed.subscribe();
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    valve.connections.fetch_add(1, Ordering::SeqCst);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pump(from_client, to_server, &valve.holding_client, None) => {}
        () = pump(from_server, to_client, &valve.holding, Some(&valve.held_bytes)) => {}
        _ = severed.changed() => {}
    }
    valve.connections.fetch_sub(1, Ordering::SeqCst);
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    holding: &watch::Sender<bool>,
    held_bytes: Option<&AtomicU64>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let mut holding = holding.subscribe();
        if let (true, Some(held_bytes)) = (*holding.borrow(), held_bytes) {
            held_bytes.fetch_add(read as u64, Ordering::SeqCst);
        }
        if holding.wait_for(|holding| !holding).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "amqp" => Some(5672),
        "postgres" | "postgresql" => Some(5432),
        "redis" => Some(6379),
        "smtp" => Some(25),
        _ => None,
    }
}
