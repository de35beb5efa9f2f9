//! Batches from a server are those of a loader, bit for bit, whatever happens to the connection, the other clients or the server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use candle::Var;
use datasets::synthetic::shapes;
use datasets::{Batch, Batches, Dataset, Image, Info, Picture, Sample, Seed, Shapes};
use expect_test::{Expect, expect};
use lab::{Recipe, fit};
use pipeline::augment::Transform;
use pipeline::flight::{Client, Listen, Options, Remote, Server, Ticket};
use pipeline::loader::{Config, Output};
use pipeline::order::{Last, Shard};
use pipeline::{Loader, Store, convert};
use tempfile::TempDir;
use tokio::sync::oneshot;

mod grouping;
mod kinds;
mod program;
mod sharing;

/// 96 training pictures of 3×12×12 and 24 to test, of eight classes.
fn pictures() -> Shapes {
    Shapes::new(shapes::Config { size: 12, train_per_class: 12, test_per_class: 3 }, Seed(5)).unwrap()
}

/// A store of a data set, as `shapes.lmdb`.
fn store(data: &dyn Dataset, folder: &Path) -> Store {
    convert::ensure(data, folder.join("shapes.lmdb"), "shapes").unwrap()
}

/// [`pictures`], but for one that is smaller than the others.
struct OneSmall(Shapes);

impl Dataset for OneSmall {
    fn info(&self) -> &Info {
        self.0.info()
    }

    fn get(&self, split: usize, index: usize) -> datasets::Result<Sample> {
        let sample = self.0.get(split, index)?;
        let small = Picture::Raw(Image::new(10, 10, 3, vec![index as u8; 300]));
        Ok(if (split, index) == (0, 50) { Sample { picture: small, ..sample } } else { sample })
    }
}

