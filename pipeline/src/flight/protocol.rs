//! The messages of Arrow Flight and of gRPC's health check that are spoken here, by the numbers of their fields.
//!
//! From `Flight.proto` and `health.proto`. Fields that nobody here reads are left out; protocol buffers skip what they do not know.

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};

/// The methods, as paths of HTTP.
pub(super) const LIST_FLIGHTS: &str = "/arrow.flight.protocol.FlightService/ListFlights";
pub(super) const GET_FLIGHT_INFO: &str = "/arrow.flight.protocol.FlightService/GetFlightInfo";
pub(super) const GET_SCHEMA: &str = "/arrow.flight.protocol.FlightService/GetSchema";
pub(super) const DO_GET: &str = "/arrow.flight.protocol.FlightService/DoGet";
pub(super) const DO_EXCHANGE: &str = "/arrow.flight.protocol.FlightService/DoExchange";
pub(super) const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// Which flights to list; here always all.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Criteria {}

/// What a flight is called: by a path of names, or by a command.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FlightDescriptor {
    /// [`PATH`] or [`COMMAND`].
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) command: Bytes,
    #[prost(string, repeated, tag = "3")]
    pub(super) path: Vec<String>,
}

/// A [`FlightDescriptor`] whose path counts.
pub(super) const PATH: i32 = 1;
/// A [`FlightDescriptor`] whose command counts.
pub(super) const COMMAND: i32 = 2;

/// What there is to know of a flight before it begins.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FlightInfo {
    /// An encapsulated IPC message.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) schema: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(super) descriptor: Option<FlightDescriptor>,
    #[prost(message, repeated, tag = "3")]
    pub(super) endpoints: Vec<FlightEndpoint>,
    /// Rows.
    #[prost(int64, tag = "4")]
    pub(super) records: i64,
    /// Bytes; −1 for unknown.
    #[prost(int64, tag = "5")]
    pub(super) bytes: i64,
    /// Whether the rows have an order.
    #[prost(bool, tag = "6")]
    pub(super) ordered: bool,
}

/// Where a flight begins: without a location, at the server that was asked.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FlightEndpoint {
    #[prost(message, optional, tag = "1")]
    pub(super) ticket: Option<RawTicket>,
}

/// What `DoGet` is shown.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RawTicket {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) ticket: Bytes,
}

/// A schema alone.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SchemaResult {
    /// An encapsulated IPC message.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) schema: Bytes,
}

/// The head of a part of a flight; the body follows as the field of [`BODY`].
#[derive(Clone, PartialEq, Message)]
pub(super) struct FlightData {
    /// What a client that begins an exchange asks for.
    #[prost(message, optional, tag = "1")]
    pub(super) descriptor: Option<FlightDescriptor>,
    /// The metadata of an IPC message.
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) header: Bytes,
    /// A [`Place`](super::columns::Place) or a [`Word`], as JSON.
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) metadata: Bytes,
}

/// What the client of an exchange says: `"opened"`, `{"returned": 16384}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// It has the server's memory open; not before are batches sent.
    Opened,
    /// It has read the batch that lay there.
    Returned(usize),
}

/// The key of the field 1000 of `FlightData`, the body: wire type 2, length and bytes.
pub(super) const BODY: u64 = 1000 << 3 | 2;

/// Whether a server serves.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Health {
    /// 1 serving, 2 not serving.
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}
