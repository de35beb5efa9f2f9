//! The daemon: where it listens, whom it lets in, how it ends.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::transport::server::Connected;
use tonic::transport::{Identity, ServerTlsConfig};

use crate::{Error, Result, Store};

use super::auth::Token;
use super::metrics;
use super::service::Service;

/// How often a silent connection is asked whether it lives, and how long it has to say so.
const ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
/// How long a client may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes of the longest head of a request.
const LONGEST_HEAD: u32 = 16 << 10;
/// Connections beside two for each stream.
const SPARE: usize = 64;
/// Most requests at a time on one connection.
const MOST_REQUESTS: u32 = 64;
/// After the last streams were told to end, how long they have for it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address; port 0 is any that is free.
    Tcp(SocketAddr),
    /// A socket in the file system, whose permissions say who may connect.
    Unix(PathBuf),
}

/// The files' content by which a server proves who it is.
#[derive(Clone)]
pub struct Tls {
    /// Certificates in PEM, the server's first.
    pub certificate: Vec<u8>,
    /// Its private key in PEM.
    pub key: Vec<u8>,
}

/// How a server serves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where.
    pub listen: Listen,
    /// Where metrics are shown to Prometheus; they need no token.
    pub metrics: Option<SocketAddr>,
    /// What clients have to show. Needed where others than this machine's users can connect.
    pub token: Option<String>,
    /// Encrypts, if given.
    pub tls: Option<Tls>,
    /// Threads that make batches.
    pub threads: NonZeroUsize,
    /// Most streams open at a time. Each holds up to two batches, or three that its client reads in memory they share, and all threads
    /// together some more.
    pub streams: NonZeroUsize,
    /// How long streams may go on after the end was asked for.
    pub drain: Duration,
}

/// A server that is bound, and not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    url: String,
    metrics: Option<TcpListener>,
    service: Service,
    tls: Option<ServerTlsConfig>,
    drain: Duration,
    /// Most connections.
    most: usize,
    closing: watch::Sender<bool>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

