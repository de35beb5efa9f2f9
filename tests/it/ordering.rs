//! Which sample is in which batch: an epoch is a permutation, or drawn, shards share it out, resuming is arithmetic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datasets::Seed;
use expect_test::{Expect, expect};
use pipeline::order::{Last, Order, Per, Rules, Shard, plan};
use proptest::prelude::*;

fn rules(batch: usize, order: Order) -> Rules {
    Rules { batch, order, last: Last::Keep, shard: Shard::default(), seed: Seed(7), labels: [].into() }
}

fn batches(len: usize, rules: &Rules, epoch: u64) -> Vec<Vec<u64>> {
    let plans = plan(len, rules, epoch).unwrap();
    (0..plans.batches()).map(|number| plans.plan(number).indices).collect()
}

#[track_caller]
fn check(len: usize, rules: &Rules, want: Expect) {
    want.assert_eq(&format!("{:?}", batches(len, rules, 0)));
}

#[test]
fn order_is_as_written() {
    check(10, &rules(4, Order::Sequential), expect!["[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]"]);
    check(10, &Rules { last: Last::Drop, ..rules(4, Order::Sequential) }, expect!["[[0, 1, 2, 3], [4, 5, 6, 7]]"]);
    // These numbers are for ever: a published run is repeated from its seed.
    check(10, &rules(4, Order::Shuffled), expect!["[[4, 5, 9, 7], [8, 1, 0, 3], [6, 2]]"]);
    check(0, &rules(4, Order::Shuffled), expect!["[]"]);
}

#[test]
fn two_processes_share_each_step() {
    let shard = |rank| Rules { shard: Shard { rank, world: 2 }, ..rules(3, Order::Sequential) };
    check(10, &shard(0), expect!["[[0, 1, 2], [6, 7]]"]);
    check(10, &shard(1), expect!["[[3, 4, 5], [8, 9]]"]);
    // Thirteen leave one sample for two processes, so the step before lends one.
    check(13, &shard(0), expect!["[[0, 1, 2], [6, 7], [11]]"]);
    check(13, &shard(1), expect!["[[3, 4, 5], [8, 9, 10], [12]]"]);
}

#[test]
fn epochs_and_seeds_differ() {
    let at = |seed, epoch| batches(100, &Rules { seed: Seed(seed), ..rules(100, Order::Shuffled) }, epoch);
    assert_eq!(at(1, 1), at(1, 1));
    assert_ne!(at(1, 1), at(1, 2));
    assert_ne!(at(1, 1), at(2, 1));
    assert_eq!(batches(50, &rules(8, Order::Sequential), 0), batches(50, &rules(8, Order::Sequential), 9));
}

#[test]
fn a_sample_keeps_its_seed_whatever_its_batch() {
    let (wide, narrow) = (plan(64, &rules(64, Order::Shuffled), 3).unwrap(), plan(64, &rules(5, Order::Sequential), 3).unwrap());
    let whole = wide.plan(0);
    let seeds: BTreeMap<u64, u64> = (0..64).map(|k| (whole.indices[k], whole.seed(k).0)).collect();
    assert_eq!(seeds.values().collect::<BTreeSet<_>>().len(), 64, "each sample has a seed of its own");
    for number in 0..narrow.batches() {
        let plan = narrow.plan(number);
        assert!(plan.indices.iter().enumerate().all(|(k, index)| plan.seed(k).0 == seeds[index]));
    }
    let later = plan(64, &rules(64, Order::Shuffled), 4).unwrap().plan(0);
    assert!((0..64).all(|k| later.seed(k).0 != seeds[&later.indices[k]]), "and another in each epoch");
}

#[test]
fn what_cannot_be_shared_out_is_refused() {
    let check = |len, batch, shard, want: Expect| {
        want.assert_eq(&plan(len, &Rules { shard, ..rules(batch, Order::Sequential) }, 0).unwrap_err().to_string());
    };
    check(10, 0, Shard::default(), expect!["batch: wanted at least 1, found 0"]);
    check(10, 4, Shard { rank: 2, world: 2 }, expect!["shard.rank: wanted below the world of 2, found 2"]);
    check(
        3,
        4,
        Shard { rank: 0, world: 4 },
        expect!["shard.world: wanted a number that shares out 3 samples in batches of 4, or `last` = `drop`, found 4"],
    );
    check(
        5,
        1,
        Shard { rank: 0, world: 2 },
        expect!["shard.world: wanted a number that shares out 5 samples in batches of 1, or `last` = `drop`, found 2"],
    );
}

