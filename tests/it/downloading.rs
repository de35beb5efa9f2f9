//! Downloading: an interrupted transfer goes on, only a whole and right file gets its name, and the hub's pictures are the files' pictures.

#[cfg(feature = "hub")]
mod hub;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use datasets::{Error, download};
use expect_test::{Expect, expect};
use sha2::{Digest, Sha256};

use crate::golden;
use crate::reading::check_error;

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

/// An answer; the body may be shorter than the length in the headers, as when a connection breaks.
struct Answer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// A server on this machine, for as long as the process lives; notes what it was asked.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

fn serve(answer: impl Fn(usize, &Request) -> Answer + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let Some(request) = hear(&stream) else { continue };
            log.lock().unwrap().push(request.clone());
            let answer = answer(count, &request);
            let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", answer.status);
            answer.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
            // A client that has heard enough may be gone by now.
            let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(&answer.body));
        }
    });
    Server { address, asked }
}

fn hear(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let headers =
        lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(": ").map(|(k, v)| (k.to_lowercase(), v.to_owned())));
    Some(Request { method, path, headers: headers.collect() })
}

/// The file that is served: 300,000 bytes that do not repeat.
fn content() -> Vec<u8> {
    (0..300_000u64).map(|at| (at * at % 251) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Serves `content` from where the client asks, at most `most` bytes a connection, though it promises all.
fn partial(content: Vec<u8>, most: usize) -> impl Fn(usize, &Request) -> Answer {
    move |_, request| {
        let start = request.headers.get("range").map(|range| range["bytes=".len()..range.len() - 1].parse::<usize>().unwrap());
        let from = start.unwrap_or(0);
        let length = content.len();
        let mut headers = vec![("Content-Length", (length - from).to_string())];
        headers.extend(start.map(|from| ("Content-Range", format!("bytes {from}-{}/{length}", length - 1))));
        let status = if start.is_some() { "206 Partial Content" } else { "200 OK" };
        Answer { status, headers, body: content[from..from.saturating_add(most).min(length)].to_vec() }
    }
}

/// A target in a fresh folder, and the digest and size that are wanted of it.
struct Fetch {
    folder: tempfile::TempDir,
    size: u64,
    sha256: String,
    progress: Vec<u64>,
}

impl Fetch {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), size: 300_000, sha256: sha256(&content()), progress: Vec::new() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("sub/file.zip")
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("sub/file.zip.part")
    }

    fn run(&mut self, server: &Server) -> Result<(), Error> {
        let (path, progress) = (self.path(), &mut self.progress);
        download::fetch(&format!("{}/file.zip", server.address), path, self.size, &self.sha256, |done, _| progress.push(done))
    }

    #[track_caller]
    fn check_whole(&self) {
        assert!(fs::read(self.path()).unwrap() == content(), "another file than was served");
        assert!(!self.part().exists(), "the part is gone");
    }

    /// The message, with the server's address as `<server>`.
    #[track_caller]
    fn check_refused(&mut self, server: &Server, want: Expect) {
        let result = self.run(server).map_err(|error| match error {
            Error::Download { url, action, source } => Error::Download {
                url: url.replace(&server.address, "<server>"),
                action,
                source: source.to_string().replace(&server.address, "<server>").into(),
            },
            Error::Format { path, field, wanted, found } => {
                Error::Format { path, field, wanted, found: found.replace(&server.address, "<server>") }
            }
            error => error,
        });
        check_error(self.folder.path(), result, want);
        assert!(!self.path().exists(), "no file has the name of a whole one");
    }
}

fn ranges(server: &Server) -> Vec<Option<String>> {
    server.asked.lock().unwrap().iter().map(|request| request.headers.get("range").cloned()).collect()
}

#[test]
fn a_file_arrives_whole_and_is_not_fetched_twice() {
    let server = serve(partial(content(), usize::MAX));
    let mut fetch = Fetch::new();
    fetch.run(&server).unwrap();
    fetch.check_whole();
    assert_eq!((fetch.progress.first(), fetch.progress.last()), (Some(&0), Some(&300_000)));
    assert!(fetch.progress.is_sorted());
    fetch.run(&server).unwrap();
    assert_eq!(ranges(&server), [None], "one request");
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let server = serve(partial(content(), 120_000));
    let mut fetch = Fetch::new();
    fetch.run(&server).unwrap();
    fetch.check_whole();
    let from = |start: u32| Some(format!("bytes={start}-"));
    assert_eq!(ranges(&server), [None, from(120_000), from(240_000)]);
}

