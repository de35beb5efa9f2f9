//! What each request is answered with.
//!
//! Requests are checked in this order: the token, the length, the ticket, the store. A ticket names a data set among those the server was
//! started with; no part of a request becomes a part of a path.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::{self, Future};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use datasets::Batches;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;

use crate::loader::Config;
use crate::{Error, Loader, Store};

use super::arrow;
use super::auth::Token;
use super::columns::{self, Pictures};
use super::feed::{Counted, Feed, Makers, Numbers};
use super::group::Groups;
use super::grpc::{self, Messages};
use super::metrics::Metrics;
use super::protocol::{self, Criteria, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Health, RawTicket, SchemaResult};
use super::sharing::Sharing;
use super::ticket::{Summary, Ticket};

/// A server's answers; a clone is the same one.
#[derive(Debug, Clone)]
pub(super) struct Service {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    stores: BTreeMap<String, Store>,
    token: Option<Token>,
    makers: Arc<Makers>,
    most_streams: usize,
    groups: Arc<Groups>,
    metrics: Metrics,
    closing: watch::Receiver<bool>,
}

impl Service {
    pub(super) fn new(
        stores: BTreeMap<String, Store>,
        token: Option<Token>,
        threads: usize,
        most_streams: usize,
        closing: watch::Receiver<bool>,
    ) -> Self {
        let (makers, metrics) = (Arc::new(Makers::new(threads)), Metrics::new(stores.keys()));
        Self { inner: Arc::new(Inner { stores, token, makers, most_streams, groups: Arc::default(), metrics, closing }) }
    }

    /// The metrics' text.
    pub(super) fn metrics(&self) -> String {
        self.inner.metrics.text(self.inner.makers.streams())
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let answer = match (&self.inner.token, path) {
            (_, protocol::HEALTH) | (None, _) => self.dispatch(path, body).await,
            (Some(token), _) => match token.check(&head.headers) {
                Ok(()) => self.dispatch(path, body).await,
                Err(status) => Err(status),
            },
        };
        self.inner.metrics.request(path, answer.is_err());
        answer.unwrap_or_else(|status| {
            tracing::info!(path, code = ?status.code(), reason = status.message(), "refused");
            status.into_http()
        })
    }

    async fn dispatch(&self, path: &str, body: Body) -> Result<Response<Body>, Status> {
        match path {
            protocol::LIST_FLIGHTS => {
                let _: Criteria = grpc::request(body).await?;
                self.list().await
            }
            protocol::GET_FLIGHT_INFO => Ok(one(&self.info(self.ticket_of(&grpc::request(body).await?)?).await?)),
            protocol::GET_SCHEMA => {
                let info = self.info(self.ticket_of(&grpc::request(body).await?)?).await?;
                Ok(one(&SchemaResult { schema: info.schema }))
            }
            protocol::DO_GET => {
                let RawTicket { ticket } = grpc::request(body).await?;
                self.fly(Ticket::parse(&ticket).map_err(refusal)?, None).await
            }
            protocol::DO_EXCHANGE => {
                let (FlightData { descriptor, .. }, messages) = grpc::first(body).await?;
                let descriptor = descriptor.ok_or_else(|| Status::invalid_argument("wanted what the exchange is for"))?;
                self.fly(self.ticket_of(&descriptor)?, Some(messages)).await
            }
            protocol::HEALTH => Ok(one(&Health { status: if *self.inner.closing.borrow() { 2 } else { 1 } })),
            _ => Err(Status::unimplemented(format!("wanted ListFlights, GetFlightInfo, GetSchema, DoGet or DoExchange, found {path}"))),
        }
    }

    /// Each split of each data set, as it comes without transforms.
    async fn list(&self) -> Result<Response<Body>, Status> {
        let mut flights = Vec::new();
        for (dataset, store) in &self.inner.stores {
            for split in store.meta().splits.iter().filter(|split| split.len > 0) {
                let ticket = plain(dataset, &split.name);
                flights.push(Ok(grpc::whole(&self.info(ticket).await?)));
            }
        }
        Ok(grpc::reply(stream::iter(flights)))
    }

    /// The ticket that a descriptor stands for: its command, or the default for the data set and split of its path.
    fn ticket_of(&self, descriptor: &FlightDescriptor) -> Result<Ticket, Status> {
        match (descriptor.kind, &descriptor.path[..]) {
            (protocol::COMMAND, _) => Ticket::parse(&descriptor.command).map_err(refusal),
            (protocol::PATH, [dataset]) => Ok(plain(dataset, &Config::default().split)),
            (protocol::PATH, [dataset, split]) => Ok(plain(dataset, split)),
            _ => Err(Status::invalid_argument("wanted a ticket as command, or a path of data set and split")),
        }
    }

