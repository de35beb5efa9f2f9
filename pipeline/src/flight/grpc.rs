//! gRPC's frames, sent without being joined and read without being collected.
//!
//! A message on HTTP/2 is a byte that says it is not compressed, its length in four bytes, and itself. A batch of pictures is several MB: sent,
//! it stays in the pieces it was made of; received, it is copied once, from the network's chunks to its place.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::{Method, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use prost::Message;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower_service::Service;

/// Bytes of the longest request.
const LONGEST_REQUEST: usize = 64 << 10;
/// A request that is not whole by then is given up.
const SLOWEST_REQUEST: Duration = Duration::from_secs(20);
const CONTENT: HeaderValue = HeaderValue::from_static("application/grpc");

/// A message in pieces, its prefix the first.
pub(super) type Pieces = Vec<Bytes>;

/// A message in one piece behind its prefix.
pub(super) fn whole(message: &impl Message) -> Pieces {
    framed(vec![Bytes::from(message.encode_to_vec())])
}

/// The prefix, and the pieces of one message.
pub(super) fn framed(pieces: Vec<Bytes>) -> Pieces {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let mut prefix = BytesMut::with_capacity(5);
    prefix.put_u8(0);
    // A ticket is refused when its batches would be longer than a tenth of what this number can say.
    prefix.put_u32(length as u32);
    std::iter::once(prefix.freeze()).chain(pieces).collect()
}

/// The one message of a request.
///
/// # Errors
/// When it is too long, too slow, or no message.
pub(super) async fn request<M: Message + Default>(body: Body) -> Result<M, Status> {
    let collected = tokio::time::timeout(SLOWEST_REQUEST, Limited::new(body, LONGEST_REQUEST).collect()).await;
    let bytes = collected.map_err(|_| slow())?;
    let bytes = bytes.map_err(|_| Status::resource_exhausted(format!("wanted a request of at most {LONGEST_REQUEST} bytes")))?.to_bytes();
    match &bytes[..] {
        [0, a, b, c, d, message @ ..] if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() => {
            M::decode(message).map_err(|error| Status::invalid_argument(format!("not a request: {error}")))
        }
        _ => Err(Status::invalid_argument("wanted one message that is not compressed")),
    }
}

/// The first of the messages of a request, and those to come.
///
/// # Errors
/// When there is none, or it is too long, too slow, or no message.
pub(super) async fn first<M: Message + Default>(body: Body) -> Result<(M, Messages), Status> {
    let mut messages = Messages { closing: Closing::Request, ..Messages::of(body) };
    let first = tokio::time::timeout(SLOWEST_REQUEST, messages.whole()).await.map_err(|_| slow())?;
    match first {
        Ok(Some(first)) => Ok((first, messages)),
        Ok(None) => Err(Status::invalid_argument("wanted a message")),
        Err(Failure::Status(status)) => Err(status),
        Err(Failure::Connection(error)) => Err(Status::cancelled(error.to_string())),
    }
}

fn slow() -> Status {
    Status::deadline_exceeded("the request did not end")
}

/// An answer of messages, and the status after them.
pub(super) fn reply<S>(messages: S) -> Response<Body>
where
    S: Stream<Item = Result<Pieces, Status>> + Send + Unpin + 'static,
{
    let mut response = Response::new(Body::new(Reply { messages, pieces: Vec::new().into_iter(), ended: false }));
    response.headers_mut().insert(CONTENT_TYPE, CONTENT);
    response
}

/// Asked for the next piece only when there is room for it on the connection.
struct Reply<S> {
    messages: S,
    pieces: vec::IntoIter<Bytes>,
    ended: bool,
}

impl<S: Stream<Item = Result<Pieces, Status>> + Unpin> http_body::Body for Reply<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(piece) = self.pieces.next() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let status = match ready!(Pin::new(&mut self.messages).poll_next(context)) {
                Some(Ok(pieces)) => {
                    self.pieces = pieces.into_iter();
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            self.ended = true;
            let mut trailers = HeaderMap::new();
            status.add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
    }
}

/// Why a call ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection is gone, or was never there: asking again may help.
    Connection(Box<dyn std::error::Error + Send + Sync>),
    /// The server said so.
    Status(Status),
}

impl Failure {
    fn connection(reason: &'static str) -> Self {
        Self::Connection(reason.into())
    }

    /// The other side speaks, but not as agreed.
    pub(super) fn protocol(reason: impl Into<String>) -> Self {
        Self::Status(Status::data_loss(reason))
    }
}

/// Calls `path` with one message, and gives the messages that come back.
pub(super) async fn call(
    channel: &Channel,
    path: &'static str,
    message: &impl Message,
    token: Option<&HeaderValue>,
) -> Result<Messages, Failure> {
    exchange(channel, path, stream::iter([whole(message)]), token).await
}