#[test]
fn a_later_call_goes_on_with_the_part() {
    let mut fetch = Fetch::new();
    // This one breaks off, and then is overloaded.
    let first = partial(content(), 100_000);
    let broken = serve(move |count, request| match count {
        0 => first(0, request),
        _ => Answer { status: "503 Service Unavailable", headers: vec![], body: vec![] },
    });
    fetch.check_refused(&broken, expect!["<server>/file.zip: cannot download: http status: 503"]);
    assert_eq!(fs::metadata(fetch.part()).unwrap().len(), 100_000);
    let server = serve(partial(content(), usize::MAX));
    fetch.run(&server).unwrap();
    fetch.check_whole();
    assert_eq!(ranges(&server), [Some("bytes=100000-".to_owned())]);
}

#[test]
fn a_server_that_cannot_begin_in_the_middle_is_read_from_the_start() {
    let server = serve(|count, _| {
        let most = if count == 0 { 150_000 } else { 300_000 };
        Answer { status: "200 OK", headers: vec![("Content-Length", "300000".to_owned())], body: content()[..most].to_vec() }
    });
    let mut fetch = Fetch::new();
    fetch.run(&server).unwrap();
    fetch.check_whole();
    assert_eq!(ranges(&server), [None, Some("bytes=150000-".to_owned())]);
}

#[test]
fn a_wrong_file_is_refused_and_not_gone_on_with() {
    let mut other = content();
    other[200_000] ^= 1;
    let server = serve(partial(other, usize::MAX));
    let mut fetch = Fetch::new();
    fetch.sha256 = sha256(&content());
    fetch.check_refused(&server, expect!["<folder>/sub/file.zip.part: sha256: wanted fa7deae4b0504401a056ca3b1e6007902a7e681efda07fd7ca8819760caeff95, found f28d9322e5918533b7988b0865fb84165e47de43e1716a812a98293011ed7135"]);
    assert!(!fetch.part().exists());

    let server = serve(partial(content(), usize::MAX));
    let mut fetch = Fetch { size: 299_999, ..Fetch::new() };
    fetch.check_refused(&server, expect!["<folder>/sub/file.zip.part: length: wanted 299999 bytes, found 300000 bytes"]);
    let mut fetch = Fetch { size: 300_001, ..Fetch::new() };
    fetch.check_refused(
        &server,
        expect!["<folder>/sub/file.zip.part: length: wanted 300001 bytes, found 300000 bytes, and no more from <server>/file.zip"],
    );
}

#[test]
fn what_is_there_under_the_name_must_be_right() {
    let server = serve(partial(content(), usize::MAX));
    let mut fetch = Fetch::new();
    fs::create_dir_all(fetch.folder.path().join("sub")).unwrap();
    fs::write(fetch.path(), "something else").unwrap();
    let result = fetch.run(&server);
    check_error(fetch.folder.path(), result, expect!["<folder>/sub/file.zip: length: wanted 300000 bytes, found 14 bytes"]);
    assert_eq!(fs::read(fetch.path()).unwrap(), b"something else", "a file of the user's is left alone");
    assert_eq!(ranges(&server).len(), 0);
}

#[test]
fn a_server_that_refuses_is_named() {
    let server = serve(|_, _| Answer { status: "404 Not Found", headers: vec![], body: vec![] });
    Fetch::new().check_refused(&server, expect!["<server>/file.zip: cannot download: http status: 404"]);
}

/// The digests are those of the published files, which are not fetched again, and what is a store already needs no files.
#[test]
fn public_data_sets_become_stores_by_name() {
    for (name, folder) in [("mnist", "mnist"), ("fashion-mnist", "fashion-mnist")] {
        let Some(source) = golden::real(folder) else { return };
        let stores = tempfile::tempdir().unwrap();
        let downloads = stores.path().join("downloads").join(name);
        fs::create_dir_all(&downloads).unwrap();
        for file in fs::read_dir(source).unwrap().map(Result::unwrap).filter(|file| file.path().extension().is_some_and(|e| e == "gz")) {
            fs::copy(file.path(), downloads.join(file.file_name())).unwrap();
        }
        let store = pipeline::convert::public(name, stores.path()).unwrap();
        assert_eq!((store.meta().name.as_str(), store.len(0), store.len(1)), (name, 60_000, 10_000));
        drop(store);
        fs::remove_dir_all(downloads).unwrap();
        assert_eq!(pipeline::convert::public(name, stores.path()).unwrap().len(0), 60_000);
    }
}