/// A server on a thread of this process.
struct Running {
    _folder: TempDir,
    store: Store,
    url: String,
    metrics: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Options)) -> Self {
        Self::of(&pictures(), change)
    }

    fn of(data: &dyn Dataset, change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = store(data, folder.path());
        let mut options = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            metrics: Some("127.0.0.1:0".parse().unwrap()),
            token: None,
            tls: None,
            threads: NonZeroUsize::new(2).unwrap(),
            streams: NonZeroUsize::new(64).unwrap(),
            drain: Duration::ZERO,
        };
        change(&mut options);
        let stores = BTreeMap::from([("shapes".to_owned(), store.clone())]);
        let ((say, bound), (end, ended)) = (std::sync::mpsc::channel(), oneshot::channel::<()>());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(stores, options).await.unwrap();
                say.send((server.url().to_owned(), server.metrics().unwrap())).unwrap();
                server.run(async { ended.await.unwrap_or(()) }).await.unwrap();
            });
            runtime.shutdown_background();
        });
        let (url, metrics) = bound.recv().unwrap();
        Self { _folder: folder, store, url, metrics, end: Some(end), thread: Some(thread) }
    }

    fn client(&self, config: Config) -> Client {
        Client::connect(&Remote::new(&self.url), "shapes", config).unwrap()
    }

    /// One that gets its batches through the socket.
    fn distant(&self, config: Config) -> Client {
        Client::connect(&Remote { share: false, ..Remote::new(&self.url) }, "shapes", config).unwrap()
    }

    fn refusal(&self, dataset: &str, config: Config) -> String {
        let error = Client::connect(&Remote::new(&self.url), dataset, config).unwrap_err();
        error.to_string().replace(&self.url, "SERVER")
    }

    fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// The value of a counter.
    fn metric(&self, name: &str) -> u64 {
        let text = get(self.metrics, "/metrics");
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a counter says this, for a while.
    fn until(&self, name: &str, wanted: u64) {
        let begin = Instant::now();
        while self.metric(name) != wanted {
            assert!(begin.elapsed() < Duration::from_secs(20), "{name} is {}, wanted {wanted}", self.metric(name));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(&mut self) {
        drop(self.end.take());
        self.thread.take().map(JoinHandle::join).unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() && !std::thread::panicking() {
            self.end();
        }
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    write!(connection, "GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

fn train(batch: usize) -> Config {
    Config::train(batch, vec![Transform::PadCrop { size: 12, pad: 2 }, Transform::Flip { p: 0.5 }], Seed(7))
}

fn epoch(source: &dyn Batches, epoch: u64, first: usize) -> Vec<Batch> {
    source.epoch(epoch, first).map(Result::unwrap).collect()
}

/// From any batch on, by TCP and by a socket in the file system.
#[test]
fn the_batches_of_a_loader() {
    let socket = tempfile::tempdir().unwrap();
    let unix = Listen::Unix(socket.path().join("flight.sock"));
    for server in [Running::new(), Running::with(|options| options.listen = unix)] {
        let configs = [
            train(10),
            Config { output: Output::F32, ..train(7) },
            Config { shard: Shard { rank: 1, world: 3 }, last: Last::Drop, ..train(5) },
            Config::eval("test", 100, vec![]),
        ];
        for config in configs {
            let local = Loader::new(server.store.clone(), config.clone()).unwrap();
            for remote in [server.client(config.clone()), server.distant(config.clone())] {
                assert_eq!(
                    (remote.samples(), remote.batches(), remote.sample_shape(), remote.classes()),
                    (local.samples(), local.batches(), local.sample_shape(), local.classes())
                );
                for (number, first) in [(0, 0), (1, 0), (1, 1), (3, local.batches()), (3, local.batches() + 9)] {
                    assert_eq!(epoch(&remote, number, first), epoch(&local, number, first));
                    // One at a time, each given back before the next.
                    assert!(remote.epoch(number, first).map(Result::unwrap).eq(local.epoch(number, first).map(Result::unwrap)));
                }
            }
        }
    }
    assert!(!socket.path().join("flight.sock").exists());
}

#[test]
fn what_there_is() {
    let server = Running::new();
    let summaries = Remote::new(&server.url).list().unwrap();
    let lines = summaries.iter().map(|s| format!("{} {}: {} of {:?}, {:?}", s.dataset, s.split, s.samples, s.shape, s.classes.len()));
    assert_eq!(lines.collect::<Vec<_>>(), ["shapes train: 96 of [3, 12, 12], 8", "shapes test: 24 of [3, 12, 12], 8"]);
    assert_eq!(summaries[0].content, server.store.meta().content);
    assert_eq!(summaries[0].normalize, server.store.meta().normalize);
}

/// A network trained from a server has the weights of one trained from a loader.
#[test]
fn training() {
    let server = Running::new();
    let trained = |train: &dyn Batches, test: &dyn Batches| {
        let model = crate::nets::classifier();
        let history = fit(&model, train, Some(test), &Recipe::sgd(0.05, 3), |_| {}).unwrap();
        let values = |(_, var): (&_, &Var)| var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let weights: Vec<Vec<f32>> = model.params.iter().map(values).collect();
        (weights, history.last().unwrap().test_accuracy)
    };
    let eval = Config::eval("test", 24, vec![]);
    let local = |config| Loader::new(server.store.clone(), config).unwrap();
    let here = trained(&local(train(16)), &local(eval.clone()));
    let there = trained(&server.client(train(16)), &server.client(eval));
    assert!(here == there);
}

/// A way to a server that breaks each connection after so many bytes of answers.
fn breaking(to: u16, after: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("grpc+tcp://{}", listener.local_addr().unwrap());
    let broken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&broken);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", to)).unwrap());
            let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut into));
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let mut bytes = vec![0; 1000];
                let mut left = after;
                while let Ok(read @ 1..) = server.read(&mut bytes) {
                    if client.write_all(&bytes[..read.min(left)]).is_err() {
                        break;
                    }
                    left -= read.min(left);
                    if left == 0 {
                        count.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                }
                let _ = (client.shutdown(std::net::Shutdown::Both), server.shutdown(std::net::Shutdown::Both));
            });
        }
    });
    (url, broken)
}

/// An epoch is 41 kB of pictures, or, where those lie in shared memory, 5 kB of words about them.
#[test]
fn a_connection_that_breaks_again_and_again() {
    let server = Running::new();
    let local = Loader::new(server.store.clone(), train(10)).unwrap();
    for (share, after) in [(false, 12_000), (true, 2_500)] {
        let (url, broken) = breaking(server.port(), after);
        let remote = Client::connect(&Remote { share, ..Remote::new(url) }, "shapes", train(10)).unwrap();
        assert_eq!(epoch(&remote, 2, 0), epoch(&local, 2, 0));
        assert!(broken.load(Ordering::Relaxed) >= 4, "shared: {share}, {broken:?}");
    }
}

/// The server goes down in the middle of an epoch, and another takes its place.
#[test]
fn a_server_that_is_started_again() {
    let mut server = Running::new();
    let local = Loader::new(server.store.clone(), train(2)).unwrap();
    let remote = server.client(train(2));
    let mut batches = remote.epoch(0, 0);
    let mut seen: Vec<Batch> = batches.by_ref().take(10).map(Result::unwrap).collect();
    let address = server.url.strip_prefix("grpc+tcp://").unwrap().to_owned();
    server.end();
    let _again = Running::with(|options| options.listen = address.parse().unwrap());
    seen.extend(batches.map(Result::unwrap));
    assert_eq!(seen, epoch(&local, 0, 0));
}

/// Of a client that takes nothing, only as much is made as fits on the way; once it is gone, nothing.
#[test]
fn work_follows_demand() {
    demanding(Running::client);
    demanding(Running::distant);
}

