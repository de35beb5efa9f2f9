//! Hands out batches when it is told to, as the loaders of `feeding.py` beside it do: `cargo xtask bench load` starts them in turn.
//!
//! `feeding load|bare photographs|thumbnails STORE THREADS u8|f32`, or by itself, `feeding cold FOLDER THREADS ROUNDS`. The first says `ready SECONDS` once the first batch is there, counted from the
//! opening of the store; a line on its input, a number of seconds, is answered by `go` once everything runs, and by the number of
//! pictures after that time. `bare` does to each picture what the loader does, and nothing else, on one thread: the limit of any loader.

#![expect(clippy::print_stdout, reason = "talks to whoever started it")]

mod cold;

use std::hint::black_box;
use std::io::BufRead;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use datasets::{Image, Seed};
use pipeline::augment::{self, Augment, Scratch, Transform};
use pipeline::decode::Decoder;
use pipeline::loader::{Config, Output};
use pipeline::{Loader, Store};

/// Batches that pass before time is taken.
const WARM: usize = 6;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [how, folder, threads, rounds] = &args[..]
        && how == "cold"
    {
        return cold::cold(folder.as_ref(), threads.parse()?, rounds.parse()?);
    }
    let [how, what, store, threads, output] = &args[..] else {
        // `cargo bench` of everything: this one needs to be told.
        return Ok(());
    };
    let (batch, transforms) = match what.as_str() {
        "photographs" => (64, augment::imagenet_train(224)),
        _ => (256, augment::tiny_train()),
    };
    let output = if output == "f32" { Output::F32 } else { Output::U8 };
    let start = Instant::now();
    let store = Store::open(store)?;
    match how.as_str() {
        "load" => {
            let config = Config { threads: threads.parse()?, output, ..Config::train(batch, transforms, Seed(0)) };
            let loader = Loader::new(store, config)?;
            let batches = (0..).flat_map(|epoch| loader.stream(epoch, 0));
            answer(
                start,
                batches.map(|batch| {
                    let batch = black_box(batch?);
                    let count = batch.len();
                    loader.recycle(batch);
                    Ok(count)
                }),
            )
        }
        "bare" => answer(start, bare(&store, batch, &transforms)),
        other => bail!("wanted load or bare, found {other}"),
    }
}

fn answer(start: Instant, mut batches: impl Iterator<Item = Result<usize>>) -> Result<()> {
    let mut next = || batches.next().context("there is no end of batches")?;
    next()?;
    println!("ready {}", start.elapsed().as_secs_f64());
    for line in std::io::stdin().lock().lines() {
        let window = Duration::from_secs_f64(line?.parse()?);
        for _ in 0..WARM {
            next()?;
        }
        println!("go");
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < window {
            count += next()?;
        }
        println!("{count}");
    }
    Ok(())
}

/// Batches of pictures that lie in memory, made one after the other in one buffer.
fn bare(store: &Store, batch: usize, transforms: &[Transform]) -> impl Iterator<Item = Result<usize>> {
    let augment = Augment::new(transforms.to_vec(), None).expect("published steps");
    let (mut decoder, mut scratch, mut rng) = (Decoder::default(), Scratch::default(), Seed(0).rng());
    let mut image = Image::new(0, 0, 3, Vec::new());
    let mut planes = Vec::new();
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut make = || {
            let reader = store.reader()?;
            for slot in 0..batch {
                at = (at + 1) % store.len(0);
                let record = reader.record(0, at)?;
                let mut whole = [0; 2];
                let choose = |size| {
                    whole = size;
                    augment.part(size, &mut rng)
                };
                let part = decoder.record(&record, choose, &mut image)?;
                augment.apply_to((whole, part), &mut image, &mut rng, &mut scratch)?;
                let size = image.pixels.len();
                planes.resize(batch * size, 0);
                let area = size / image.channels;
                for (number, pixel) in image.pixels.chunks_exact(image.channels).enumerate() {
                    for (channel, &value) in pixel.iter().enumerate() {
                        planes[slot * size + channel * area + number] = value;
                    }
                }
            }
            black_box(&planes);
            Ok(batch)
        };
        Some(make())
    })
}
