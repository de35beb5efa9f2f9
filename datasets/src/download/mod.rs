//! Fetches large files: goes on where it was interrupted, and leaves the whole file or none.
//!
//! [`fetch`] is for any file whose size and digest are known, [`named`] for public data sets by name.

mod named;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use ureq::{
    Agent, Body,
    http::{HeaderMap, HeaderName, Response, StatusCode, header},
};

use crate::{Error, Result};

pub use named::{Published, default_folder, files, named, names, published};

/// A server that says nothing for so long has gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Puts the file at `url`, of `size` bytes with this SHA-256 digest (64 hexadecimal digits), at `path`, and nothing if it is there already.
///
/// What has arrived is kept in `<path>.part`. A connection that breaks is taken up again as long as each one brings something; a later
/// call goes on likewise. Only the whole file with the right digest gets the name `path`. With a wrong digest, or too long, the part is
/// removed: going on with wrong bytes can never end well. If some of them came from an earlier call, the file is fetched once more from
/// its start. Another process that fetches the same file waits for this one. `progress` is told the bytes that are there and `size`.
///
/// # Errors
/// When the server refuses, the connection brings nothing more, the disk is full, or size or digest are not as they should be.
pub fn fetch(url: &str, path: impl AsRef<Path>, size: u64, sha256: &str, progress: impl FnMut(u64, u64)) -> Result<()> {
    fetch_from(&[url.to_owned()], path.as_ref(), &Wanted { size, sha256 }, &client(SILENCE), progress)
}

/// What a file should be.
struct Wanted<'a> {
    size: u64,
    sha256: &'a str,
}

/// Proxies are those that the usual variables of the environment name: this client looks for them.
fn client(silence: Duration) -> Agent {
    let silence = Some(silence);
    let config = Agent::config_builder().timeout_resolve(silence).timeout_connect(silence).timeout_recv_response(silence);
    // What is checked and gone on with are the bytes of the file, not of some coding of it.
    config.timeout_per_read(silence).accept_encoding("identity").http_status_as_error(false).build().into()
}

/// As [`fetch`], from the first of several URLs that hands the file over. What one has begun, the next goes on with.
fn fetch_from(urls: &[String], path: &Path, wanted: &Wanted<'_>, client: &Agent, mut progress: impl FnMut(u64, u64)) -> Result<()> {
    let there = |progress: &mut dyn FnMut(u64, u64)| -> Result<()> {
        wanted.check(path, &Bytes::of(path)?)?;
        progress(wanted.size, wanted.size);
        Ok(())
    };
    if path.exists() {
        return there(&mut progress);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| Error::io(folder, "create", source))?;
    }
    let mut part = Part::open(path)?;
    // Another process may have finished it while this one waited for the part.
    if path.exists() {
        part.remove()?;
        return there(&mut progress);
    }
    progress(part.bytes.length, wanted.size);
    let mut failures = vec![];
    for url in urls {
        let begun = part.bytes.length > 0;
        let mut result = part.complete(client, url, wanted, &mut progress);
        // What was there before may have been wrong. It has been thrown away now.
        if begun && part.bytes.length == 0 && matches!(result, Err(Error::Format { .. })) {
            result = part.complete(client, url, wanted, &mut progress);
        }
        match result {
            Ok(()) => {
                return fs::rename(&part.path, path).map_err(|source| Error::io(path, "rename the finished download to", source));
            }
            // Another server may have what this one has not. What is wrong with this machine is wrong for all of them.
            Err(error @ (Error::Download { .. } | Error::Format { .. })) => failures.push(error),
            Err(error) => return Err(error),
        }
    }
    if part.bytes.length == 0 {
        part.remove()?;
    }
    Err(match failures.len() {
        1 => failures.remove(0),
        _ => {
            let reasons: Vec<String> = urls.iter().zip(&failures).map(|(url, error)| format!("{url}: {}", reason(error, url))).collect();
            failed(&path.display().to_string(), "download from any server", reasons.join("; "))
        }
    })
}

/// What to say of a failure after the URL.
fn reason(error: &Error, url: &str) -> String {
    match error {
        Error::Download { source, .. } => source.to_string(),
        error => {
            let text = error.to_string();
            text.strip_prefix(&format!("{url}: ")).unwrap_or(&text).to_owned()
        }
    }
}

/// How many bytes there are, and their digest.
struct Bytes {
    length: u64,
    digest: Sha256,
}

impl Bytes {
    fn of(path: &Path) -> Result<Self> {
        let mut bytes = Self { length: 0, digest: Sha256::new() };
        let mut buffer = vec![0; 1 << 16];
        let mut file = File::open(path).map_err(|source| Error::io(path, "open", source))?;
        loop {
            match file.read(&mut buffer).map_err(|source| Error::io(path, "read", source))? {
                0 => return Ok(bytes),
                count => bytes.add(&buffer[..count]),
            }
        }
    }

    fn add(&mut self, some: &[u8]) {
        self.length += some.len() as u64;
        self.digest.update(some);
    }

    fn hex(&self) -> String {
        self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Wanted<'_> {
    fn check(&self, path: &Path, found: &Bytes) -> Result<()> {
        self.check_length(path, found.length)?;
        let digest = found.hex();
        if !digest.eq_ignore_ascii_case(self.sha256) {
            return Err(Error::format(path, "sha256", self.sha256, digest));
        }
        Ok(())
    }

    fn check_length(&self, whose: &Path, found: u64) -> Result<()> {
        if found != self.size {
            return Err(Error::format(whose, "length", format!("{} bytes", self.size), format!("{found} bytes")));
        }
        Ok(())
    }
}

/// What has arrived, in a file that no other process writes to.
struct Part {
    path: PathBuf,
    file: File,
    bytes: Bytes,
}

impl Part {
    fn open(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        loop {
            let file = OpenOptions::new().append(true).create(true).open(&path).map_err(|source| Error::io(&path, "create", source))?;
            // Where the file system has no locks, there is one process at a time, or the digest will be wrong.
            let _ = file.lock();
            // The process that had the lock may have renamed or removed the file meanwhile.
            let [opened, named] = [file.metadata(), fs::metadata(&path)].map(|metadata| metadata.map(|m| (m.dev(), m.ino())).ok());
            if opened == named {
                let bytes = Bytes::of(&path)?;
                return Ok(Self { path, file, bytes });
            }
        }
    }