fn demanding(connect: impl Fn(&Running, Config) -> Client) {
    let server = Running::with(|options| options.threads = NonZeroUsize::MIN);
    // 24 MB a batch, 300 MB an epoch: more than any socket and window holds.
    let config = Config::train(8, vec![Transform::ResizeTo { height: 1024, width: 1024 }], Seed(0));
    let client = connect(&server, config.clone());
    let mut flight = client.stream(0, 0);
    assert_eq!(flight.next().unwrap().unwrap().0, 0);
    // Streams take turns with the one thread, and another client's batches cost as much: while it is served twelve, this one, which sleeps, would
    // be served about as many if nothing held them back. So the other's batches are the clock, whatever the speed of the machine.
    let mut others = 0;
    let mut work = || {
        let other = connect(&server, config.clone());
        assert_eq!(other.epoch(1, 0).map(|batch| batch.unwrap().len()).sum::<usize>(), 96);
        others += 12;
        server.metric("topolab_batches_total") - others
    };
    let made = work();
    assert!((1..=4).contains(&made), "{made} of 12");
    assert_eq!(server.metric("topolab_streams_open"), 1);
    // What it takes is made up for.
    assert_eq!(flight.next().unwrap().unwrap().0, 1);
    assert_eq!(flight.next().unwrap().unwrap().0, 2);
    drop(flight);
    server.until("topolab_streams_open", 0);
    let made = work();
    assert!((3..=7).contains(&made), "{made} of 12");
    assert_eq!(work(), made, "nothing is made for a client that is gone");
}

/// A picture that does not fit spoils its batch, here as in a loader, and no other.
#[test]
fn a_batch_that_cannot_be_made() {
    let server = Running::of(&OneSmall(pictures()), |_| {});
    let config = Config::train(4, vec![], Seed(3));
    let local: Vec<_> = Loader::new(server.store.clone(), config.clone()).unwrap().epoch(0, 0).collect();
    let remote: Vec<_> = server.client(config.clone()).epoch(0, 0).collect();
    assert_eq!((local.len(), remote.len()), (24, 24));
    assert_eq!(local.iter().filter(|batch| batch.is_err()).count(), 1);
    let reason = "shapes: split \"train\", record 50: cannot be put into the batch: wanted 3×12×12 like the split's first picture";
    for (here, there) in local.iter().zip(&remote) {
        match (here, there) {
            (Ok(here), Ok(there)) => assert_eq!(here, there),
            (Err(_), Err(there)) => assert!(there.to_string().contains(reason), "{there}"),
            _ => panic!("{here:?} and {there:?}"),
        }
    }
    let shared = server.client(config).in_group("run", "one").stream(0, 0);
    let (good, bad): (Vec<_>, Vec<_>) = shared.partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (23, 1));
}

#[track_caller]
fn check(refusal: &str, want: Expect) {
    want.assert_eq(refusal);
}

