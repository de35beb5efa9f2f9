//! Downloading: an interrupted transfer goes on, only a whole and right file gets its name, and the hub's pictures are the files' pictures.

#[cfg(feature = "hub")]
mod hub;
mod named;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use datasets::{Error, download};
use expect_test::{Expect, expect};
use sha2::{Digest, Sha256};

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

    /// With this left over from an earlier call.
    fn with_part(bytes: &[u8]) -> Self {
        let fetch = Self::new();
        fs::create_dir_all(fetch.part().parent().unwrap()).unwrap();
        fs::write(fetch.part(), bytes).unwrap();
        fetch
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
                Error::Format { path: path.display().to_string().replace(&server.address, "<server>").into(), field, wanted, found }
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
    fetch.check_refused(&broken, expect!["<server>/file.zip: cannot download: http status: 503 Service Unavailable"]);
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
    fetch.check_refused(&server, expect!["<server>/file.zip: sha256: wanted fa7deae4b0504401a056ca3b1e6007902a7e681efda07fd7ca8819760caeff95, found f28d9322e5918533b7988b0865fb84165e47de43e1716a812a98293011ed7135"]);
    assert!(!fetch.part().exists());
}

#[test]
fn a_file_of_another_length_is_refused_before_it_is_taken() {
    let server = serve(partial(content(), usize::MAX));
    for size in [299_999, 300_001] {
        let mut fetch = Fetch { size, ..Fetch::new() };
        let error = fetch.run(&server).unwrap_err().to_string();
        assert_eq!(error, format!("{}/file.zip: length: wanted {size} bytes, found 300000 bytes", server.address));
        assert_eq!((fetch.progress.as_slice(), fetch.part().exists()), (&[0][..], false));
    }
    // A page that asks for a login, say, is no reason to throw away what is here.
    let page = serve(|_, _| Answer { status: "200 OK", headers: vec![("Content-Length", "5".to_owned())], body: b"login".to_vec() });
    let mut fetch = Fetch::with_part(&content()[..1000]);
    fetch.check_refused(&page, expect!["<server>/file.zip: length: wanted 300000 bytes, found 5 bytes"]);
    assert_eq!(fs::read(fetch.part()).unwrap(), content()[..1000]);
}

/// These servers do not say how much they are going to send.
#[test]
fn a_body_that_ends_too_early_or_too_late_is_refused() {
    let long = serve(|_, _| Answer { status: "200 OK", headers: vec![], body: [content(), content()].concat() });
    let mut fetch = Fetch::new();
    fetch.check_refused(&long, expect!["<server>/file.zip: length: wanted 300000 bytes, found more"]);
    assert!(!fetch.part().exists());

    let short = content()[..250_000].to_vec();
    let server = serve(move |_, request| match request.headers.contains_key("range") {
        false => Answer { status: "200 OK", headers: vec![], body: short.clone() },
        true => {
            let headers = vec![("Content-Range", "bytes */250000".to_owned()), ("Content-Length", "0".to_owned())];
            Answer { status: "416 Range Not Satisfiable", headers, body: vec![] }
        }
    });
    let mut fetch = Fetch::new();
    fetch.check_refused(&server, expect!["<server>/file.zip: length: wanted 300000 bytes, found 250000 bytes, and no more"]);
    assert_eq!(ranges(&server), [None, Some("bytes=250000-".to_owned())]);
}

#[test]
fn a_part_that_turns_out_wrong_is_fetched_anew() {
    let server = serve(partial(content(), usize::MAX));
    let from = |start: u32| Some(format!("bytes={start}-"));
    for (part, asked) in [(vec![7; 1000], vec![from(1000), None]), (vec![7; 300_000], vec![None]), (vec![7; 300_001], vec![None])] {
        let mut fetch = Fetch::with_part(&part);
        fetch.run(&server).unwrap();
        fetch.check_whole();
        assert_eq!(ranges(&server), asked, "{} wrong bytes", part.len());
        server.asked.lock().unwrap().clear();
    }
    // One that is whole and right wants nothing but its name.
    let mut fetch = Fetch::with_part(&content());
    fetch.run(&server).unwrap();
    fetch.check_whole();
    assert_eq!(ranges(&server), []);
}

