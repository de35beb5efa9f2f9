//! Which sample is in which batch: an epoch is a permutation, shards share it out, resuming is arithmetic.

use datasets::Seed;
use expect_test::{Expect, expect};
use pipeline::order::{Last, Order, Rules, Shard, plan};
use proptest::prelude::*;

fn rules(batch: usize, order: Order) -> Rules {
    Rules { batch, order, last: Last::Keep, shard: Shard::default(), seed: Seed(7) }
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
    let seeds: std::collections::BTreeSet<u64> = (0..64).map(|index| whole.seed(index).0).collect();
    assert_eq!(seeds.len(), 64, "each sample has a seed of its own");
    for number in 0..narrow.batches() {
        let plan = narrow.plan(number);
        assert!(plan.indices.iter().all(|&index| plan.seed(index) == whole.seed(index)));
    }
    assert_ne!(whole.seed(0), plan(64, &rules(64, Order::Shuffled), 4).unwrap().plan(0).seed(0), "and another in each epoch");
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
        let mut open = std::collections::BTreeMap::new();
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

fn any_order() -> impl Strategy<Value = Order> {
    let blocks = (1usize..500, 1usize..20).prop_map(|(size, mixed)| Order::Blocks { size, mixed });
    prop_oneof![Just(Order::Sequential), Just(Order::Shuffled), blocks]
}

proptest! {
    #[test]
    fn an_epoch_is_a_permutation_that_shards_share_out(
        len in 0usize..400, batch in 1usize..20, world in 1usize..6, order in any_order(), drop: bool, seed: u64, epoch in 0u64..5,
    ) {
        let last = if drop { Last::Drop } else { Last::Keep };
        let rules = |rank| Rules { batch, order, last, shard: Shard { rank, world }, seed: Seed(seed) };
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
        sorted.dedup();
        prop_assert_eq!(sorted.len(), if drop { steps * batch * world } else { len }, "each sample once");
        prop_assert!(sorted.last().is_none_or(|&last| (last as usize) < len));
    }
}
