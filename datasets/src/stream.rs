//! The pictures of a compressed `.tar`, which can only be unpacked from its start.
//!
//! A thread unpacks and hands over one file after the other; it waits while nobody takes them. Who asks in about the order of the archive,
//! as a conversion does, is served by one pass; who asks for something that has gone by makes it start again.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use crate::{
    Result,
    archive::{LONGEST, walk_stream},
    files::is_picture,
};

/// Files that wait for someone to take them.
const WAITING: usize = 16;

/// Bytes of files that came before they were asked for: what some tens of threads, each a few pictures ahead, ask for out of order.
const AHEAD: usize = 256 << 20;

/// A file by its number in the archive, and its bytes.
type File = (u64, Vec<u8>);

/// A place in a compressed archive.
#[derive(Debug)]
pub(crate) struct Stream {
    path: PathBuf,
    /// Files that are no pictures, by number.
    texts: BTreeMap<u64, Vec<u8>>,
    pictures: Option<Receiver<Result<File>>>,
    /// The number of the file behind the last that was received.
    next: u64,
    ahead: BTreeMap<u64, Vec<u8>>,
    ahead_bytes: usize,
}

impl Stream {
    pub(crate) fn new(path: &Path, texts: Vec<(u64, Vec<u8>)>) -> Self {
        let texts = texts.into_iter().collect();
        Self { path: path.to_owned(), texts, pictures: None, next: 0, ahead: BTreeMap::new(), ahead_bytes: 0 }
    }

    /// File `number` of the archive.
    pub(crate) fn get(&mut self, number: u64) -> io::Result<Vec<u8>> {
        if let Some(text) = self.texts.get(&number) {
            return Ok(text.clone());
        }
        if let Some(bytes) = self.ahead.remove(&number) {
            self.ahead_bytes -= bytes.len();
            return Ok(bytes);
        }
        if number < self.next {
            self.pictures = None;
            self.next = 0;
        }
        loop {
            let pictures = self.pictures.get_or_insert_with(|| {
                let (sender, receiver) = sync_channel(WAITING);
                let path = self.path.clone();
                std::thread::spawn(move || unpack_all(&path, &sender));
                receiver
            });
            let Ok(received) = pictures.recv() else {
                self.pictures = None;
                self.next = 0;
                return Err(io::Error::other("the archive has changed: it ends before this file"));
            };
            let (found, bytes) = received.map_err(io::Error::other)?;
            self.next = found + 1;
            if found == number {
                return Ok(bytes);
            }
            self.ahead_bytes += bytes.len();
            if let Some(same) = self.ahead.insert(found, bytes) {
                self.ahead_bytes -= same.len();
            }
            while self.ahead_bytes > AHEAD {
                let Some((_, oldest)) = self.ahead.pop_first() else { break };
                self.ahead_bytes -= oldest.len();
            }
        }
    }
}

/// Hands over the pictures of the archive, each with its number, until nobody takes them.
fn unpack_all(path: &Path, pictures: &SyncSender<Result<(u64, Vec<u8>)>>) {
    let unpacked = walk_stream(path, &mut |name, place, bytes| {
        if is_picture(name) {
            let mut picture = Vec::new();
            bytes.take(LONGEST).read_to_end(&mut picture)?;
            if pictures.send(Ok((place.at, picture))).is_err() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    });
    if let Err(error) = unpacked {
        // Whoever waits hears of it; where nobody does, nobody misses it.
        let _ = pictures.send(Err(error));
    }
}