#[test]
fn bytes_from_another_place_in_the_file_are_not_appended() {
    let server = serve(|_, _| {
        let headers = vec![("Content-Range", "bytes 0-299999/300000".to_owned()), ("Content-Length", "300000".to_owned())];
        Answer { status: "206 Partial Content", headers, body: content() }
    });
    let mut fetch = Fetch::with_part(&content()[..1000]);
    fetch.check_refused(
        &server,
        expect!["<server>/file.zip: cannot download: Content-Range: wanted one that begins with bytes 1000-, found bytes 0-299999/300000"],
    );
    assert_eq!(fs::metadata(fetch.part()).unwrap().len(), 1000);
}

#[test]
fn a_redirection_is_followed_also_from_the_middle() {
    let file = partial(content(), 120_000);
    let server = serve(move |count, request| match request.path.as_str() {
        "/file.zip" => Answer { status: "302 Found", headers: vec![("Location", "/moved".to_owned())], body: vec![] },
        _ => file(count, request),
    });
    let mut fetch = Fetch::new();
    fetch.run(&server).unwrap();
    fetch.check_whole();
    let from = |start: u32| Some(format!("bytes={start}-"));
    assert_eq!(ranges(&server), [None, None, from(120_000), from(120_000), from(240_000), from(240_000)]);

    let server = serve(|_, _| Answer { status: "302 Found", headers: vec![("Location", "/file.zip".to_owned())], body: vec![] });
    Fetch::new().check_refused(&server, expect!["<server>/file.zip: cannot download: too many redirects"]);
}

/// Some servers call a `.gz` file coded by gzip. It is the file itself that is wanted.
#[test]
fn a_file_is_kept_as_it_is_published() {
    let server = serve(|_, _| {
        let headers = vec![("Content-Encoding", "gzip".to_owned()), ("Content-Length", "300000".to_owned())];
        Answer { status: "200 OK", headers, body: content() }
    });
    let mut fetch = Fetch::new();
    fetch.run(&server).unwrap();
    fetch.check_whole();
    assert_eq!(server.asked.lock().unwrap()[0].headers["accept-encoding"], "identity");
}

#[test]
fn of_several_that_fetch_one_file_the_first_does_it() {
    let server = serve(partial(content(), 50_000));
    let fetch = Fetch::new();
    let (path, url) = (fetch.path(), format!("{}/file.zip", server.address));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| download::fetch(&url, &path, fetch.size, &fetch.sha256, |_, _| {}).unwrap());
        }
    });
    fetch.check_whole();
    assert_eq!(ranges(&server).len(), 6, "as many connections as one of them needs");
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
    Fetch::new().check_refused(&server, expect!["<server>/file.zip: cannot download: http status: 404 Not Found"]);
}

#[test]
fn a_server_whose_certificate_nobody_vouches_for_is_refused() {
    let mut fetch = Fetch::new();
    let commands = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -days 2 \
                    -keyout key.pem -out cert.pem && exec openssl s_server -accept 127.0.0.1:0 -key key.pem -cert cert.pem -www";
    let mut server = Command::new("sh");
    server.args(["-c", commands]).current_dir(fetch.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = server.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned));
    let result = address.as_ref().map(|address| {
        let asked = Arc::default();
        fetch.run(&Server { address: format!("https://{address}"), asked })
    });
    server.kill().unwrap();
    server.wait().unwrap();
    let Some(result) = result else {
        eprintln!("skipped: openssl is no server here");
        return;
    };
    let Error::Download { source, .. } = result.unwrap_err() else { panic!("another error") };
    assert!(source.to_string().contains("invalid peer certificate"), "{source}");
}
