//! The other end: batches from a server, as from a loader.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use datasets::{Batch, BatchError, BatchIter, Batches, Normalize};
use futures_util::{StreamExt, stream};
use http::header::HeaderValue;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::loader::Config;
use crate::{Error, Result};

use super::columns::{self, Part, Reading};
use super::feed::BATCH;
use super::grpc::{self, Failure, Messages};
use super::memory::Mapping;
use super::protocol::{
    COMMAND, Criteria, DO_EXCHANGE, DO_GET, FlightData, FlightDescriptor, FlightInfo, GET_FLIGHT_INFO, LIST_FLIGHTS, RawTicket, Word,
};
use super::ticket::{Group, Summary, Ticket};

/// Bytes that a server may send ahead of the reader, on a stream and on the connection.
const WINDOW: u32 = 8 << 20;
/// Bytes of a frame of HTTP/2: few and large ones, since a batch is.
const FRAME: u32 = 256 << 10;
const CONNECT: Duration = Duration::from_secs(10);
/// How often a silent server is asked whether it lives, and how long it has to say so.
const ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
/// How long to wait before asking again, first and at most, doubling; and how often. Together some minutes, enough for a server to restart.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
const ATTEMPTS: u32 = 25;

/// A server, as its clients know it.
#[derive(Clone)]
pub struct Remote {
    /// As the server prints it: `grpc+tcp://host:port`, `grpc+tls://host:port`, `grpc+unix:///path`.
    pub url: String,
    /// What it wants to be shown.
    pub token: Option<String>,
    /// Who vouches for its certificate, in PEM; needed with `grpc+tls`.
    pub authority: Option<Vec<u8>>,
    /// Whether batches may come in memory that a server on this machine shares, rather than through a socket. Where that cannot be, they
    /// come through the socket all the same.
    pub share: bool,
}

/// Epochs of batches made by a server, bit for bit those of a [`Loader`](crate::Loader) of the same store and [`Config`].
///
/// A connection that breaks is made again, and the rest of the epoch asked for. Like a loader's, the iterator of an epoch is for ordinary
/// threads, not for async code.
#[derive(Debug)]
pub struct Client {
    line: Arc<Line>,
    ticket: Ticket,
    summary: Arc<Summary>,
    normalize: Option<Arc<Normalize>>,
}

/// The way to a server, for as long as somebody reads from it.
#[derive(Debug)]
struct Line {
    url: String,
    channel: Channel,
    token: Option<HeaderValue>,
    /// Whether to ask for shared memory, which did not fail so far.
    share: AtomicBool,
    /// Always there, until it is shut down.
    runtime: Option<Runtime>,
}

impl Remote {
    /// A server that wants to be shown nothing, and may share memory.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), token: None, authority: None, share: true }
    }

    /// What the server has: each split of each data set, as it comes without transforms.
    ///
    /// # Errors
    /// When the server cannot be reached, or refuses.
    pub fn list(&self) -> Result<Vec<Summary>> {
        self.open()?.wait(|line| async move {
            let flights = line.call::<FlightInfo>(LIST_FLIGHTS, &Criteria {}).await?;
            flights.iter().map(|info| line.summary(info)).collect()
        })
    }

    fn open(&self) -> Result<Arc<Line>> {
        let failed = |action| move |error: Box<dyn std::error::Error + Send + Sync>| Error::network(&self.url, action, error);
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("flight").enable_all().build();
        let runtime = runtime.map_err(|error| failed("start a thread")(error.into()))?;
        let endpoint = self.endpoint().map_err(failed("understand the address"))?;
        let token = self.token.as_ref().map(|token| HeaderValue::try_from(format!("Bearer {token}"))).transpose();
        let token = token.map_err(|error| failed("send the token")(error.into()))?;
        let channel = {
            // The channel starts a task of its own.
            let _guard = runtime.enter();
            endpoint.connect_lazy()
        };
        let share = AtomicBool::new(self.share && self.is_here());
        Ok(Arc::new(Line { url: self.url.clone(), channel, token, share, runtime: Some(runtime) }))
    }

    /// Whether the server seems to be on this machine.
    fn is_here(&self) -> bool {
        match self.url.split_once("://") {
            Some(("grpc+unix", _)) => true,
            Some((_, host)) => {
                let host = host.rsplit_once(':').map_or(host, |(host, _)| host).trim_matches(['[', ']']);
                host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            }
            None => false,
        }
    }

    fn endpoint(&self) -> Result<Endpoint, Box<dyn std::error::Error + Send + Sync>> {
        let url = match self.url.split_once("://") {
            Some(("grpc" | "grpc+tcp", rest)) => format!("http://{rest}"),
            Some(("grpc+tls", rest)) => format!("https://{rest}"),
            Some(("grpc+unix", path)) => format!("unix:{path}"),
            _ => return Err("wanted grpc+tcp://host:port, grpc+tls://host:port or grpc+unix:///path".into()),
        };
        let secure = url.starts_with("https:");
        let endpoint = Endpoint::from_shared(url)?
            .connect_timeout(CONNECT)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .max_frame_size(FRAME)
            .http2_keep_alive_interval(ALIVE.0)
            .keep_alive_timeout(ALIVE.1);
        match (secure, &self.authority) {
            (false, _) => Ok(endpoint),
            (true, Some(authority)) => Ok(endpoint.tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)))?),
            (true, None) => Err("wanted the certificate of who vouches for the server".into()),
        }
    }
}

