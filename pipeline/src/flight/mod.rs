//! Carries finished batches to other processes over [Arrow Flight](https://arrow.apache.org/docs/format/Flight.html), adding nothing.
//!
//! [`Server`] is the daemon: it owns the stores, and makes batches on its threads for whoever shows a [`Ticket`]. [`Client`] is the other
//! end: it implements [`Batches`](datasets::Batches), so that training reads from it as from a [`Loader`](crate::Loader), bit for bit.
//! Other languages need no code of ours, only their Flight library; `pipeline/examples/client.py` is all that Python needs.
//!
//! A client's demand drives the work: a batch is made when there is room to send it, and a stream that nobody reads costs the batches it has
//! been granted, a number that falls to one as streams become many. Threads take jobs in the order of asking, so that streams get equal turns.
//!
//! # On one machine
//! Even so the system copies what goes through a socket, twice. Where both ends are on one machine, batches need not go anywhere: the client
//! begins a `DoExchange` instead of a `DoGet`, the server makes its batches in memory that both have (`memory`), sends where each lies, and
//! is told when it has been read. Where that memory cannot be had, as between containers or users, batches come as ever.
//!
//! # Why the protocol is spelled out here
//! `tonic` brings HTTP/2, TLS and gRPC's status. The messages of Flight are four short structs (`protocol`), and what they carry is one fixed
//! arrangement of three columns (`columns`), which Arrow describes in two messages (`arrow`). Spelled out, a batch goes from the loader's buffer to the socket without a copy and from the socket
//! into the batch with one. The crate `arrow-flight` copies each batch twice more on either side and brings 19 crates instead of 4, one of which has
//! cargo rebuild polars and candle for a feature of `serde_core`.

mod arrow;
mod auth;
mod client;
mod columns;
mod feed;
mod group;
mod grpc;
mod memory;
mod metrics;
mod protocol;
mod server;
mod service;
mod sharing;
mod ticket;

pub use client::{Client, Remote};
pub use server::{Listen, Options, Server, Tls};
pub use ticket::{Group, Summary, Ticket};

/// Reads the metadata of a flight's message, as a schema and as that of a record batch.
///
/// # Panics
/// When what was read and written again reads otherwise.
#[cfg(fuzzing)]
pub(crate) fn fuzz(message: &[u8]) {
    if let Ok(schema) = arrow::Schema::read(message) {
        let written = schema.write();
        assert_eq!(arrow::Schema::read(&written), Ok(schema));
    }
    if let Ok(batch) = arrow::RecordBatch::read(message) {
        assert_eq!(arrow::RecordBatch::read(&batch.write()), Ok(batch));
    }
    columns::fuzz(message);
}
