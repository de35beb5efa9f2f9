//! Consumers who share an epoch.

use super::*;

/// Three consumers, of which one stops reading, one is killed and comes back, and one comes late: each batch goes to one of them, and what
/// had not been sent to the slow one does not wait for it.
#[test]
fn a_group_shares_an_epoch() {
    let server = Running::new();
    // 200 kB a batch: what one does not read is soon more than fits on the way.
    let config = Config::train(1, vec![Transform::ResizeTo { height: 256, width: 256 }], Seed(7));
    let local = epoch(&Loader::new(server.store.clone(), config.clone()).unwrap(), 4, 0);
    let member = |name: &str| server.client(config.clone()).in_group("run", name);
    let (slow, killed, late) = (member("slow"), member("killed"), member("late"));
    let mut slowly = slow.stream(4, 0);
    let mut seen = vec![slowly.next().unwrap().unwrap()];
    assert_eq!(killed.stream(4, 0).take(2).map(Result::unwrap).count(), 2);
    server.until("topolab_streams_open", 1);
    // It remembers nothing, so that what it had is to be had again.
    seen.extend(killed.stream(4, 0).chain(late.stream(4, 0)).chain(slowly).map(Result::unwrap));
    check_shared(seen, &local);

    let other = server.client(train(2)).in_group("run", "other").stream(4, 0).next().unwrap().unwrap_err();
    assert!(other.to_string().contains("the group \"run\" reads something else in this epoch"), "{other}");
}

/// A consumer of a group whose connection breaks gets what was on its way to it.
#[test]
fn a_group_over_connections_that_break() {
    let server = Running::new();
    let local = epoch(&Loader::new(server.store.clone(), train(3)).unwrap(), 0, 0);
    for (share, after) in [(false, 15_000), (true, 3_000)] {
        let (url, broken) = breaking(server.port(), after);
        let consumers = ["a", "b", "c"].map(|name| {
            let remote = Remote { share, ..Remote::new(&url) };
            std::thread::spawn(move || {
                let client = Client::connect(&remote, "shapes", train(3)).unwrap().in_group(&format!("run, shared: {share}"), name);
                client.stream(0, 0).map(Result::unwrap).collect::<Vec<_>>()
            })
        });
        let seen: Vec<_> = consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect();
        check_shared(seen, &local);
        assert!(broken.load(Ordering::Relaxed) >= 1);
    }
}

fn check_shared(seen: Vec<(usize, Batch)>, local: &[Batch]) {
    let numbers: Vec<usize> = seen.iter().map(|&(number, _)| number).collect();
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len(), "twice: {numbers:?}");
    assert_eq!(numbers.len(), local.len(), "missing: {numbers:?}");
    for (number, batch) in seen {
        assert_eq!(batch, local[number]);
    }
}
