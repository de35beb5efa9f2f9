//! A ticket leads to a batch or to an error.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use datasets::{Seed, Shapes, synthetic::shapes};
use pipeline::loader::Config;
use pipeline::{Loader, Store, convert};

static STORE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = tempfile::tempdir().expect("a folder").keep().join("shapes.lmdb");
    let shapes = Shapes::new(shapes::Config { train_per_class: 5, test_per_class: 2, ..shapes::Config::default() }, Seed(0))
        .expect("sound settings");
    convert::convert(&shapes, &path, &convert::Options::new("fuzzing"), &mut |_| {}).expect("a store");
    path
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(ticket) = pipeline::fuzzing::ticket(bytes) else { return };
    // The server has the memory for the largest; here it only takes long.
    if ticket.loader.batch > 64 {
        return;
    }
    let config = Config { threads: 1, ..ticket.loader };
    if let Ok(loader) = Loader::new(Store::open(&*STORE).expect("made above"), config) {
        let _ = loader.stream(ticket.epoch, ticket.start).next();
    }
});
