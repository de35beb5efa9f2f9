//! Pictures that stay decoded: the same batches, within the limit.

use datasets::{Picture, Seed};
use pipeline::augment;
use pipeline::loader::Config;
use proptest::prelude::*;

use super::{Kept, augmented, epoch, raw, store};
use crate::decoding::{gradient, jpeg};

/// Thirty photographs of different sizes, some grey.
fn photographs() -> Kept {
    let image = |at: usize| gradient(30 + at, 60 - at, if at.is_multiple_of(7) { 1 } else { 3 });
    store((0..30).map(|at| Picture::Encoded(jpeg(&image(at)))).collect())
}

fn photographic(cache: u64) -> Config {
    Config { cache, ..Config::train(4, augment::imagenet_train(16), Seed(6)) }
}

#[test]
fn a_cache_changes_no_batch() {
    let store = photographs();
    let plain = store.loader(photographic(0));
    for (cache, threads) in [(1, 1), (5_000, 1), (20_000, 3), (100_000, 2), (u64::MAX, 3)] {
        let kept = store.loader(Config { threads, ..photographic(cache) });
        for number in 0..4 {
            assert_eq!(epoch(&kept, number, 0), epoch(&plain, number, 0), "{cache} bytes, epoch {number}");
        }
        assert_eq!(epoch(&kept, 9, 5), epoch(&plain, 9, 5), "in the middle of an epoch");
    }
    // Labels, too; and of a store that has no need of it.
    let raw = super::store(raw(50, 8, 8, 3));
    let kept = raw.loader(Config { cache: 1 << 20, ..augmented(7) });
    for number in 0..2 {
        assert_eq!(epoch(&kept, number, 0), epoch(&raw.loader(augmented(7)), number, 0));
    }
    assert_eq!(kept.cached().pictures, 0, "the system keeps a store's pages");
}

#[test]
fn all_is_kept_that_fits() {
    let store = photographs();
    let pixels: u64 = (0..30).map(|at| (30 + at) * (60 - at) * 3).sum();
    let loader = store.loader(photographic(1 << 30));
    assert_eq!(loader.cached().pictures, 0);
    epoch(&loader, 0, 0);
    let full = loader.cached();
    assert_eq!(full.pictures, 30);
    assert!((pixels..pixels + 30 * 100).contains(&full.bytes), "{full:?} for {pixels} bytes of pixels and a table");
    epoch(&loader, 1, 0);
    assert_eq!(loader.cached(), full, "each once");
    assert_eq!(store.loader(photographic(1 << 30)).cached().pictures, 0, "another loader has another cache");
    assert_eq!(loader.clone().cached(), full, "a clone has the same");

    // Half of the room: about half of the pictures, and they stay.
    let loader = store.loader(photographic(full.bytes / 2));
    epoch(&loader, 0, 0);
    let half = loader.cached();
    assert!((12..18).contains(&half.pictures), "{half:?}");
    epoch(&loader, 1, 0);
    assert!(loader.cached().pictures >= half.pictures);
}

#[test]
fn what_cannot_be_decoded_takes_no_room() {
    let files: Vec<Vec<u8>> = (0..3).map(|at| jpeg(&gradient(20, 20 + at, 3))).collect();
    let store = store(files.iter().cloned().map(Picture::Encoded).collect());
    super::rot(&store, &files[1], &files[1][..files[1].len() - 2].iter().copied().chain([0, 0]).collect::<Vec<u8>>());
    let loader = store.loader(Config { batch: 1, ..photographic(1 << 20) });
    assert_eq!(loader.stream(0, 0).filter(Result::is_err).count(), 1);
    let cached = loader.cached();
    assert_eq!(cached.pictures, 2);
    assert!(cached.bytes < 20 * 20 * 3 * 3, "{cached:?}");
}

proptest! {
    /// However little there is, no more is taken.
    #[test]
    fn the_limit_is_kept(limit in 0u64..60_000) {
        let store = photographs();
        let loader = store.loader(Config { threads: 3, ..photographic(limit) });
        for number in 0..2 {
            for batch in loader.stream(number, 0) {
                batch.unwrap();
                prop_assert!(loader.cached().bytes <= limit);
            }
        }
    }
}
