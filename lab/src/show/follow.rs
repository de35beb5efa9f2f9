//! Progress of the lab's own long work.

use std::time::Instant;

use super::Progress;
use crate::sweep::Done;
use crate::train::Event;

/// Follows a run: what [`fit`](crate::fit) takes last. Shows the loss, the last test accuracy, and samples per second.
pub fn training(what: impl Into<String>) -> impl FnMut(Event<'_>) {
    let (what, started) = (what.into(), Instant::now());
    let (mut progress, mut seen, mut tested) = (None, 0, String::new());
    move |event| match event {
        Event::Step { done, of, samples, loss } => {
            seen += samples;
            let progress = progress.get_or_insert_with(|| Progress::auto(what.clone(), of as u64));
            let speed = seen as f64 / started.elapsed().as_secs_f64().max(1e-9);
            progress.set(done as u64, format!("loss {loss:.4}{tested}  {speed:.0} samples/s"));
        }
        Event::Epoch(epoch) => {
            tested = epoch.test_accuracy.map(|accuracy| format!("  test accuracy {accuracy:.4}")).unwrap_or_default();
        }
    }
}

/// Follows a sweep: what [`sweep::run`](crate::sweep::run) takes last.
pub fn sweeping(what: impl Into<String>) -> impl FnMut(Done) + Send {
    let what = what.into();
    let mut progress = None;
    move |Done { done, of }| {
        let progress = progress.get_or_insert_with(|| Progress::auto(what.clone(), of as u64));
        progress.set(done as u64, format!("{done} of {of} runs"));
    }
}