impl Client {
    /// Batches of a data set of `remote`. The server is asked about it.
    ///
    /// # Errors
    /// When the server cannot be reached, has no such data set, or refuses the configuration.
    pub fn connect(remote: &Remote, dataset: &str, config: Config) -> Result<Self> {
        let line = remote.open()?;
        let loader = Config { threads: 0, cache: 0, ..config };
        let ticket = Ticket { dataset: dataset.to_owned(), loader, epoch: 0, start: 0, group: None };
        let descriptor = FlightDescriptor { kind: COMMAND, command: ticket.json().into(), path: Vec::new() };
        let summary = line.wait(|line| async move {
            let info = line.call::<FlightInfo>(GET_FLIGHT_INFO, &descriptor).await?;
            line.summary(info.first().ok_or_else(|| line.error(Failure::protocol("no answer")))?)
        })?;
        let normalize = summary.normalize.clone().map(Arc::new);
        Ok(Self { line, ticket, summary: Arc::new(summary), normalize })
    }

    /// The same as one of several consumers who share each epoch: each batch goes to one of them. `member` tells this one from the others.
    pub fn in_group(mut self, name: &str, member: &str) -> Self {
        self.ticket.group = Some(Group { name: name.to_owned(), member: member.to_owned(), received: None });
        self
    }

    /// What the server said of the data.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The batches of epoch `epoch` from number `first` on, each with its number. In a group, those that the others leave.
    ///
    /// A batch that cannot be made is an `Err` at its place, and those after it still come.
    pub fn stream(&self, epoch: u64, first: usize) -> Flight {
        let (sender, receiver) = mpsc::channel(1);
        let ticket = Ticket { epoch, start: first, ..self.ticket.clone() };
        let pull = Pull { line: Arc::clone(&self.line), summary: Arc::clone(&self.summary), normalize: self.normalize.clone(), ticket };
        self.line.spawn(pull.run(sender));
        Flight { receiver, line: Arc::clone(&self.line), ended: false }
    }
}

impl Batches for Client {
    fn samples(&self) -> usize {
        self.summary.samples
    }

    fn batches(&self) -> usize {
        self.summary.batches
    }

    fn sample_shape(&self) -> Vec<usize> {
        self.summary.shape.clone()
    }

    fn classes(&self) -> usize {
        self.summary.classes.len()
    }

    fn epoch(&self, epoch: u64, first: usize) -> BatchIter {
        Box::new(self.stream(epoch, first).map(|batch| batch.map(|(_, batch)| batch).map_err(BatchError::from)))
    }
}

/// The batches of one epoch, as they come, each with its number. Dropping it ends the stream, here and at the server.
#[derive(Debug)]
pub struct Flight {
    receiver: Receiver<Item>,
    line: Arc<Line>,
    ended: bool,
}

/// What is pulled, and `None` at the end of the epoch: an end that nobody says is none.
type Item = Option<Result<(usize, Batch)>>;