    /// Asks until all is there and right, or no more comes. What is wrong is thrown away.
    fn complete(&mut self, client: &Agent, url: &str, wanted: &Wanted<'_>, progress: &mut impl FnMut(u64, u64)) -> Result<()> {
        while self.bytes.length < wanted.size {
            let before = self.bytes.length;
            match self.take_from(client, url, wanted, progress) {
                // Ended or broken, but something came: the rest may come too.
                Ok(()) | Err(Error::Download { .. }) if self.bytes.length > before => {}
                Ok(()) => {
                    let found = format!("{} bytes, and no more", self.bytes.length);
                    return Err(Error::format(url, "length", format!("{} bytes", wanted.size), found));
                }
                Err(error) => return Err(error),
            }
        }
        self.file.sync_all().map_err(|source| Error::io(&self.path, "write", source))?;
        let checked = match self.bytes.length > wanted.size {
            true => Err(Error::format(url, "length", format!("{} bytes", wanted.size), "more")),
            false => wanted.check(Path::new(url), &self.bytes),
        };
        checked.or_else(|error| self.restart().and(Err(error)))
    }

    /// Asks for what is missing, and takes what comes until the connection ends.
    fn take_from(&mut self, client: &Agent, url: &str, wanted: &Wanted<'_>, progress: &mut impl FnMut(u64, u64)) -> Result<()> {
        let start = self.bytes.length;
        let mut request = client.get(url);
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        let mut response = request.call().map_err(|source| failed(url, "download", source))?;
        if self.goes_on(&response, url, wanted)? {
            self.append(response.body_mut(), url, wanted, progress)?;
        }
        Ok(())
    }

    /// Whether a response has bytes to append; none are left of what was there, if it begins at the start of the file.
    fn goes_on(&mut self, response: &Response<Body>, url: &str, wanted: &Wanted<'_>) -> Result<bool> {
        let start = self.bytes.length;
        let whole = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = text(response.headers(), &header::CONTENT_RANGE).unwrap_or("none");
                let total = range.strip_prefix(&format!("bytes {start}-")).and_then(|rest| rest.split_once('/'));
                let Some((_, total)) = total else {
                    let found = format!("Content-Range: wanted one that begins with bytes {start}-, found {range}");
                    return Err(failed(url, "download", found));
                };
                total.parse().ok()
            }
            StatusCode::OK => text(response.headers(), &header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            // Its file ends where the part does.
            StatusCode::RANGE_NOT_SATISFIABLE if start > 0 => return Ok(false),
            status => return Err(failed(url, "download", format!("http status: {status}"))),
        };
        // Another file, or a page that says something else. What is here may still be right.
        whole.map_or(Ok(()), |whole| wanted.check_length(Path::new(url), whole))?;
        if start > 0 && response.status() == StatusCode::OK {
            // A server that cannot begin in the middle begins at the start.
            self.restart()?;
        }
        Ok(true)
    }

    fn append(&mut self, body: &mut Body, url: &str, wanted: &Wanted<'_>, progress: &mut impl FnMut(u64, u64)) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut body = body.as_reader();
        // One byte more than is wanted shows that there are too many.
        while self.bytes.length <= wanted.size {
            let room = (wanted.size + 1 - self.bytes.length).min(buffer.len() as u64) as usize;
            let count = match body.read(&mut buffer[..room]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(failed(url, "download", source)),
            };
            self.file.write_all(&buffer[..count]).map_err(|source| Error::io(&self.path, "write", source))?;
            self.bytes.add(&buffer[..count]);
            progress(self.bytes.length, wanted.size);
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|source| Error::io(&self.path, "empty", source))?;
        self.bytes = Bytes { length: 0, digest: Sha256::new() };
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|source| Error::io(&self.path, "remove", source))
    }
}

/// A header's value, where it is text.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn failed(url: &str, action: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Download { url: url.to_owned(), action, source: source.into() }
}

#[cfg(test)]
mod tests {
    use std::{io::BufRead, net::TcpListener, thread};

    use super::*;

    #[test]
    fn a_server_that_falls_silent_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/a", listener.local_addr().unwrap());
        // Says half of what it promises, and then, asked for the rest, nothing; it keeps all connections open.
        thread::spawn(move || {
            let mut open = vec![];
            for stream in listener.incoming().map_while(Result::ok) {
                io::BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).count();
                if open.is_empty() {
                    (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc").unwrap();
                }
                open.push(stream);
            }
        });
        let folder = std::env::temp_dir().join(format!("topolab-silence-{}", std::process::id()));
        let path = folder.join("a");
        let wanted = Wanted { size: 6, sha256: "" };
        let error = fetch_from(std::slice::from_ref(&url), &path, &wanted, &client(Duration::from_millis(300)), |_, _| {}).unwrap_err();
        let Error::Download { url: named, source, .. } = error else { panic!("{error}") };
        assert_eq!((named, source.to_string().starts_with("timeout: ")), (url, true), "{source}");
        assert_eq!(fs::read(folder.join("a.part")).unwrap(), b"abc");
        fs::remove_dir_all(folder).unwrap();
    }
}
