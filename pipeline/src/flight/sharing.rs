//! The server's side of an exchange: batches that its client reads where they were made, until it says that it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use datasets::Batch;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::AbortHandle;
use tonic::Status;

use crate::loader::Loan;

use super::columns;
use super::grpc::{Failure, Messages, Pieces};
use super::memory::{MOST_LENT, Memory, Offer};
use super::protocol::{FlightData, Word};

/// The memory of one stream, and what its client has of it.
pub(super) struct Sharing {
    memory: Arc<Memory>,
    /// Batches that the client may be reading, by where they lie.
    lent: BTreeMap<usize, Batch>,
    opened: bool,
    /// Whether the client was told that no batch comes any more.
    ended: bool,
    /// What the client says.
    words: UnboundedReceiver<Result<Word, Status>>,
    listening: AbortHandle,
}

impl Sharing {
    /// Memory for `ahead` batches of `bytes` in the making, and for those that a client may have. `messages` is what the client goes on to say.
    ///
    /// # Errors
    /// When the system has no such memory.
    pub(super) fn new(ahead: usize, bytes: usize, messages: Messages) -> std::io::Result<Self> {
        let memory = Memory::new(ahead + MOST_LENT, bytes)?;
        let (sender, words) = mpsc::unbounded_channel();
        let listening = tokio::spawn(listen(messages, sender)).abort_handle();
        Ok(Self { memory, lent: BTreeMap::new(), opened: false, ended: false, words, listening })
    }

    /// Where a client finds the memory.
    pub(super) fn offer(&self) -> &Offer {
        self.memory.offer()
    }

    /// A place for a batch, if there is one.
    pub(super) fn slot(&self) -> Option<Box<dyn Loan>> {
        Some(Box::new(self.memory.slot()?))
    }

    /// Waits until the client may have another batch.
    ///
    /// # Errors
    /// When it says what is no sense.
    pub(super) async fn room(&mut self) -> Result<(), Status> {
        loop {
            let word = match self.words.try_recv() {
                Ok(word) => word,
                Err(_) if self.opened && self.lent.len() < MOST_LENT => return Ok(()),
                // After the last word of a client that still reads, there is nothing to wait for but its end.
                Err(_) => match self.words.recv().await {
                    Some(word) => word,
                    None => std::future::pending().await,
                },
            };
            match word? {
                Word::Opened => self.opened = true,
                Word::Returned(at) if self.lent.remove(&at).is_some() => {}
                Word::Returned(at) => return Err(Status::invalid_argument(format!("wanted a batch back that was sent, found byte {at}"))),
            }
        }
    }

    /// What comes after the last batch: a word for the client, and, once it has nothing more to say, the end.
    pub(super) async fn end(&mut self) -> Option<Pieces> {
        if !self.ended {
            self.ended = true;
            return Some(columns::end());
        }
        while self.words.recv().await.is_some() {}
        None
    }

    /// The part of the flight that is this batch, which was made in a slot.
    pub(super) fn lend(&mut self, number: usize, batch: Batch) -> Pieces {
        let at = self.memory.place(columns::bytes(&batch.values));
        let pieces = columns::part_in_memory(number, at, &batch);
        self.lent.insert(at, batch);
        pieces
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Hears what the client says, to the end of the request.
async fn listen(mut messages: Messages, words: mpsc::UnboundedSender<Result<Word, Status>>) {
    loop {
        let heard = match messages.whole::<FlightData>().await {
            Ok(None) | Err(Failure::Connection(_)) => return,
            Ok(Some(data)) if data.metadata.is_empty() => continue,
            Ok(Some(data)) => serde_json::from_slice(&data.metadata)
                .map_err(|error| Status::invalid_argument(format!("wanted \"opened\" or {{\"returned\": BYTE}}: {error}"))),
            Err(Failure::Status(status)) => Err(status),
        };
        let ended = heard.is_err();
        if words.send(heard).is_err() || ended {
            return;
        }
    }
}