impl Iterator for Flight {
    type Item = Result<(usize, Batch)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.receiver.blocking_recv();
        self.ended = matches!(item, None | Some(None));
        item.unwrap_or_else(|| Some(Err(self.line.error(Failure::protocol("a thread panicked")))))
    }
}

/// Pulls one epoch from the server.
struct Pull {
    line: Arc<Line>,
    summary: Arc<Summary>,
    normalize: Option<Arc<Normalize>>,
    /// What is still to be asked for.
    ticket: Ticket,
}

impl Pull {
    /// Until the epoch ends or nobody takes the batches.
    async fn run(mut self, batches: Sender<Item>) {
        let mut attempts = 0;
        loop {
            let before = self.ticket.clone();
            // That the reader is gone is noticed while waiting, too: the server would go on making batches.
            let ended = tokio::select! {
                () = batches.closed() => return,
                ended = self.pull(&batches) => ended,
            };
            if self.ticket != before {
                attempts = 0;
            }
            let last = match ended {
                Ok(()) => None,
                Err(failure) if let Some(number) = unmakeable(&failure) => {
                    self.received(number);
                    if batches.send(Some(Err(self.line.error(failure)))).await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(failure) if is_passing(&failure) && attempts < ATTEMPTS => {
                    attempts += 1;
                    tracing::warn!(url = self.line.url, ?failure, attempts, "asking again");
                    let wait = AGAIN.0.saturating_mul(1 << attempts.min(16)).min(AGAIN.1);
                    tokio::select! {
                        () = batches.closed() => return,
                        () = tokio::time::sleep(wait) => continue,
                    }
                }
                Err(failure) => Some(Err(self.line.error(failure))),
            };
            // Whoever is gone need not be told.
            if last.is_none() || batches.send(last).await.is_ok() {
                let _ = batches.send(None).await;
            }
            return;
        }
    }

    /// One stream, from what is still to come on.
    async fn pull(&mut self, batches: &Sender<Item>) -> Result<(), Failure> {
        if self.ticket.group.is_none() && self.ticket.start >= self.summary.batches {
            return Ok(());
        }
        let (mut messages, memory) = self.open().await?;
        let (summary, normalize) = (Arc::clone(&self.summary), self.normalize.clone());
        let reading =
            Reading { summary: &summary, output: self.ticket.loader.output, normalize: normalize.as_ref(), memory: memory.as_ref() };
        loop {
            // Nothing is read ahead of what fits: what lies in shared memory counts as read.
            let Ok(place) = batches.reserve().await else { return Ok(()) };
            let Some(part) = reading.next(&mut messages).await? else { break };
            match part {
                Part::Beginning(..) => self.check(&part)?,
                Part::Batch(number, _) if self.ticket.group.is_none() && number != self.ticket.start => {
                    return Err(Failure::protocol(format!("wanted batch {}, found batch {number}", self.ticket.start)));
                }
                Part::Batch(number, batch) => {
                    self.received(number);
                    place.send(Some(Ok((number, batch))));
                }
            }
        }
        match self.ticket.group.is_none() && self.ticket.start < self.summary.batches {
            true => Err(Failure::protocol(format!("wanted {} batches, found {}", self.summary.batches, self.ticket.start))),
            false => Ok(()),
        }
    }

    /// The stream from what is still to come on, and the memory that its batches lie in, if they do not come with it.
    async fn open(&self) -> Result<(Messages, Option<Arc<Mapping>>), Failure> {
        let line = &*self.line;
        if line.share.load(Ordering::Relaxed) {
            match self.exchange().await {
                Ok((messages, memory)) => return Ok((messages, Some(memory))),
                Err(Unshared::Failed(failure)) => return Err(failure),
                Err(Unshared::Refused(reason)) => {
                    tracing::info!(url = line.url, reason, "no memory to share");
                    line.share.store(false, Ordering::Relaxed);
                }
            }
        }
        Ok((line.send(DO_GET, &RawTicket { ticket: self.ticket.json().into() }).await?, None))
    }

    /// A stream of batches that lie in memory shared with the server.
    async fn exchange(&self) -> Result<(Messages, Arc<Mapping>), Unshared> {
        let descriptor = FlightDescriptor { kind: COMMAND, command: self.ticket.json().into(), path: Vec::new() };
        let ask = FlightData { descriptor: Some(descriptor), ..FlightData::default() };
        let (words, mut said) = mpsc::unbounded_channel::<Word>();
        let said = stream::poll_fn(move |context| said.poll_recv(context)).map(|word| {
            let metadata = serde_json::json!(word).to_string().into();
            grpc::whole(&FlightData { metadata, ..FlightData::default() })
        });
        let said = stream::iter([grpc::whole(&ask)]).chain(said);
        let mut messages = grpc::exchange(&self.line.channel, DO_EXCHANGE, said, self.line.token.as_ref()).await?;
        let reading =
            Reading { summary: &self.summary, output: self.ticket.loader.output, normalize: self.normalize.as_ref(), memory: None };
        let part = reading.next(&mut messages).await?.ok_or_else(|| Failure::protocol("no answer"))?;
        self.check(&part)?;
        let Part::Beginning(_, Some(offer)) = part else { return Err(Unshared::Refused("none is offered".to_owned())) };
        let memory = Mapping::open(&offer, words).map_err(|error| Unshared::Refused(error.to_string()))?;
        Ok((messages, memory))
    }

    /// Whether a flight begins as was said.
    fn check(&self, part: &Part) -> Result<(), Failure> {
        match part {
            Part::Beginning(summary, _) if *summary == *self.summary => Ok(()),
            _ => Err(Failure::protocol("the data set is not the one of before; connect anew")),
        }
    }

    fn received(&mut self, number: usize) {
        match &mut self.ticket.group {
            Some(group) => group.received = Some(number),
            None => self.ticket.start = number + 1,
        }
    }
}

/// Why there is no shared memory.
enum Unshared {
    /// It cannot be had, and need not.
    Refused(String),
    /// Nothing can be had.
    Failed(Failure),
}

impl From<Failure> for Unshared {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Status(status) if status.code() == Code::Unimplemented => Self::Refused(status.message().to_owned()),
            failure => Self::Failed(failure),
        }
    }
}

