//! A first epoch of a store that lies on the disk alone, beside what the disk gives to whoever knows no loader.
//!
//! In turn, several times: the loader over all records in random order; pieces as long as its records, each read at once, in random order, by
//! as many threads, which is what the disk has to give; and some of these page by page, which is what a memory map gives that nobody reads
//! ahead in. The records are pixels, since decoding files would be slower than the disk.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use datasets::{Dataset, Image, Info, Picture, Sample, Seed, Split};
use pipeline::augment::normalize::Constants;
use pipeline::convert::{self, Options};
use pipeline::loader::Config;
use pipeline::{Loader, Store};

/// Pictures of a side of so many pixels are as long as ImageNet's files, and fill 27 pages.
const SIDE: usize = 190;
const PAGE: usize = 4096;
const PIECE: usize = 27 * PAGE;
/// A gigabyte of them.
const LEN: usize = 10_000;
/// Of the pieces, those that are read page by page, which takes long.
const SLOWLY: usize = LEN / 16;

/// Prints a Markdown table. The store is made in `folder` when it is not there.
pub(crate) fn cold(folder: &Path, threads: usize, rounds: usize) -> Result<()> {
    let path = folder.join("pixels.lmdb");
    if !path.is_file() {
        let splits = vec![Split { name: "train".to_owned(), len: LEN }];
        let data = Noise(Info { name: "noise".to_owned(), classes: vec!["one".to_owned()], splits });
        convert::convert(&data, &path, &Options::new("bench"), &mut |_| ())?;
    }
    let ways: [(&str, Way); 3] = [("Topolab", epoch), ("pieces, each at once", pieces), ("pieces, page by page", pages)];
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        for ((_, way), rates) in ways.iter().zip(&mut rates) {
            // The system forgets what nobody has mapped.
            let forget =
                Command::new("dd").arg(format!("if={}", path.display())).args(["iflag=nocache", "count=0", "status=none"]).status();
            ensure!(forget.context("start dd")?.success(), "dd could not make the system forget the file");
            let start = Instant::now();
            let bytes = way(&path, threads)?;
            rates.push(bytes as f64 / 1e6 / start.elapsed().as_secs_f64());
        }
    }
    println!("| cold, {threads} threads | MB a second (range) | Topolab ÷ it (range) |");
    println!("| --- | --- | --- |");
    let us = rates[0].clone();
    for ((name, _), rates) in ways.iter().zip(&mut rates) {
        let mut ratios: Vec<f64> = us.iter().zip(&*rates).map(|(us, rate)| us / rate).collect();
        println!("| {name} | {} | {} |", spread(rates, 0), spread(&mut ratios, 2));
    }
    Ok(())
}

/// Reads what there is, on so many threads; the number of bytes.
type Way = fn(&Path, usize) -> Result<usize>;

fn epoch(path: &Path, threads: usize) -> Result<usize> {
    let config = Config { threads, normalize: Constants::None, ..Config::train(64, Vec::new(), Seed(0)) };
    let loader = Loader::new(Store::open(path)?, config)?;
    let mut bytes = 0;
    for batch in loader.stream(0, 0) {
        let batch = black_box(batch?);
        bytes += batch.len() * SIDE * SIDE * 3;
        loader.recycle(batch);
    }
    Ok(bytes)
}

fn pieces(path: &Path, threads: usize) -> Result<usize> {
    shuffled(path, threads, LEN, |file, start, piece| file.read_exact_at(piece, start))
}

fn pages(path: &Path, threads: usize) -> Result<usize> {
    // From the last to the first, so that the system does not guess which are next.
    shuffled(path, threads, SLOWLY, |file, start, piece| {
        let mut pages = piece.chunks_exact_mut(PAGE).enumerate().rev();
        pages.try_for_each(|(page, into)| file.read_exact_at(into, start + (page * PAGE) as u64))
    })
}

/// Reads the first `count` pieces of the file in random order.
fn shuffled(
    path: &Path,
    threads: usize,
    count: usize,
    read: impl Fn(&File, u64, &mut [u8]) -> std::io::Result<()> + Sync,
) -> Result<usize> {
    let there = usize::try_from(path.metadata()?.len())? / PIECE;
    let mut starts: Vec<u64> = (0..there).map(|piece| (piece * PIECE) as u64).collect();
    Seed(0).rng().shuffle(&mut starts);
    starts.truncate(count);
    std::thread::scope(|scope| {
        let threads = (0..threads).map(|thread| {
            let (starts, read) = (&starts, &read);
            scope.spawn(move || -> std::io::Result<()> {
                let (file, mut piece) = (File::open(path)?, vec![0; PIECE]);
                starts.iter().skip(thread).step_by(threads).try_for_each(|&start| {
                    read(&file, start, &mut piece)?;
                    black_box(&piece);
                    Ok(())
                })
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    Ok(starts.len() * PIECE)
}

/// The median, and the range.
fn spread(values: &mut [f64], digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let [least, middle, most] = [0, values.len() / 2, values.len() - 1].map(|at| values[at]);
    format!("{middle:.digits$} ({least:.digits$} to {most:.digits$})")
}

/// Pictures of noise.
struct Noise(Info);

impl Dataset for Noise {
    fn info(&self) -> &Info {
        &self.0
    }

    fn get(&self, _: usize, index: usize) -> datasets::Result<Sample> {
        let mut rng = Seed(index as u64).rng();
        let pixels = (0..SIDE * SIDE * 3).step_by(8).flat_map(|_| rng.bits().to_le_bytes()).take(SIDE * SIDE * 3).collect();
        Ok(Sample { picture: Picture::Raw(Image::new(SIDE, SIDE, 3, pixels)), label: 0, name: index.to_string() })
    }
}
