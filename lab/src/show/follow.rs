//! Progress of long work: training, a sweep, a download.

use std::time::{Duration, Instant};

use super::Progress;
use crate::sweep::{Event as Sweep, Standing};
use crate::train::Event;

/// Follows a run: what [`fit`](crate::fit) takes last. Shows the loss, the last test accuracy, how many images (or samples) a
/// second go through training, and the time left, which counts the tests in.
pub fn training(what: impl Into<String>) -> impl FnMut(Event<'_>) {
    let what = what.into();
    let (mut progress, mut tested) = (None, String::new());
    // The time between two steps of one epoch, and the samples of the second: the first step of a run is not timed, and no test.
    let (mut last, mut spent, mut seen) = (None, Duration::ZERO, 0);
    move |event| match event {
        Event::Step { done, of, samples, loss, model, .. } => {
            let now = Instant::now();
            if let Some(before) = last.replace(now) {
                (spent, seen) = (spent + now.duration_since(before), seen + samples);
            }
            let progress = progress.get_or_insert_with(|| Progress::auto(what.clone(), of as u64).behind(done as u64));
            let unit = if model.graph.input_shape().len() == 3 { "images" } else { "samples" };
            let speed = if seen > 0 { format!("  {:.0} {unit}/s", seen as f64 / spent.as_secs_f64().max(1e-9)) } else { String::new() };
            progress.set(done as u64, format!("loss {loss:.4}{tested}{speed}"));
        }
        Event::Epoch { row, .. } => {
            last = None;
            tested = row.test_accuracy.map(|accuracy| format!("  test accuracy {accuracy:.4}")).unwrap_or_default();
        }
    }
}

/// Follows the download of a data set by its name, file by file: what `ensure_public` of the crate `pipeline` takes last. Shows nothing of
/// files that are there already.
pub fn downloading() -> impl FnMut(&str, u64, u64) {
    let mut current: Option<(String, Progress)> = None;
    move |file, done, size| {
        if current.as_ref().is_none_or(|(name, _)| name != file) {
            if done == size {
                return;
            }
            let what = format!("{file}, {:.1} MB", size as f64 / 1e6);
            current = Some((file.to_owned(), Progress::auto(what, size).behind(done)));
        }
        if done < size {
            current.iter_mut().for_each(|(_, progress)| progress.set(done, ""));
        } else if let Some((_, mut progress)) = current.take() {
            progress.set(done, "");
            progress.finish("");
        }
    }
}

/// Follows a sweep: what [`sweep::run`](crate::sweep::run) takes last.
pub fn sweeping<D>(what: impl Into<String>) -> impl FnMut(Sweep<'_, D>, Standing) + Send {
    let what = what.into();
    let mut progress = None;
    move |event, Standing { done, failed, of, .. }| {
        let progress = progress.get_or_insert_with(|| Progress::auto(what.clone(), of as u64));
        let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let last = match event {
            Sweep::Epoch { row, .. } => format!("; epoch {}, loss {:.4}", row.epoch, row.train_loss),
            Sweep::Failed { reason, .. } => format!("; {}", reason.lines().next().unwrap_or_default()),
            Sweep::Done { .. } => String::new(),
        };
        progress.set((done + failed) as u64, format!("{done} of {of} runs{failures}{last}"));
    }
}
