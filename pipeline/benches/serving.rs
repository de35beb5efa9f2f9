//! What does it cost to read batches from a server instead of from a loader in one's own process? And does a server hold?
//!
//! ```text
//! cargo xtask bench serving                       1, 4 and 16 clients, and one that shares no memory, beside a loader
//! cargo xtask bench serving -- --python PYTHON    and pyarrow
//! cargo xtask bench serving -- --soak SECONDS     64 clients, of which 8 are killed and 8 stop reading
//! ```
//!
//! Everybody is a process of their own and reads the same store, in turns, several times. Compare pictures per second of processor time, which
//! all processes of a turn spend together: a busy machine changes it little.

#![allow(missing_docs, clippy::print_stdout, reason = "a program that prints a table")]

mod pictures;

use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use datasets::{Batches, Picture, Seed};
use pipeline::augment::{self, normalize::Constants};
use pipeline::flight::{Client, Remote};
use pipeline::loader::Config;
use pipeline::{Loader, Store};

use pictures::{jpeg, picture};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => costs(None),
        ["--python", python] => costs(Some(python)),
        ["--soak", seconds] => soak(seconds.parse().expect("a number of seconds")),
        ["local", store] => measure(&Loader::new(open(store), large()).expect("a sound store")),
        ["remote", url] => read(&connect(&Remote::new(*url), large())),
        ["distant", url] => read(&connect(&Remote { share: false, ..Remote::new(*url) }, large())),
        ["careful", url, store] => {
            careful(&connect(&Remote::new(*url), small()), &Loader::new(open(store), small()).expect("a sound store"))
        }
        ["stalled", url] => stalled(&connect(&Remote::new(*url), small())),
        other => panic!("wanted nothing, --python PYTHON or --soak SECONDS, found {other:?}"),
    }
}

/// Seconds of a turn, and turns of each.
const TURN: u64 = 8;
const TURNS: usize = 5;

fn large() -> Config {
    Config { normalize: Constants::None, ..Config::train(64, augment::imagenet_train(224), Seed(0)) }
}

fn small() -> Config {
    Config { normalize: Constants::None, ..Config::train(64, augment::cifar_train(), Seed(0)) }
}

fn open(path: &str) -> Store {
    Store::open(path).expect("converted before")
}

fn connect(remote: &Remote, config: Config) -> Client {
    Client::connect(remote, "pictures", config).expect("a server")
}

/// What was read in a turn, and what it took.
#[derive(Debug, Clone, Copy)]
struct Turn {
    pictures: f64,
    /// Processor seconds of all that took part.
    processor: f64,
}

fn costs(python: Option<&str>) {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let pictures = (0..32).map(|seed| jpeg(&picture(seed, 375, 500, 3)));
    let store = pictures::store(folder.path(), "pictures.lmdb", 6_400, pictures.collect()).path().display().to_string();
    let server = Server::start(&store, &[]);
    let own = std::env::current_exe().expect("this program").display().to_string();

    let mut kinds = vec![("a loader".to_owned(), Vec::new())];
    for clients in [1, 4, 16] {
        kinds.push((format!("{clients} clients"), vec![vec![own.clone(), "remote".to_owned(), server.url.clone()]; clients]));
    }
    kinds.push(("1, by socket".to_owned(), vec![vec![own.clone(), "distant".to_owned(), server.url.clone()]]));
    if let Some(python) = python {
        for (name, script) in [("pyarrow", PYTHON_SHARED), ("by socket", PYTHON)] {
            kinds.push((name.to_owned(), vec![vec![python.to_owned(), "-c".to_owned(), script.to_owned(), server.url.clone()]]));
        }
    }
    let mut turns = vec![Vec::new(); kinds.len()];
    for _ in 0..TURNS {
        for (turns, (_, commands)) in turns.iter_mut().zip(&kinds) {
            turns.push(if commands.is_empty() { locally(&own, &store) } else { remotely(&server, commands) });
        }
    }
    println!("{:<12} {:>10} {:>16} {:>10} {:>10}", "", "images/s", "per core-second", "of loader", "(wall)");
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for ((name, _), of) in kinds.iter().zip(&turns) {
        let wall = |turn: &Turn| turn.pictures / TURN as f64;
        let core = |turn: &Turn| turn.pictures / turn.processor;
        let ratio =
            |value: &dyn Fn(&Turn) -> f64| median(of.iter().zip(&turns[0]).map(|(turn, loader)| value(turn) / value(loader)).collect());
        println!(
            "{name:<12} {:>10.0} {:>16.1} {:>10.3} {:>10.3}",
            median(of.iter().map(wall).collect()),
            median(of.iter().map(core).collect()),
            ratio(&core),
            ratio(&wall)
        );
    }
}