impl Server {
    /// Binds a server of these data sets, each by the name that clients use.
    ///
    /// # Errors
    /// When the address is taken or not allowed; when others than this machine's users could connect and there is no token; when the token is
    /// short enough to be guessed; when the certificate or its key cannot be used.
    pub async fn bind(stores: BTreeMap<String, Store>, options: Options) -> Result<Self> {
        let Options { listen, metrics, token, tls, threads, streams, drain } = options;
        if let Listen::Tcp(address) = &listen
            && token.is_none()
            && !address.ip().is_loopback()
        {
            return Err(Error::config("token", format!("one, since others can reach {address}"), "none"));
        }
        let token = token.as_deref().map(Token::new).transpose()?;
        let tls = match tls {
            Some(tls) => {
                // The certificate is looked at now, and not when the first client comes.
                let identity = Identity::from_pem(&tls.certificate, &tls.key);
                let config = ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE);
                let checked = tonic::transport::Server::builder().tls_config(config.clone());
                checked.map_err(|error| Error::network(&listen, "use the certificate and its key", error))?;
                Some(config)
            }
            None => None,
        };
        let refused = |error| Error::network(&listen, "listen", error);
        let (listener, url) = match &listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(refused)?;
                let bound = listener.local_addr().map_err(refused)?;
                (Listener::Tcp(listener), format!("grpc+{}://{bound}", if tls.is_some() { "tls" } else { "tcp" }))
            }
            Listen::Unix(path) => {
                remove_stale(path).await;
                let listener = UnixListener::bind(path).map_err(refused)?;
                (Listener::Unix { listener, _file: SocketFile(path.clone()) }, format!("grpc+unix://{}", path.display()))
            }
        };
        let metrics = match metrics {
            Some(address) => Some(TcpListener::bind(address).await.map_err(|error| Error::network(address, "listen", error))?),
            None => None,
        };
        let (closing, closed) = watch::channel(false);
        let service = Service::new(stores, token, threads.get(), streams.get(), closed);
        // Some for those who only ask.
        let most = 2 * streams.get() + SPARE;
        Ok(Self { listener, url, metrics, service, tls, drain, most, closing })
    }

    /// Where clients find it: `grpc+tcp://127.0.0.1:40000`, `grpc+tls://…`, `grpc+unix:///run/…`, as Flight libraries spell it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the metrics are.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until `end`, and then, without letting anybody else in, until all streams have ended, for as long as they may. Streams that
    /// have not ended by then are told that the server goes down, so that their clients can ask another, or this one when it is back.
    ///
    /// # Errors
    /// When the network fails altogether.
    pub async fn run(self, end: impl Future<Output = ()> + Send) -> Result<()> {
        let Self { listener, url, metrics, service, tls, drain, most, closing } = self;
        let mut server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(ALIVE.0))
            .http2_keepalive_timeout(Some(ALIVE.1))
            .http2_max_header_list_size(LONGEST_HEAD)
            .max_concurrent_streams(MOST_REQUESTS);
        if let Some(tls) = tls {
            server = server.tls_config(tls).map_err(|error| Error::network(&url, "use the certificate and its key", error))?;
        }
        let pages = metrics.map(|listener| {
            let service = service.clone();
            tokio::spawn(metrics::answer(listener, move || service.metrics()))
        });

        // `end` asks for the end; `over` says that the streams have had their time.
        let (asked, mut was_asked) = watch::channel(false);
        let ending = async move {
            end.await;
            asked.send_replace(true);
        };
        let over = async {
            // Without a sender, nobody will ask any more.
            let _ = was_asked.wait_for(|asked| *asked).await;
            tokio::time::sleep(drain).await;
            closing.send_replace(true);
            tokio::time::sleep(LAST_WORDS).await;
        };
        let serving = async {
            let connections = stream::unfold((listener, Arc::new(Semaphore::new(most))), |(listener, seats)| async {
                let connection = accept(&listener, &seats).await;
                Some((connection, (listener, seats)))
            });
            server.serve_with_incoming_shutdown(service, connections, ending).await
        };
        let served = tokio::select! {
            served = serving => served,
            () = over => Ok(()),
        };
        if let Some(pages) = pages {
            pages.abort();
        }
        served.map_err(|error| Error::network(url, "serve", error))
    }
}

/// The next connection, once there is a seat for it.
async fn accept(listener: &Listener, seats: &Arc<Semaphore>) -> std::io::Result<Connection> {
    let seat = Arc::clone(seats).acquire_owned().await.map_err(std::io::Error::other)?;
    let socket: std::io::Result<Box<dyn Socket>> = match listener {
        Listener::Tcp(listener) => listener.accept().await.and_then(|(socket, _)| {
            socket.set_nodelay(true)?;
            Ok(Box::new(socket) as Box<dyn Socket>)
        }),
        Listener::Unix { listener, .. } => listener.accept().await.map(|(socket, _)| Box::new(socket) as Box<dyn Socket>),
    };
    if let Err(error) = &socket {
        // For want of file descriptors, as a rule: not to be asked again at once.
        tracing::warn!(%error, "a connection was not accepted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(Connection { socket: socket?, _seat: seat })
}

/// A connection of either kind, of which there is room for so many.
struct Connection {
    socket: Box<dyn Socket>,
    _seat: OwnedSemaphorePermit,
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

/// Takes away a socket that nobody listens on any more: what a killed server leaves.
async fn remove_stale(path: &PathBuf) {
    if let Err(error) = UnixStream::connect(path).await
        && error.kind() == std::io::ErrorKind::ConnectionRefused
    {
        // Whether it could be removed, binding will tell.
        let _ = std::fs::remove_file(path);
    }
}

/// A socket's name, which goes with the server.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => text.parse().map(Self::Tcp).map_err(|_| "wanted an address and a port, 127.0.0.1:0, or unix:/a/path".to_owned()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}
