//! Fetches large files: goes on where it was interrupted, and leaves the whole file or none.
//!
//! [`fetch`] is for any file whose size and digest are known, [`named`] for the public data sets that [`Source`](crate::Source) names.

mod named;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use ureq::{Agent, http::StatusCode, http::header};

use crate::{Error, Result};

pub use named::{Published, files, named};

/// A server that says nothing for so long has gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Puts the file at `url`, of `size` bytes with this SHA-256 digest (64 hexadecimal digits), at `path`, and nothing if it is there already.
///
/// What has arrived is kept in `<path>.part`. A connection that breaks is taken up again as long as each one brings something; a later
/// call goes on likewise. Only the whole file with the right digest gets the name `path`. With a wrong digest, or too long, the part is
/// removed: going on with wrong bytes can never end well. `progress` is told the bytes that are there and `size`.
///
/// # Errors
/// When the server refuses, the connection brings nothing more, the disk is full, or size or digest are not as they should be.
pub fn fetch(url: &str, path: impl AsRef<Path>, size: u64, sha256: &str, mut progress: impl FnMut(u64, u64)) -> Result<()> {
    let path = path.as_ref();
    if path.exists() {
        let (length, digest) = digest_of(path)?;
        return check(path, (size, sha256), (length, &hex(digest))).inspect(|()| progress(size, size));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| Error::io(folder, "create", source))?;
    }
    let mut part = Part::open(path)?;
    progress(part.length, size);
    let config =
        Agent::config_builder().timeout_connect(Some(SILENCE)).timeout_recv_response(Some(SILENCE)).timeout_per_read(Some(SILENCE));
    // What is checked and gone on with are the bytes of the file, not of some coding of it.
    let client: Agent = config.accept_encoding("identity").build().into();
    while part.length < size {
        let before = part.length;
        match part.take_from(&client, url, size, &mut progress) {
            // Ended or broken, but something came: the rest may come too.
            Ok(()) | Err(Error::Download { .. }) if part.length > before => {}
            Ok(()) => {
                return Err(Error::format(
                    &part.path,
                    "length",
                    format!("{size} bytes"),
                    format!("{before} bytes, and no more from {url}"),
                ));
            }
            Err(error) => return Err(error),
        }
    }
    part.file.sync_all().map_err(|source| Error::io(&part.path, "write", source))?;
    let digest = hex(part.digest);
    if let Err(error) = check(&part.path, (size, sha256), (part.length, &digest)) {
        fs::remove_file(&part.path).map_err(|source| Error::io(&part.path, "remove", source))?;
        return Err(error);
    }
    fs::rename(&part.path, path).map_err(|source| Error::io(path, "rename the finished download to", source))
}

/// What has arrived.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    digest: Sha256,
}

impl Part {
    fn open(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(|source| Error::io(&path, "create", source))?;
        let (length, digest) = digest_of(&path)?;
        Ok(Self { path, file, length, digest })
    }

    /// Asks for what is missing, and takes what comes until the connection ends.
    fn take_from(&mut self, client: &Agent, url: &str, size: u64, progress: &mut impl FnMut(u64, u64)) -> Result<()> {
        let mut request = client.get(url);
        if self.length > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", self.length));
        }
        let mut response = request.call().map_err(|source| failed(url, "download", source))?;
        // A server that cannot begin in the middle begins at the start, and says so by its status.
        let start = format!("bytes {}-", self.length);
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
            && response.headers().get(header::CONTENT_RANGE).is_some_and(|range| range.as_bytes().starts_with(start.as_bytes()));
        if self.length > 0 && !goes_on {
            self.restart()?;
        }
        let mut buffer = vec![0; 1 << 16];
        let mut body = response.body_mut().as_reader();
        while self.length <= size {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(failed(url, "download", source)),
            };
            self.file.write_all(&buffer[..count]).map_err(|source| Error::io(&self.path, "write", source))?;
            self.digest.update(&buffer[..count]);
            self.length += count as u64;
            progress(self.length, size);
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|source| Error::io(&self.path, "empty", source))?;
        (self.length, self.digest) = (0, Sha256::new());
        Ok(())
    }
}

fn digest_of(path: &Path) -> Result<(u64, Sha256)> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut file = File::open(path).map_err(|source| Error::io(path, "open", source))?;
    let mut length = 0;
    loop {
        match file.read(&mut buffer).map_err(|source| Error::io(path, "read", source))? {
            0 => return Ok((length, digest)),
            count => digest.update(&buffer[..count]),
        }
        length = file.stream_position().map_err(|source| Error::io(path, "read", source))?;
    }
}

fn check(path: &Path, wanted: (u64, &str), found: (u64, &str)) -> Result<()> {
    if found.0 != wanted.0 {
        return Err(Error::format(path, "length", format!("{} bytes", wanted.0), format!("{} bytes", found.0)));
    }
    if !found.1.eq_ignore_ascii_case(wanted.1) {
        return Err(Error::format(path, "sha256", wanted.1, found.1));
    }
    Ok(())
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed(url: &str, action: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Download { url: url.to_owned(), action, source: source.into() }
}
