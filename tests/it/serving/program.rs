//! The program `pipeline serve`, its end, and the client in Python.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use datasets::{Batches, Seed, Values};
use pipeline::augment::Transform;
use pipeline::flight::{Client, Remote};
use pipeline::loader::Config;
use pipeline::{Loader, Store};

use super::{get, pictures, store};
use crate::programs::program;
use crate::python::{environment, succeeds};
use crate::skips::{Lacks, skip};

/// `pipeline serve`, killed with this value.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn new(store: &Store, options: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.arg("serve").arg(store.path()).args(options).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }

    fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// The exit code, once it has ended, which it does soon.
    fn code(&mut self) -> i32 {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Batches of 6 MB: an epoch is more than fits on the way.
fn large() -> Config {
    Config::train(8, vec![Transform::ResizeTo { height: 512, width: 512 }], Seed(0))
}

/// A stream that is open goes on to its end; nobody else gets in; then the server ends, and takes its socket with it.
#[test]
fn it_drains() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&pictures(), folder.path());
    let socket = folder.path().join("flight.sock");
    let mut serving = Serving::new(&store, &["--listen", &format!("unix:{}", socket.display())]);
    assert_eq!(serving.url, format!("grpc+unix://{}", socket.display()));
    let client = Client::connect(&Remote::new(&serving.url), "shapes", large()).unwrap();
    let mut theirs = client.epoch(1, 0);
    let first = theirs.next().unwrap().unwrap();
    serving.terminate();
    let begin = Instant::now();
    while Remote::new(&serving.url).list().is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it lets others in");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(serving.child.try_wait().unwrap().is_none(), "a stream is open");
    let ours = Loader::new(store, large()).unwrap().epoch(1, 0).map(Result::unwrap);
    assert!(std::iter::once(first).chain(theirs.map(Result::unwrap)).eq(ours));
    assert_eq!(serving.code(), 0);
    assert!(!socket.exists());
}

/// It waits for one that reads nothing only so long.
#[test]
fn it_does_not_drain_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&pictures(), folder.path());
    let mut serving = Serving::new(&store, &["--drain", "0"]);
    let client = Client::connect(&Remote::new(&serving.url), "shapes", large()).unwrap();
    let mut batches = client.epoch(0, 0);
    batches.next().unwrap().unwrap();
    serving.terminate();
    assert_eq!(serving.code(), 0);
}

#[test]
fn what_cannot_be_served() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&pictures(), folder.path());
    let said = |arguments: &[&str]| {
        let output = Command::new(program()).arg("serve").arg(store.path()).args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = said(&["--listen", "0.0.0.0:0"]);
    assert_eq!((code, text.lines().last()), (1, Some("error: token: wanted one, since others can reach 0.0.0.0:0, found none")));
    let (code, text) = said(&["--listen", "here"]);
    assert!(code == 2 && text.contains("wanted an address and a port, 127.0.0.1:0, or unix:/a/path"), "{text}");
    let same = store.path().display().to_string();
    let (code, text) = said(&[&same]);
    assert!(code == 1 && text.contains("two data sets are called \"shapes\""), "{text}");
    let (code, text) = said(&["--tls-certificate", "server.pem"]);
    assert!(code == 2 && text.contains("--tls-key"), "{text}");
}

/// Certificates by openssl: the server's is vouched for by an authority that the client knows, or it is not spoken to.
#[test]
fn encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let commands = "
        openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=authority -days 2 -keyout authority.key -out authority.pem &&
        openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=other -days 2 -keyout other.key -out other.pem &&
        openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr &&
        printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > extensions &&
        openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile extensions -out server.pem";
    if !succeeds(Command::new("sh").args(["-c", commands]).current_dir(folder.path())) {
        skip(Lacks::Openssl, "openssl makes no certificates here");
        return;
    }
    let store = store(&pictures(), folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let serving = Serving::new(&store, &["--tls-certificate", &file("server.pem"), "--tls-key", &file("server.key")]);
    assert!(serving.url.starts_with("grpc+tls://127.0.0.1:"), "{}", serving.url);
    let remote = |authority: &str| Remote { authority: Some(std::fs::read(file(authority)).unwrap()), ..Remote::new(&serving.url) };
    assert_eq!(remote("authority.pem").list().unwrap().len(), 2);
    let client = Client::connect(&remote("authority.pem"), "shapes", large()).unwrap();
    assert!(client.epoch(0, 0).map(Result::unwrap).eq(Loader::new(store, large()).unwrap().epoch(0, 0).map(Result::unwrap)));
    assert!(remote("other.pem").list().is_err());
    assert!(Remote::new(&serving.url).list().is_err());
    assert!(Remote::new(serving.url.replace("tls", "tcp")).list().is_err());
}

/// The clients that ship with the program get a loader's batches.
#[test]
fn a_client_in_python() {
    let Some(python) = environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = store(&pictures(), folder.path());
    let token = "0123456789abcdef0123456789abcdef";
    std::fs::write(folder.path().join("token"), format!("{token}\n")).unwrap();
    let file = folder.path().join("token").display().to_string();
    let serving = Serving::new(&store, &["--token-file", &file]);
    let said = |script: &str| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/examples").join(script);
        let output = Command::new(&python).arg(script).args([&serving.url, "shapes", token]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    let loader = Loader::new(store, Config::train(64, vec![Transform::Flip { p: 0.5 }], Seed(0))).unwrap();
    let mut wanted = String::new();
    for epoch in 0..2 {
        for batch in loader.epoch(epoch, 0).map(Result::unwrap) {
            let Values::U8(pixels) = &batch.values else { panic!("pixels") };
            let sum: u64 = pixels.iter().map(|&pixel| u64::from(pixel)).sum();
            let list = |numbers: Vec<String>| numbers[..4].join(" ");
            let labels = list(batch.labels.iter().map(ToString::to_string).collect());
            let indices = list(batch.indices.iter().map(ToString::to_string).collect());
            wanted += &format!("{epoch} uint8 {} 3 12 12 {sum} {labels} {indices}\n", batch.len());
        }
    }
    let words = |line: &str| line.replace(['(', ')', '[', ']', ','], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let scripts = if cfg!(target_os = "linux") { &["client.py", "shared_client.py"][..] } else { &["client.py"] };
    for script in scripts {
        assert_eq!(said(script).lines().map(|line| words(line) + "\n").collect::<String>(), wanted, "{script}");
    }
}

/// The metrics say what was done, in words that Prometheus reads.
#[test]
fn metrics() {
    let server = super::Running::new();
    let client = server.client(super::train(10));
    assert_eq!(super::epoch(&client, 0, 0).len(), 10);
    assert_eq!(server.metric("topolab_images_total{dataset=\"shapes\"}"), 96);
    assert_eq!(server.metric("topolab_image_bytes_total{dataset=\"shapes\"}"), 96 * 3 * 12 * 12);
    assert_eq!(super::epoch(&server.distant(super::train(10)), 0, 0).len(), 10);
    assert_eq!(server.metric("topolab_image_bytes_total{dataset=\"shapes\"}"), 2 * 96 * 3 * 12 * 12);
    let shared = if cfg!(target_os = "linux") { 1 } else { 0 };
    assert_eq!(server.metric("topolab_requests_total{method=\"DoExchange\",outcome=\"answered\"}"), shared);
    assert_eq!(server.metric("topolab_requests_total{method=\"DoGet\",outcome=\"answered\"}"), 2 - shared);
    let text = get(server.metrics, "/metrics");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{text}");
    assert!(get(server.metrics, "/").starts_with("HTTP/1.1 404"));
}