    async fn info(&self, ticket: Ticket) -> Result<FlightInfo, Status> {
        let (_, summary) = self.open(&ticket).await?;
        let schema = columns::schema(&summary, &Pictures::Here(ticket.loader.output));
        let path = vec![summary.dataset.clone(), summary.split.clone()];
        Ok(FlightInfo {
            schema: arrow::encapsulated(&schema),
            descriptor: Some(FlightDescriptor { kind: protocol::PATH, command: Bytes::new(), path }),
            endpoints: vec![FlightEndpoint { ticket: Some(RawTicket { ticket: ticket.json().into() }) }],
            records: summary.samples as i64,
            bytes: -1,
            ordered: true,
        })
    }

    /// The stream of batches that a ticket is for; in shared memory, if the client exchanges `messages` for them.
    async fn fly(&self, ticket: Ticket, messages: Option<Messages>) -> Result<Response<Body>, Status> {
        let inner = &self.inner;
        let full = || Status::resource_exhausted(format!("{} streams are open, which is the most", inner.most_streams));
        let stream = Counted::new(&inner.makers, inner.most_streams).ok_or_else(full)?;
        let (loader, summary) = self.open(&ticket).await?;
        let bytes = ticket.size(&summary.shape).map_err(refusal)?;
        let numbers = match &ticket.group {
            None => Numbers::Own(ticket.start.min(summary.batches)..summary.batches),
            Some(group) => Numbers::Shared(Groups::join(&inner.groups, &ticket, group, summary.batches)?),
        };
        let (epoch, ahead) = (ticket.epoch, inner.makers.ahead());
        let sharing = messages.map(|messages| Sharing::new(ahead, bytes, messages)).transpose();
        let sharing = sharing.map_err(|error| Status::unimplemented(format!("no memory to share: {error}")))?;
        let own = loader.clone();
        let task = inner.makers.run(move || own.task(epoch, ahead)).await.ok_or_else(|| Status::internal("a thread panicked"))?;
        let served = inner.metrics.served(&ticket.dataset);
        served.stream();
        let about = format!("{} {}, epoch {epoch}", ticket.dataset, summary.split);
        tracing::info!(about, start = ticket.start, batches = summary.batches, "a stream begins");
        let store = inner.stores.get(&ticket.dataset).cloned();
        let describe = move |error: &Error| store.as_ref().map_or_else(String::new, |store| said(error, store, &ticket.dataset));
        let pictures = sharing.as_ref().map_or(Pictures::Here(loader.config().output), |sharing| Pictures::There(sharing.offer()));
        let beginning = columns::beginning(columns::schema(&summary, &pictures));
        let feed = Feed {
            makers: Arc::clone(&inner.makers),
            loader,
            task: Arc::new(task),
            numbers,
            waiting: VecDeque::new(),
            sharing,
            closing: inner.closing.clone(),
            describe: Box::new(describe),
            served,
            about,
            sent: 0,
            counted: Some(stream),
        };
        let parts = stream::unfold(feed, |mut feed| async move { feed.next().await.map(|part| (part, feed)) });
        Ok(grpc::reply(Box::pin(stream::once(future::ready(Ok(beginning))).chain(parts))))
    }

    /// The loader of a ticket, and what there is to know about it.
    async fn open(&self, ticket: &Ticket) -> Result<(Loader, Summary), Status> {
        let inner = &self.inner;
        let Some(store) = inner.stores.get(&ticket.dataset).cloned() else {
            let found = inner.stores.keys().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            return Err(Status::not_found(format!("no data set {:?}; there is {found}", ticket.dataset)));
        };
        // A loader's own threads are not used.
        let config = Config { threads: inner.makers.ahead(), ..ticket.loader.clone() };
        let own = store.clone();
        let loader = inner.makers.run(move || Loader::new(own, config)).await.ok_or_else(|| Status::internal("a thread panicked"))?;
        let loader = loader.map_err(|error| Status::invalid_argument(said(&error, &store, &ticket.dataset)))?;
        let summary = Summary {
            dataset: ticket.dataset.clone(),
            split: ticket.loader.split.clone(),
            samples: loader.samples(),
            batches: loader.batches(),
            shape: loader.sample_shape(),
            classes: store.meta().classes.clone(),
            normalize: loader.normalize(),
            content: store.meta().content.clone(),
        };
        Ok((loader, summary))
    }
}

impl tower_service::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async move { Ok(answer.await) })
    }
}

fn one(message: &impl prost::Message) -> Response<Body> {
    grpc::reply(stream::iter([Ok(grpc::whole(message))]))
}

fn plain(dataset: &str, split: &str) -> Ticket {
    let loader = Config { split: split.to_owned(), ..Config::default() };
    Ticket { dataset: dataset.to_owned(), loader, epoch: 0, start: 0, group: None }
}

fn refusal(error: Error) -> Status {
    Status::invalid_argument(error.to_string())
}

/// An error with its causes, for a client: it knows the store by its name, not by its path.
fn said(error: &Error, store: &Store, dataset: &str) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    text.replace(&store.path().display().to_string(), dataset)
}
