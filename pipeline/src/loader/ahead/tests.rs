//! Order, bounds, panics and the end, of jobs that take their time.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// Numbers on `threads` threads, each after a while of its own.
fn squares(jobs: Range<usize>, threads: usize) -> Ahead<usize> {
    Ahead::start(jobs, threads, 2, |_: &mut (), job, _| {
        std::thread::sleep(Duration::from_micros(job as u64 * 7919 % 500));
        Some(Ok(job * job))
    })
}

fn collect(mut ahead: Ahead<usize>) -> Vec<usize> {
    std::iter::from_fn(|| ahead.blocking_next()).map(Result::unwrap).collect()
}

#[test]
fn results_come_in_order_on_any_number_of_threads() {
    let want: Vec<usize> = (3..60).map(|job| job * job).collect();
    for threads in [1, 2, 3, 7, 64, 100] {
        assert_eq!(collect(squares(3..60, threads)), want, "{threads} threads");
    }
    assert!(collect(squares(5..5, 4)).is_empty());
}

#[test]
fn awaiting_gives_what_waiting_gives() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut ahead = squares(0..20, 3);
    let got = runtime.block_on(async {
        let mut got = Vec::new();
        while let Some(result) = ahead.next().await {
            got.push(result.unwrap());
        }
        got
    });
    assert_eq!(got, collect(squares(0..20, 1)));
}

#[test]
fn a_panic_is_an_error_at_its_place_and_the_rest_still_comes() {
    let mut ahead = Ahead::start(0..6, 2, 2, |_: &mut (), job, _| {
        assert!(job != 3, "three is no number");
        Some(Ok(job))
    });
    let text = |result: Result<usize>| result.map_or_else(|error| error.to_string(), |job| job.to_string());
    let got: Vec<String> = std::iter::from_fn(|| ahead.blocking_next()).map(text).collect();
    assert_eq!(got, ["0", "1", "2", "batch 3 was not made: a thread panicked: three is no number", "4", "5"]);
}

#[test]
fn no_thread_runs_further_ahead_than_it_has_room() {
    for room in [1, 2] {
        let [begun, allowed, beyond] = [0, 2 * room, 0].map(|count| Arc::new(AtomicUsize::new(count)));
        let mut ahead = Ahead::start(0..1000, 2, room, {
            let (begun, allowed, beyond) = (Arc::clone(&begun), Arc::clone(&allowed), Arc::clone(&beyond));
            move |_: &mut (), job, _| {
                let begun = begun.fetch_add(1, Ordering::SeqCst) + 1;
                beyond.fetch_max(begun.saturating_sub(allowed.load(Ordering::SeqCst)), Ordering::SeqCst);
                Some(Ok(job))
            }
        });
        for taken in 1..20 {
            allowed.store(taken + 2 * room, Ordering::SeqCst);
            ahead.blocking_next().unwrap().unwrap();
            // As far as they may, and each job looked whether that was too far.
            until(|| begun.load(Ordering::SeqCst) >= taken + 2 * room);
        }
        drop(ahead);
        assert_eq!(beyond.load(Ordering::SeqCst), 0, "jobs too far ahead, with room for {room}");
    }
}

/// Waits for what other threads do.
#[track_caller]
fn until(done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(20), "the threads do not do it");
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn dropping_ends_the_threads_in_the_middle_of_a_job() {
    let witness = Arc::new(());
    let begun = Arc::new(AtomicUsize::new(0));
    let (held, counter) = (Arc::clone(&witness), Arc::clone(&begun));
    let mut ahead = Ahead::start(0..usize::MAX, 3, 2, move |_: &mut (), job, stopped| {
        let _held = &held;
        counter.fetch_add(1, Ordering::SeqCst);
        // The first job of each thread is quick; the next would last a minute, were it still wanted.
        let end = Instant::now() + Duration::from_secs(if job < 3 { 0 } else { 60 });
        while Instant::now() < end {
            if stopped() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(Ok(job))
    });
    assert_eq!(ahead.blocking_next().unwrap().unwrap(), 0);
    until(|| begun.load(Ordering::SeqCst) == 6);
    let start = Instant::now();
    drop(ahead);
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    assert_eq!(Arc::strong_count(&witness), 1, "no thread holds the work any more");
}