/// What a ticket may not ask for, and that a name is never a file's.
#[test]
fn refusals() {
    let server = Running::new();
    check(&server.refusal("tiny", train(1)), expect![[r#"SERVER: no data set "tiny"; there is "shapes""#]]);
    let path = server.store.path().display().to_string();
    for name in ["shapes.lmdb", "../shapes", &path] {
        assert_eq!(server.refusal(name, train(1)), format!("SERVER: no data set {name:?}; there is \"shapes\""));
    }
    let of = |config| server.refusal("shapes", config);
    check(
        &of(Config { split: "../val".to_owned(), ..train(1) }),
        expect![[r#"SERVER: shapes: no split "../val"; there is "train", "test""#]],
    );
    check(&of(train(0)), expect!["SERVER: loader.batch: wanted 1 to 65536, found 0"]);
    check(&of(train(1 << 20)), expect!["SERVER: loader.batch: wanted 1 to 65536, found 1048576"]);
    let resize = |side| vec![Transform::ResizeTo { height: side, width: side }];
    check(&of(Config::train(1, resize(60_000), Seed(0))), expect!["SERVER: loader.transforms: wanted numbers up to 2048, found 60000"]);
    check(
        &of(Config::train(1, vec![Transform::Flip { p: 0.5 }; 40], Seed(0))),
        expect!["SERVER: loader.transforms: wanted at most 32, found 40"],
    );
    let large = server.client(Config::train(100, resize(1500), Seed(0))).epoch(0, 0).next().unwrap().unwrap_err();
    check(
        &large.to_string().replace(&server.url, "SERVER"),
        expect!["SERVER: loader.batch: wanted batches of at most 268435456 bytes, found 675000000 bytes"],
    );
    let shard = Config { shard: Shard { rank: 3, world: 3 }, ..train(1) };
    check(&of(shard), expect!["SERVER: shard.rank: wanted below the world of 3, found 3"]);
}

/// What is written in JSON by hand is taken as it is meant, or not at all.
#[test]
fn tickets() {
    let read = |text: &str| serde_json::from_str::<Ticket>(text).map_err(|error| error.to_string());
    let ticket =
        read(r#"{"dataset": "tiny", "epoch": 3, "start": 17, "loader": {"batch": 10, "transforms": [{"flip": {"p": 0.5}}]}}"#).unwrap();
    assert_eq!((ticket.dataset.as_str(), ticket.epoch, ticket.start, ticket.loader.batch), ("tiny", 3, 17, 10));
    assert_eq!(read(r#"{"dataset": "tiny"}"#).unwrap().loader, Config::default());
    assert!(read(r#"{"epoch": 3}"#).unwrap_err().contains("missing field `dataset`"));
    for (text, field) in [
        (r#"{"dataset": "tiny", "path": "/"}"#, "path"),
        (r#"{"dataset": "tiny", "loader": {"file": "/"}}"#, "file"),
        (r#"{"dataset": "tiny", "group": {"name": "a", "rank": 1}}"#, "rank"),
    ] {
        assert!(read(text).unwrap_err().contains(&format!("unknown field `{field}`")), "{text}");
    }
}

/// Whoever speaks something else is not answered, and nobody else notices.
#[test]
fn noise() {
    let server = Running::new();
    for seed in 0..20 {
        let mut rng = Seed(seed).rng();
        let mut connection = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        let preface: &[u8] = if seed % 2 == 0 { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" } else { b"" };
        let bytes: Vec<u8> = preface.iter().copied().chain((0..2000).map(|_| rng.bits() as u8)).collect();
        // The server may hang up before all of it is written.
        let _ = connection.write_all(&bytes);
    }
    assert_eq!(epoch(&server.client(train(10)), 0, 0).len(), 10);
}

#[test]
fn a_token() {
    let token = "0123456789abcdef0123456789abcdef";
    let server = Running::with(|options| options.token = Some(token.to_owned()));
    let list = |token: Option<&str>| Remote { token: token.map(str::to_owned), ..Remote::new(&server.url) }.list();
    assert_eq!(list(Some(token)).unwrap().len(), 2);
    for (shown, reason) in [
        (None, "wanted the header `authorization: Bearer TOKEN`"),
        (Some(""), "another token is wanted"),
        (Some("0123456789abcdef0123456789abcdeF"), "another token is wanted"),
        (Some("0123456789abcdef0123456789abcdef0"), "another token is wanted"),
    ] {
        assert_eq!(list(shown).unwrap_err().to_string(), format!("{}: {reason}", server.url));
    }
    assert_eq!(server.metric("topolab_requests_total{method=\"ListFlights\",outcome=\"refused\"}"), 4);
}

/// One too many waits until there is room.
#[test]
fn as_many_streams_as_allowed() {
    let server = Running::with(|options| options.streams = NonZeroUsize::MIN);
    let client = server.client(Config::train(8, vec![Transform::ResizeTo { height: 1024, width: 1024 }], Seed(0)));
    let mut first = client.stream(0, 0);
    assert!(first.next().unwrap().is_ok());
    let waits = server.client(train(10));
    let second = std::thread::spawn(move || epoch(&waits, 0, 0).len());
    // It asks again and again.
    let method = if cfg!(target_os = "linux") { "DoExchange" } else { "DoGet" };
    let refused = format!("topolab_requests_total{{method=\"{method}\",outcome=\"refused\"}}");
    let begin = Instant::now();
    while server.metric(&refused) < 2 {
        assert!(begin.elapsed() < Duration::from_secs(20), "it was refused {} times", server.metric(&refused));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.join().unwrap(), 10);
}

/// What cannot be served is said before anybody connects.
#[test]
fn unfit_options() {
    let folder = tempfile::tempdir().unwrap();
    let stores = BTreeMap::from([("shapes".to_owned(), store(&pictures(), folder.path()))]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bind = |listen: &str, token: Option<&str>| {
        let options = Options {
            listen: listen.parse().unwrap(),
            metrics: None,
            token: token.map(str::to_owned),
            tls: None,
            threads: NonZeroUsize::MIN,
            streams: NonZeroUsize::MIN,
            drain: Duration::ZERO,
        };
        runtime.block_on(Server::bind(stores.clone(), options)).map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(bind("0.0.0.0:0", None), "token: wanted one, since others can reach 0.0.0.0:0, found none");
    assert!(bind("127.0.0.1:0", Some("secret")).starts_with("token: wanted at least 32 characters"));
    assert!("localhost".parse::<Listen>().is_err() && "unix:".parse::<Listen>().is_err());
}