/// A turn of one process that has a loader of its own, which it measures itself.
fn locally(own: &str, store: &str) -> Turn {
    let output = child(&[own.to_owned(), "local".to_owned(), store.to_owned()]).wait_with_output().expect("it was started here");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.split_whitespace().map(|number| number.parse().expect("a number"));
    Turn { pictures: numbers.next().expect("pictures"), processor: numbers.next().expect("seconds") }
}

/// A turn of clients, from when all of them read to when it is over; the server has counted the pictures.
fn remotely(server: &Server, commands: &[Vec<String>]) -> Turn {
    let before = server.pictures();
    let mut clients: Vec<Child> = commands.iter().map(|command| child(command)).collect();
    while server.pictures() < before + 64.0 * 8.0 * clients.len() as f64 {
        thread::sleep(Duration::from_millis(20));
    }
    let processes: Vec<u32> = clients.iter().map(Child::id).chain([server.child.id()]).collect();
    let look = || (server.pictures(), processes.iter().map(|&process| processor(process)).sum::<f64>());
    let begin = look();
    thread::sleep(Duration::from_secs(TURN));
    let end = look();
    for client in &mut clients {
        client.kill().expect("it runs");
        client.wait().expect("it was started here");
    }
    // What was still being made for them is not the next turn's.
    thread::sleep(Duration::from_secs(1));
    Turn { pictures: end.0 - begin.0, processor: end.1 - begin.1 }
}

/// Reads for a turn and says how much that was: pictures and processor seconds.
fn measure(source: &dyn Batches) {
    let (mut pictures, mut begin, mut spent) = (0, None, 0.0);
    'turn: for epoch in 0.. {
        for batch in source.epoch(epoch, 0) {
            pictures += black_box(batch.expect("a sound store")).len();
            // The first batches come with everything's start.
            if pictures < 64 * 8 {
                continue;
            }
            let begin = *begin.get_or_insert_with(|| {
                (pictures, spent) = (64 * 8, processor(std::process::id()));
                Instant::now()
            });
            if begin.elapsed() >= Duration::from_secs(TURN) {
                break 'turn;
            }
        }
    }
    println!("{} {}", pictures - 64 * 8, processor(std::process::id()) - spent);
}

/// Reads until it is killed.
fn read(source: &dyn Batches) {
    for epoch in 0.. {
        for batch in source.epoch(epoch, 0) {
            black_box(batch.expect("a sound store"));
        }
    }
}

const PYTHON: &str = r#"
import itertools, json, sys
from pyarrow import flight
client = flight.connect(sys.argv[1])
loader = {"batch": 64, "normalize": "none", "transforms": [{"random_resized_crop": {"size": 224}}, {"flip": {"p": 0.5}}]}
for epoch in itertools.count():
    ticket = flight.Ticket(json.dumps({"dataset": "pictures", "epoch": epoch, "loader": loader}))
    for part, _ in client.do_get(ticket):
        images = part["image"].to_numpy_ndarray()
"#;

const PYTHON_SHARED: &str = r#"
import itertools, json, mmap, os, sys
import numpy as np
from pyarrow import flight
client = flight.connect(sys.argv[1])
loader = {"batch": 64, "normalize": "none", "transforms": [{"random_resized_crop": {"size": 224}}, {"flip": {"p": 0.5}}]}
for epoch in itertools.count():
    ticket = json.dumps({"dataset": "pictures", "epoch": epoch, "loader": loader})
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(ticket))
    with writer:
        where = json.loads(reader.schema.metadata[b"topolab-memory"])
        file = os.open(f"/proc/{where['process']}/fd/{where['file']}", os.O_RDONLY)
        memory = mmap.mmap(file, where["bytes"], prot=mmap.PROT_READ)
        os.close(file)
        writer.write_metadata(b'"opened"')
        for part, place in reader:
            if part is None:
                break
            place = json.loads(place.to_pybytes())
            shape = (len(part), 3, 224, 224)
            images = np.frombuffer(memory, np.uint8, int(np.prod(shape)), place["at"]).reshape(shape)
            writer.write_metadata(json.dumps({"returned": place["at"]}).encode())
"#;

/// Clients of each kind of a soak.
const CAREFUL: usize = 48;
const KILLED: usize = 8;
const STALLED: usize = 8;

