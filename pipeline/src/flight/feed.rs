//! The batches of one stream, made as its client takes them.
//!
//! A stream asks for its next few batches and waits for the first of them. The server's makers are a semaphore that grants in the order of
//! asking, so that streams get equal turns; what was asked for by a stream that is gone is given up, after the picture in hand.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datasets::Batch;
use tokio::sync::{Semaphore, oneshot, watch};
use tonic::Status;

use crate::loader::{Desk, Task};
use crate::{Loader, Result};

use super::columns;
use super::group::Seat;
use super::grpc::Pieces;
use super::metrics::Served;
use super::sharing::Sharing;

/// Those who make batches, for all streams.
pub(super) struct Makers {
    threads: usize,
    turns: Arc<Semaphore>,
    desks: Mutex<Vec<Desk>>,
    streams: AtomicUsize,
}

impl Makers {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads, turns: Arc::new(Semaphore::new(threads)), desks: Mutex::default(), streams: AtomicUsize::new(0) }
    }

    /// Runs `work` on a thread of its own when it is its turn; `None` if it panicked.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        let run = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(run).await.ok()
    }

    /// Batches that a stream may have waiting or in the making: enough to keep all threads busy while the first is sent, shared out among
    /// the streams.
    pub(super) fn ahead(&self) -> usize {
        (2 * self.threads / self.streams().max(1)).max(1)
    }

    /// Streams that are open now.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    fn desk(&self) -> Desk {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn clear(&self, desk: Desk) {
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        if desks.len() < self.threads {
            desks.push(desk);
        }
    }
}

/// Which batches a stream sends.
pub(super) enum Numbers {
    /// All of these.
    Own(Range<usize>),
    /// Those that a group leaves to it.
    Shared(Seat),
}

/// A stream of batches.
pub(super) struct Feed {
    pub(super) makers: Arc<Makers>,
    pub(super) loader: Loader,
    pub(super) task: Arc<Task>,
    pub(super) numbers: Numbers,
    pub(super) waiting: VecDeque<(usize, Waiting)>,
    /// Where batches are made, if the client reads them there.
    pub(super) sharing: Option<Sharing>,
    /// Becomes true when the server goes down.
    pub(super) closing: watch::Receiver<bool>,
    /// An error of the loader, in words for the client.
    pub(super) describe: Box<dyn Fn(&crate::Error) -> String + Send>,
    pub(super) served: Arc<Served>,
    /// What is streamed, for the log.
    pub(super) about: String,
    /// Batches so far.
    pub(super) sent: usize,
    /// Makes it count, until there is nothing more to make.
    pub(super) counted: Option<Counted>,
}

/// The making of a batch; dropped, it is given up.
type Waiting = oneshot::Receiver<Result<Option<Batch>>>;

impl Feed {
    /// The next batch as a part of the flight, or `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Result<Pieces, Status>> {
        loop {
            self.order();
            let Some((_, waiting)) = self.waiting.front_mut() else {
                self.counted = None;
                return match (&self.numbers, &mut self.sharing) {
                    (Numbers::Shared(seat), _) if !seat.is_remembered() => {
                        Some(Err(Status::aborted("this epoch of the group is forgotten")))
                    }
                    (_, None) => None,
                    (_, Some(sharing)) => tokio::select! {
                        biased;
                        _ = self.closing.wait_for(|closing| *closing) => None,
                        end = sharing.end() => end.map(Ok),
                    },
                };
            };
            let sharing = self.sharing.as_mut();
            let made = async {
                if let Some(sharing) = sharing {
                    sharing.room().await?;
                }
                Ok(waiting.await)
            };
            let made = tokio::select! {
                biased;
                _ = self.closing.wait_for(|closing| *closing) => return Some(Err(Status::unavailable("the server goes down"))),
                made = made => match made {
                    Ok(made) => made,
                    Err(status) => return Some(Err(status)),
                },
            };
            let (number, _) = self.waiting.pop_front()?;
            self.order();
            if let Numbers::Shared(seat) = &self.numbers
                && !seat.claim(number)
            {
                continue;
            }
            return Some(match made {
                Ok(Ok(Some(batch))) => {
                    self.served.batch(&batch);
                    self.sent += 1;
                    match &mut self.sharing {
                        None => Ok(columns::part(number, batch, &self.loader)),
                        Some(sharing) => Ok(sharing.lend(number, batch)),
                    }
                }
                Ok(Err(error)) => Err(broken(number, (self.describe)(&error))),
                Ok(Ok(None)) | Err(_) => Err(broken(number, "its thread panicked".to_owned())),
            });
        }
    }

    /// Asks for as many batches as the stream may have.
    fn order(&mut self) {
        while self.waiting.len() < self.makers.ahead() {
            let loan = match &self.sharing {
                None => None,
                Some(sharing) => match sharing.slot() {
                    None => return,
                    some => some,
                },
            };
            let number = match &mut self.numbers {
                Numbers::Own(range) => range.next(),
                Numbers::Shared(seat) => seat.take(&|number| self.waiting.iter().any(|&(mine, _)| mine == number)),
            };
            let Some(number) = number else { return };
            let (sender, receiver) = oneshot::channel();
            let (makers, task) = (Arc::clone(&self.makers), Arc::clone(&self.task));
            tokio::spawn(async move {
                let own = Arc::clone(&makers);
                makers
                    .run(move || {
                        let mut desk = own.desk();
                        let made = task.assemble(&mut desk, number, loan, &|| sender.is_closed());
                        own.clear(desk);
                        // Whoever asked may be gone.
                        let _ = sender.send(made);
                    })
                    .await;
            });
            self.waiting.push_back((number, receiver));
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        tracing::info!(about = self.about, sent = self.sent, "a stream ends");
    }
}

/// The name, among the metadata of a status, of the number of the batch that it is about.
pub(super) const BATCH: &str = "topolab-batch";

/// A batch that cannot be made ends the stream; its client may ask for those after it.
fn broken(number: usize, reason: String) -> Status {
    let mut status = Status::data_loss(format!("batch {number}: {reason}"));
    status.metadata_mut().insert(BATCH, number.into());
    status
}

/// Counts as a stream as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<Makers>);

impl Counted {
    /// `None` when there are `most` streams already.
    pub(super) fn new(makers: &Arc<Makers>, most: usize) -> Option<Self> {
        let more = |streams: usize| (streams < most).then_some(streams + 1);
        makers.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(makers)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Makers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Makers({} threads, {} streams)", self.threads, self.streams())
    }
}