/// The number of the batch that the server could not make, if that is what failed.
fn unmakeable(failure: &Failure) -> Option<usize> {
    let Failure::Status(status) = failure else { return None };
    status.metadata().get(BATCH)?.to_str().ok()?.parse().ok()
}

/// Whether asking again may help.
fn is_passing(failure: &Failure) -> bool {
    match failure {
        Failure::Connection(_) => true,
        Failure::Status(status) => matches!(status.code(), Code::Unavailable | Code::ResourceExhausted),
    }
}

impl Line {
    async fn send(&self, path: &'static str, message: &impl prost::Message) -> Result<Messages, Failure> {
        grpc::call(&self.channel, path, message, self.token.as_ref()).await
    }

    /// All messages that `path` answers with.
    async fn call<M: prost::Message + Default>(&self, path: &'static str, message: &impl prost::Message) -> Result<Vec<M>> {
        let collect = async {
            let mut messages = self.send(path, message).await?;
            let mut found = Vec::new();
            while let Some(message) = messages.whole().await? {
                found.push(message);
            }
            Ok(found)
        };
        collect.await.map_err(|failure| self.error(failure))
    }

    fn summary(&self, info: &FlightInfo) -> Result<Summary> {
        columns::summary(&info.schema).map(|(summary, _)| summary).map_err(|reason| self.error(Failure::protocol(reason)))
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(work);
        }
    }

    /// What `work` gives, which a thread of the runtime does: waiting for it is allowed everywhere.
    fn wait<T: Send + 'static, F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (sender, receiver) = std::sync::mpsc::channel();
        let work = work(Arc::clone(self));
        self.spawn(async move {
            // The receiver waits below.
            let _ = sender.send(work.await);
        });
        receiver.recv().unwrap_or_else(|_| Err(self.error(Failure::protocol("a thread panicked"))))
    }

    fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::Connection(source) => Error::network(&self.url, "reach the server", source),
            Failure::Status(status) => Error::Refused { address: self.url.clone(), reason: status.message().to_owned() },
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}
