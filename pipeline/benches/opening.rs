//! What a store of ImageNet's size costs before its first batch: time and memory to convert, open, shuffle and read.
//!
//! 1,281,167 records, as many as ImageNet has training pictures, but of a few bytes: what depends on their number shows, what depends on
//! their size is the business of `loading`. Prints a table; `cargo xtask bench opening`.

#![allow(clippy::print_stdout, reason = "a table for people")]

use std::num::NonZeroUsize;
use std::time::Instant;

use datasets::{Batches, Dataset, Image, Info, Picture, Sample, Seed, Split};
use pipeline::convert::{self, Options};
use pipeline::loader::Config;
use pipeline::{Loader, Store};

const LEN: usize = 1_281_167;

/// Pictures of 8 by 8 pixels that hold their own number.
struct Numbers(Info);

impl Dataset for Numbers {
    fn info(&self) -> &Info {
        &self.0
    }

    fn get(&self, _: usize, index: usize) -> datasets::Result<Sample> {
        let pixels = (index as u64).to_le_bytes().repeat(8);
        Ok(Sample { picture: Picture::Raw(Image::new(8, 8, 1, pixels)), label: (index % 1000) as u32, name: String::new() })
    }
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let path = folder.path().join("numbers");
    let classes = (0..1000).map(|class| class.to_string()).collect();
    let splits = vec![Split { name: "train".to_owned(), len: LEN }];
    let data = Numbers(Info { name: "numbers".to_owned(), classes, splits });
    println!("{:<34} {:>10} {:>12} {:>12}", "", "seconds", "own MB now", "own MB peak");

    let options = Options { threads: NonZeroUsize::MIN, ..Options::new("bench") };
    let report = timed("convert", || convert::convert(&data, &path, &options, &mut |_| ()).expect("the folder is new"));
    let store = timed("open", || Store::open(&report.path).expect("converted just now"));
    let loader = timed("loader", || {
        let config = Config { threads: 1, ..Config::train(256, Vec::new(), Seed(0)) };
        Loader::new(store.clone(), config).expect("a sound store")
    });
    for epoch in [0, 1] {
        let mut batches = timed("epoch, shuffled, to its first batch", || {
            let mut batches = loader.epoch(epoch, 0);
            batches.next().expect("a batch").expect("a sound record");
            batches
        });
        timed("the next 100 batches of 256", || batches.by_ref().take(100).for_each(|batch| drop(batch.expect("sound records"))));
    }
    timed("resumed in the middle of an epoch", || loader.epoch(2, LEN / 512).next().expect("a batch").expect("a sound record"));
    println!("{} bytes on disk, {} bytes of pixels", store.file_bytes(), LEN * 64);
}

/// Prints how long `work` took, and the memory of the process afterwards, files that are mapped not counted.
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = work();
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what:<34} {seconds:>10.4} {:>12.1} {:>12.1}", memory("RssAnon:"), memory("VmHWM:") - memory("RssFile:"));
    result
}

/// A line of the kernel's account of this process, in megabytes; NaN where there is none.
fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kilobytes.map_or(f64::NAN, |kilobytes| kilobytes * 1024.0 / 1e6)
}
