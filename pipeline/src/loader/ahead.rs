//! Does numbered jobs ahead of whoever wants their results, on threads, and hands the results over in order.
//!
//! Thread `t` of `n` does jobs `t`, `t + n`, `t + 2n` and so on, and has a bounded channel of its own; the reader goes round the channels.
//! So order needs no sorting, a full channel is the whole back-pressure, a closed one the whole shutdown, and there is no lock and no
//! coordinator. Jobs of one epoch cost about the same, so that little is lost by dealing them out beforehand.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{Builder, JoinHandle, Thread};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::{Error, Result};

/// Results to come, in order.
#[derive(Debug)]
pub(super) struct Ahead<T> {
    jobs: Range<usize>,
    channels: Vec<Receiver<Result<T>>>,
    turn: usize,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Ahead<T> {
    /// Starts `threads` threads on `jobs`. None begins one while it has `room` results that wait to be taken. Each calls `work` with memory
    /// of its own, the job's number, and a function that says whether the result is still wanted; `work` may return `None` when it is not.
    pub(super) fn start<S, W>(jobs: Range<usize>, threads: usize, room: usize, work: W) -> Self
    where
        S: Default,
        W: Fn(&mut S, usize, &dyn Fn() -> bool) -> Option<Result<T>> + Send + Sync + 'static,
    {
        let count = threads.min(jobs.len());
        let work = Arc::new(work);
        let mut ahead = Self { jobs: jobs.clone(), channels: Vec::new(), turn: 0, threads: Vec::new() };
        for at in 0..count {
            let (sender, receiver) = channel(room);
            let (mine, work) = (jobs.clone().skip(at).step_by(count), Arc::clone(&work));
            let thread = Builder::new().name(format!("loader {at}")).spawn(move || run(mine, &*work, &sender));
            // A thread that the system refuses closes its channel, which the reader learns at the thread's first job.
            ahead.threads.extend(thread);
            ahead.channels.push(receiver);
        }
        ahead
    }

    /// The next result, awaited.
    pub(super) async fn next(&mut self) -> Option<Result<T>> {
        let job = self.jobs.next()?;
        let result = self.channel().recv().await;
        Some(result.unwrap_or_else(|| Err(gone(job))))
    }

    /// The next result, waited for.
    pub(super) fn blocking_next(&mut self) -> Option<Result<T>> {
        let job = self.jobs.next()?;
        let result = self.channel().blocking_recv();
        Some(result.unwrap_or_else(|| Err(gone(job))))
    }

    fn channel(&mut self) -> &mut Receiver<Result<T>> {
        let at = self.turn;
        self.turn = (at + 1) % self.channels.len();
        &mut self.channels[at]
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        self.channels.clear();
        for thread in self.threads.drain(..) {
            // Panics of jobs were results; there is no other.
            let _ = thread.join();
        }
    }
}

fn run<T, S, W>(jobs: impl Iterator<Item = usize>, work: &W, results: &Sender<Result<T>>)
where
    S: Default,
    W: Fn(&mut S, usize, &dyn Fn() -> bool) -> Option<Result<T>>,
{
    let mut scratch = S::default();
    let stopped = || results.is_closed();
    for job in jobs {
        let Ok(room) = wait(results.reserve()) else { return };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut scratch, job, &stopped)));
        let result = outcome.unwrap_or_else(|panic| {
            // Whatever state the memory was left in, nobody shall see it.
            scratch = S::default();
            Some(Err(Error::Worker { batch: job, reason: said(&*panic) }))
        });
        let Some(result) = result else { return };
        room.send(result);
    }
}

/// Blocks until the future is done.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn gone(job: usize) -> Error {
    Error::Worker { batch: job, reason: "the system gave no thread for it".to_owned() }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a thread panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests;
