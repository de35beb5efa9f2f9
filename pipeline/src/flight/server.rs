//! The daemon: where it listens, whom it lets in, how it ends.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::{Connected, TcpIncoming};
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
    /// Most streams open at a time. Each holds up to two batches, and all threads together some more.
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
    closing: watch::Sender<bool>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
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
                (Listener::Unix(listener, SocketFile(path.clone())), format!("grpc+unix://{}", path.display()))
            }
        };
        let metrics = match metrics {
            Some(address) => Some(TcpListener::bind(address).await.map_err(|error| Error::network(address, "listen", error))?),
            None => None,
        };
        let (closing, closed) = watch::channel(false);
        let service = Service::new(stores, token, threads.get(), streams.get(), closed);
        Ok(Self { listener, url, metrics, service, tls, drain, closing })
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
        let Self { listener, url, metrics, service, tls, drain, closing } = self;
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
            match listener {
                Listener::Tcp(listener) => {
                    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                    server.serve_with_incoming_shutdown(service, patient(incoming), ending).await
                }
                Listener::Unix(listener, _file) => {
                    server.serve_with_incoming_shutdown(service, patient(UnixListenerStream::new(listener)), ending).await
                }
            }
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

/// Connections as they come; where one fails, for want of file descriptors as a rule, the next is waited for a little.
fn patient<C>(incoming: impl Stream<Item = std::io::Result<C>> + Send) -> impl Stream<Item = std::io::Result<C>> + Send
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    incoming.then(|connection| async {
        if let Err(error) = &connection {
            tracing::warn!(%error, "a connection was not accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        connection
    })
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