fn soak(seconds: u64) {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let pictures = (0..256).map(|seed| Picture::Raw(picture(seed, 32, 32, 3)));
    let store = pictures::store(folder.path(), "pictures.lmdb", 6_400, pictures.collect()).path().display().to_string();
    let server = Server::start(&store, &["--streams", "80"]);
    let own = std::env::current_exe().expect("this program").display().to_string();
    let start =
        |kind: &str| child(&[own.clone(), kind.to_owned(), server.url.clone(), store.clone()][..if kind == "stalled" { 3 } else { 4 }]);
    let mut careful: Vec<Child> = (0..CAREFUL).map(|_| start("careful")).collect();
    let mut stalled: Vec<Child> = (0..STALLED).map(|_| start("stalled")).collect();
    let mut doomed: Vec<Child> = (0..KILLED).map(|_| start("careful")).collect();
    let begin = Instant::now();
    let mut memory = Vec::new();
    let mut killed = 0;
    while begin.elapsed() < Duration::from_secs(seconds) {
        thread::sleep(Duration::from_secs_f64(seconds as f64 / 24.0));
        memory.push(resident(server.child.id()));
        println!("{:>4} s: {:.1} MB, {killed} killed", begin.elapsed().as_secs(), memory[memory.len() - 1]);
        if let Some(mut child) = doomed.pop() {
            child.kill().expect("it runs");
            child.wait().expect("it was started here");
            killed += 1;
        }
    }
    let lost = careful.iter_mut().filter_map(|child| child.try_wait().expect("it was started here")).count();
    // Their standard input closed, they finish the batch in hand and say how many they compared.
    let compared: usize = careful
        .into_iter()
        .map(|mut child| {
            drop(child.stdin.take());
            let output = child.wait_with_output().expect("it was started here");
            assert!(output.status.success(), "a client found a wrong batch");
            String::from_utf8_lossy(&output.stdout).trim().parse::<usize>().expect("a number of batches")
        })
        .sum();
    for child in &mut stalled {
        child.kill().expect("it runs");
        child.wait().expect("it was started here");
    }
    println!("{killed} were killed, {STALLED} read nothing, {} pictures were sent", server.pictures());
    let quarter = memory.len() / 4;
    let most = |range: &[f64]| range.iter().copied().fold(0.0, f64::max);
    println!("{compared} batches compared by {CAREFUL} clients, of whom {lost} ended early");
    println!(
        "memory: {:.1} MB in the second quarter, {:.1} MB in the last",
        most(&memory[quarter..2 * quarter]),
        most(&memory[3 * quarter..])
    );
}

/// Compares each batch with a loader's, until standard input ends.
fn careful(remote: &Client, local: &Loader) {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        drop(end);
    });
    let mut compared = 0;
    for epoch in 0.. {
        let (mut theirs, mut ours) = (remote.epoch(epoch, 0), local.epoch(epoch, 0));
        loop {
            let (there, here) = (theirs.next().map(Result::unwrap), ours.next().map(Result::unwrap));
            assert!(there == here, "another batch");
            if here.is_none() {
                break;
            }
            compared += 1;
            if ended.recv_timeout(Duration::from_millis(20)) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected) {
                println!("{compared}");
                return;
            }
        }
    }
}

/// Takes two batches, and then none.
fn stalled(remote: &Client) {
    let mut batches = remote.epoch(0, 0);
    let taken: Vec<_> = batches.by_ref().take(2).collect();
    assert_eq!(taken.len(), 2);
    thread::sleep(Duration::from_secs(100_000));
    drop(batches);
}

/// `pipeline serve`, which ends with this value.
struct Server {
    child: Child,
    url: String,
    metrics: SocketAddr,
}

impl Server {
    fn start(store: &str, options: &[&str]) -> Self {
        // A port that was free just now.
        let metrics = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(["serve", &format!("pictures={store}"), "--metrics", &metrics.to_string()]).args(options);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program");
        let mut url = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut url).expect("an address");
        Self { child, url: url.trim().to_owned(), metrics }
    }

    /// Pictures that it has sent.
    fn pictures(&self) -> f64 {
        let mut connection = TcpStream::connect(self.metrics).expect("the server's metrics");
        connection.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("a request");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        let line = answer.lines().find(|line| line.starts_with("topolab_images_total{")).expect("the number of pictures");
        line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn child(command: &[String]) -> Child {
    let mut program = Command::new(&command[0]);
    program.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
    program.spawn().expect("the program")
}

/// Seconds that a process has spent on processors.
fn processor(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux");
    // The name, the second field, is in brackets and may hold anything.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number of ticks");
    (ticks(11) + ticks(12)) / 100.0
}

/// Megabytes that a process has of its own, or shares with its clients.
fn resident(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    let kilobytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("Linux");
        line.trim().trim_end_matches(" kB").trim().parse::<f64>().expect("a number")
    };
    (kilobytes("RssAnon:") + kilobytes("RssShmem:")) / 1000.0
}