#[test]
fn blocks_are_read_a_few_at_a_time() {
    let order = |size, mixed| rules(1000, Order::Blocks { size, mixed });
    check(10, &Rules { batch: 10, ..order(3, 1) }, expect!["[[9, 1, 2, 0, 8, 7, 6, 3, 4, 5]]"]);
    for (size, mixed) in [(10, 4), (7, 3), (64, 1), (1, 50), (300, 5)] {
        let epoch = batches(1000, &order(size, mixed), 0).concat();
        assert_ne!(epoch, batches(1000, &order(size, mixed), 1).concat(), "another epoch, another order");
        // A block that is begun is read to its end before more than `mixed` others are.
        let mut open = BTreeMap::new();
        for index in epoch {
            let block = index as usize / size;
            let left = open.entry(block).or_insert((1000 - block * size).min(size));
            *left -= 1;
            if *left == 0 {
                open.remove(&block);
            }
            assert!(open.len() <= mixed, "blocks of {size}: {} are open", open.len());
        }
    }
    let refused = |size, mixed| plan(10, &order(size, mixed), 0).unwrap_err().to_string();
    expect!["order.blocks.size: wanted 1 to 2³², found 0"].assert_eq(&refused(0, 1));
    expect!["order.blocks.mixed: wanted 1 to 2³², found 0"].assert_eq(&refused(1, 0));
}

/// Sixty samples: half of class 0, a third of class 1, the rest of class 4.
fn uneven() -> Rules {
    let labels = (0..60).map(|index| [0, 0, 0, 1, 1, 4][index % 6]).collect();
    Rules { labels, ..rules(60, Order::Balanced) }
}

#[test]
fn balanced_classes_come_equally_often() {
    let rules = uneven();
    let epoch = batches(60, &rules, 0).concat();
    let classes: Vec<u32> = epoch.iter().map(|&index| rules.labels[index as usize]).collect();
    for round in classes.chunks(3) {
        assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), 3, "one of each class");
    }
    assert_eq!(epoch.len(), 60, "as long as without balance");
    let mut times = BTreeMap::new();
    for index in epoch {
        *times.entry(index).or_insert(0) += 1;
    }
    // Twenty of each class: two thirds of thirty, all of twenty, and each of ten twice.
    let of = |class| {
        (0..60u64).filter(|&at| rules.labels[at as usize] == class).map(|at| times.get(&at).copied().unwrap_or(0)).collect::<Vec<_>>()
    };
    assert_eq!((of(0).iter().sum::<i32>(), of(0).iter().max()), (20, Some(&1)));
    assert_eq!((of(1), of(4)), (vec![1; 20], vec![2; 10]));
    assert_ne!(batches(60, &rules, 0), batches(60, &rules, 1), "another epoch, another order");
    // These numbers are for ever, too.
    check(7, &Rules { labels: [0, 0, 0, 0, 2, 2, 9].into(), ..rules }, expect!["[[6, 5, 1, 6, 4, 2, 6]]"]);
}

#[test]
fn heavy_samples_come_more_often() {
    let len = 5_000;
    let weights: Vec<f64> = (0..len).map(|index| [0.0, 1.0, 3.0][index % 3]).collect();
    let weighted = |weights, per| Order::Weighted { weights, per };
    let epoch = batches(len, &rules(100, weighted(weights.clone(), Per::Sample)), 2).concat();
    assert_eq!(epoch.len(), len);
    let share = |kind| epoch.iter().filter(|&&index| index % 3 == kind).count() as f64 / len as f64;
    assert_eq!(share(0), 0.0);
    // A quarter, give or take four deviations of √(¼ × ¾ ÷ 5,000).
    assert!((share(1) - 0.25).abs() < 0.025, "{}", share(1));
    let different = epoch.iter().collect::<BTreeSet<_>>().len();
    assert!(different < len / 2, "{different} different ones: drawn with replacement");

    let labels = (0..len as u32).map(|index| index % 3).collect();
    let by_class = Rules { labels, ..rules(100, weighted(vec![0.0, 1.0, 3.0], Per::Class)) };
    assert_eq!(batches(len, &by_class, 2).concat(), epoch, "a class's weight is that of each of its samples");
    check(6, &rules(3, weighted(vec![1.0, 2.0, 0.0, 4.0, 8.0, 0.0], Per::Sample)), expect!["[[4, 4, 4], [4, 3, 4]]"]);
}