/// Calls `path` with messages as they come, and gives those that come back.
pub(super) async fn exchange(
    channel: &Channel,
    path: &'static str,
    messages: impl Stream<Item = Pieces> + Send + 'static,
    token: Option<&HeaderValue>,
) -> Result<Messages, Failure> {
    let frames = messages.flat_map(stream::iter).map(|piece| Ok::<_, Status>(Frame::data(piece)));
    let mut request = Request::new(Body::new(StreamBody::new(frames)));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(path);
    request.headers_mut().insert(CONTENT_TYPE, CONTENT);
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    if let Some(token) = token {
        request.headers_mut().insert(AUTHORIZATION, token.clone());
    }

    let mut channel = channel.clone();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(|error| Failure::Connection(error.into()))?;
    let response = channel.call(request).await.map_err(|error| Failure::Connection(error.into()))?;
    if let Some(status) = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok) {
        return Err(Failure::Status(status));
    }
    if response.headers().get(CONTENT_TYPE).is_none_or(|content| !content.as_bytes().starts_with(CONTENT.as_bytes())) {
        return Err(Failure::protocol(format!("wanted an answer in gRPC, found HTTP status {}", response.status())));
    }
    Ok(Messages::of(response.into_body()))
}

/// The messages of an answer, or of a request, read as they come.
#[derive(Debug)]
pub(super) struct Messages {
    body: Body,
    closing: Closing,
    chunks: VecDeque<Bytes>,
    /// Bytes in `chunks`.
    held: usize,
    /// Bytes of the present message that were not read yet.
    rest: usize,
}

/// How messages end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// With a status.
    Answer,
    /// Just so.
    Request,
}

impl Messages {
    fn of(body: Body) -> Self {
        Self { body, closing: Closing::Answer, chunks: VecDeque::new(), held: 0, rest: 0 }
    }

    /// The next message; `None` after the last. Those of a client are short.
    pub(super) async fn whole<M: Message + Default>(&mut self) -> Result<Option<M>, Failure> {
        let Some(length) = self.next().await? else { return Ok(None) };
        if self.closing == Closing::Request && length > LONGEST_REQUEST {
            return Err(Failure::protocol(format!("wanted a message of at most {LONGEST_REQUEST} bytes, found {length}")));
        }
        let message = self.take(length).await?;
        M::decode(message).map(Some).map_err(|error| Failure::protocol(error.to_string()))
    }

    /// Goes to the next message and gives its length, or `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<usize>, Failure> {
        while self.rest > 0 {
            let skipped = self.chunk(self.rest).await?;
            drop(skipped);
        }
        if self.held == 0 && !self.more().await? {
            return Ok(None);
        }
        self.rest = 5;
        let prefix = self.take(5).await?;
        if prefix[0] != 0 {
            return Err(Failure::protocol("wanted a message that is not compressed"));
        }
        self.rest = (&prefix[1..]).get_u32() as usize;
        Ok(Some(self.rest))
    }

    /// Bytes of the present message that were not read yet.
    pub(super) fn rest(&self) -> usize {
        self.rest
    }

    /// The next `count` bytes of the present message.
    pub(super) async fn take(&mut self, count: usize) -> Result<Bytes, Failure> {
        let first = if count == 0 { Bytes::new() } else { self.chunk(count).await? };
        if first.len() == count {
            return Ok(first);
        }
        let mut joined = BytesMut::with_capacity(count.min(LONGEST_REQUEST));
        joined.put(first);
        while joined.len() < count {
            let more = self.chunk(count - joined.len()).await?;
            joined.put(more);
        }
        Ok(joined.freeze())
    }

    /// A number in seven bits a byte, as protocol buffers write it.
    pub(super) async fn varint(&mut self) -> Result<u64, Failure> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1).await?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Failure::protocol("wanted a number of at most ten bytes"))
    }

    /// Some of the next `most` bytes of the present message, at least one.
    pub(super) async fn chunk(&mut self, most: usize) -> Result<Bytes, Failure> {
        if most > self.rest {
            return Err(Failure::protocol("a message ended before its fields"));
        }
        while self.held == 0 {
            if !self.more().await? {
                return Err(Failure::connection("the answer ended within a message"));
            }
        }
        let mut chunk = self.chunks.pop_front().unwrap_or_default();
        if chunk.len() > most {
            self.chunks.push_front(chunk.split_off(most));
        }
        self.held -= chunk.len();
        self.rest -= chunk.len();
        Ok(chunk)
    }

    /// Waits for bytes; `false` once the server has said that all went well.
    async fn more(&mut self) -> Result<bool, Failure> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| Failure::Connection(error.into()))?;
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.held += data.len();
                    self.chunks.push_back(data);
                    return Ok(true);
                }
                Err(frame) => {
                    let status = frame.trailers_ref().and_then(Status::from_header_map);
                    return match status {
                        Some(status) if status.code() == Code::Ok => Ok(false),
                        Some(status) => Err(Failure::Status(status)),
                        None => Err(Failure::connection("the answer ended without a status")),
                    };
                }
            }
        }
        match self.closing {
            Closing::Request => Ok(false),
            Closing::Answer => Err(Failure::connection("the answer ended without a status")),
        }
    }
}