#[test]
fn what_comes_twice_looks_different() {
    let whole = plan(60, &uneven(), 0).unwrap().plan(0);
    let seeds: BTreeSet<u64> = (0..60).map(|k| whole.seed(k).0).collect();
    assert_eq!(seeds.len(), 60, "a seed for each place of the epoch");
    let parts = plan(60, &Rules { batch: 7, ..uneven() }, 0).unwrap();
    let again: BTreeSet<u64> =
        (0..parts.batches()).map(|n| parts.plan(n)).flat_map(|p| (0..p.indices.len()).map(move |k| p.seed(k).0)).collect();
    assert_eq!(seeds, again, "whatever its batch");
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let refused = |order, labels: &[u32], want: Expect| {
        want.assert_eq(&plan(3, &Rules { labels: labels.into(), ..rules(1, order) }, 0).unwrap_err().to_string());
    };
    let weighted = |weights: &[f64], per| Order::Weighted { weights: weights.to_vec(), per };
    refused(Order::Balanced, &[0, 1], expect!["labels: wanted one for each of 3 samples, found 2"]);
    refused(weighted(&[1.0, 2.0], Per::Sample), &[], expect!["order.weighted.weights: wanted one for each of 3 samples, found 2"]);
    refused(weighted(&[1.0, 2.0], Per::Class), &[], expect!["labels: wanted one for each of 3 samples, found 0"]);
    refused(weighted(&[1.0, 2.0], Per::Class), &[0, 2, 0], expect!["order.weighted.weights: wanted one for each of 3 classes, found 2"]);
    for (bad, text) in [(-1.0, "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let want = format!("order.weighted.weights: wanted finite numbers of at least 0, found {text} at 1");
        assert_eq!(plan(3, &rules(1, weighted(&[1.0, bad, 1.0], Per::Sample)), 0).unwrap_err().to_string(), want);
    }
    let wanted = "order.weighted.weights: wanted a sum that is positive and finite";
    refused(
        weighted(&[0.0; 3], Per::Sample),
        &[],
        expect![[r#"order.weighted.weights: wanted a sum that is positive and finite, found 0"#]],
    );
    assert_eq!(plan(3, &rules(1, weighted(&[f64::MAX; 3], Per::Sample)), 0).unwrap_err().to_string(), format!("{wanted}, found inf"));
    // Of no weight, a class without samples may be left out; a class of all samples may not.
    refused(
        weighted(&[0.0, 1.0], Per::Class),
        &[0; 3],
        expect!["order.weighted.weights: wanted a sum that is positive and finite, found 0"],
    );
}

#[test]
fn an_order_is_data() {
    let read = |text: &str| serde_json::from_str::<Order>(text).unwrap();
    assert_eq!(read(r#""balanced""#), Order::Balanced);
    assert_eq!(read(r#"{"weighted": {"weights": [1, 2]}}"#), Order::Weighted { weights: vec![1.0, 2.0], per: Per::Sample });
    assert_eq!(read(r#"{"weighted": {"weights": [1, 2], "per": "class"}}"#), Order::Weighted { weights: vec![1.0, 2.0], per: Per::Class });
    assert_eq!(read(r#"{"blocks": {"size": 4, "mixed": 2}}"#), Order::Blocks { size: 4, mixed: 2 });
}

fn any_order() -> impl Strategy<Value = Order> {
    let blocks = (1usize..500, 1usize..20).prop_map(|(size, mixed)| Order::Blocks { size, mixed });
    let weighted = prop::collection::vec(0.1f64..2.0, 5).prop_map(|weights| Order::Weighted { weights, per: Per::Class });
    prop_oneof![Just(Order::Sequential), Just(Order::Shuffled), blocks, Just(Order::Balanced), weighted]
}

proptest! {
    #[test]
    fn an_epoch_is_shared_out_by_shards_and_where_nothing_is_drawn_a_permutation(
        len in 0usize..400, batch in 1usize..20, world in 1usize..6, order in any_order(), drop: bool, seed: u64, epoch in 0u64..5,
    ) {
        let last = if drop { Last::Drop } else { Last::Keep };
        let labels: Arc<[u32]> = (0..len as u32).map(|index| index % 7 % 5).collect();
        let rules = |rank| Rules { batch, order: order.clone(), last, shard: Shard { rank, world }, seed: Seed(seed), labels: labels.clone() };
        prop_assume!(plan(len, &rules(0), epoch).is_ok());

        let shards: Vec<Vec<Vec<u64>>> = (0..world).map(|rank| batches(len, &rules(rank), epoch)).collect();
        let steps = if drop { len / (batch * world) } else { len.div_ceil(batch * world) };
        for (rank, shard) in shards.iter().enumerate() {
            prop_assert_eq!(shard.len(), steps, "as many batches as the others");
            prop_assert!(shard.iter().all(|ids| (1..=batch).contains(&ids.len())), "none empty, none too large");
            prop_assert_eq!(rules(rank).samples(len), shard.iter().map(Vec::len).sum::<usize>());
        }
        // Side by side, the shards are the epoch of one process with the larger batch.
        let together: Vec<u64> = (0..steps).flat_map(|step| shards.iter().flat_map(move |shard| shard[step].clone())).collect();
        let alone = Rules { batch: batch * world, shard: Shard::default(), ..rules(0) };
        prop_assert_eq!(&together, &batches(len, &alone, epoch).concat());

        let mut sorted = together;
        sorted.sort_unstable();
        let all = if drop { steps * batch * world } else { len };
        prop_assert_eq!(sorted.len(), all);
        if !matches!(order, Order::Balanced | Order::Weighted { .. }) {
            sorted.dedup();
            prop_assert_eq!(sorted.len(), all, "each sample once");
        }
        prop_assert!(sorted.last().is_none_or(|&last| (last as usize) < len));
    }
}
