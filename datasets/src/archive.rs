//! The files in a `.zip` or `.tar`, read where they lie: nothing is unpacked to the disk.
//!
//! A `.zip` has a directory, and the headers of a plain `.tar` are gone through once, so that both are read at any place by any number
//! of threads. A compressed `.tar` has only one way to be read, from its start; see [`stream`](crate::stream).

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use zip::ZipArchive;

use crate::{Error, Result, files::is_picture, stream::Stream, unpack};

/// Bytes of the longest file that is read from an archive: far beyond any picture, and a bound for what small archives may swell to.
pub(crate) const LONGEST: u64 = 1 << 30;

/// An archive that is open.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    /// Sorted by their names' bytes, each name once: the last entry of a name is the one that counts.
    entries: Vec<Entry>,
    source: Source,
}

#[derive(Debug)]
struct Entry {
    name: String,
    place: Place,
}

/// Where a file is: in a zip its number, in a tar its first byte, in a compressed tar the number of files before it; and how long it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) at: u64,
    len: u64,
}

#[derive(Debug)]
enum Source {
    Zip(ZipArchive<Section>),
    Tar(Section),
    Stream(Mutex<Stream>),
}

impl Archive {
    /// The archive at `path`; its ending says which kind.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (mut entries, source) = match path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("tar") => list_tar(path)?,
            Some("gz" | "tgz" | "xz" | "txz") => list_stream(path)?,
            _ => list_zip(path)?,
        };
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.reverse();
        entries.dedup_by(|a, b| a.name == b.name);
        entries.reverse();
        Ok(Self { path: path.to_owned(), entries, source })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The names that begin with `prefix`, sorted.
    pub(crate) fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let first = self.entries.partition_point(|entry| entry.name.as_str() < prefix);
        self.entries[first..].iter().map(|entry| entry.name.as_str()).take_while(move |name| name.starts_with(prefix))
    }

    /// In an archive that can be read from its start only: the place of a file, by which samples are best ordered.
    pub(crate) fn rank(&self, name: &str) -> Option<u64> {
        matches!(self.source, Source::Stream(_)).then(|| self.find(name).map(|place| place.at))?
    }

    /// The bytes of a file.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let place = self.find(name).ok_or(io::ErrorKind::NotFound)?;
        if place.len > LONGEST {
            return Err(io::Error::other(format!("wanted at most {LONGEST} bytes, found {}", place.len)));
        }
        match &self.source {
            Source::Zip(archive) => {
                // A clone shares the directory and has a position of its own, so that threads do not wait for one another.
                let mut archive = archive.clone();
                let file = archive.by_index(place.at as usize)?;
                // The directory may lie about the length: memory grows with what arrives, and stops one byte behind it.
                let mut bytes = Vec::new();
                file.take(place.len + 1).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            Source::Tar(file) => {
                let mut bytes = vec![0; place.len as usize];
                file.within(place.at, place.len).read_exact(&mut bytes)?;
                Ok(bytes)
            }
            Source::Stream(stream) => stream.lock().map_err(|_| io::Error::other("an earlier read failed"))?.get(place.at),
        }
    }

    fn find(&self, name: &str) -> Option<Place> {
        let at = self.entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        Some(self.entries[at].place)
    }
}

fn list_zip(path: &Path) -> Result<(Vec<Entry>, Source)> {
    let failed = |error: zip::result::ZipError| Error::io(path, "read as a zip", error.into());
    let archive = ZipArchive::new(Section::open(path)?).map_err(failed)?;
    let mut entries = Vec::with_capacity(archive.len());
    for at in 0..archive.len() {
        let entry = archive.by_index_data(at).map_err(failed)?;
        if entry.is_dir() {
            continue;
        }
        let name = inner_name(path, entry.name_raw())?;
        if entry.is_symlink() {
            return Err(Error::format(path, name, "a file", "a link"));
        }
        entries.push(Entry { name, place: Place { at: at as u64, len: entry.size() } });
    }
    Ok((entries, Source::Zip(archive)))
}

fn list_tar(path: &Path) -> Result<(Vec<Entry>, Source)> {
    let file = Section::open(path)?;
    let mut entries = Vec::new();
    walk_tar(path, &file, "", &mut entries)?;
    Ok((entries, Source::Tar(file)))
}

/// A tar within a tar counts as a folder: ImageNet's is published as one of a thousand.
fn walk_tar(path: &Path, section: &Section, folder: &str, entries: &mut Vec<Entry>) -> Result<()> {
    let failed = |source| Error::io(path, "list", source);
    let mut archive = tar::Archive::new(section.clone());
    let mut end = 0;
    for entry in archive.entries_with_seek().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let place = Place { at: section.start + entry.raw_file_position(), len: entry.size() };
        end = (entry.raw_file_position() + entry.size()).next_multiple_of(512);
        let Some(name) = file_name(path, &entry)? else { continue };
        let name = format!("{folder}{name}");
        match name.strip_suffix(".tar") {
            Some(name) if folder.is_empty() => walk_tar(path, &section.within(place.at, place.len), &format!("{name}/"), entries)?,
            _ => entries.push(Entry { name, place }),
        }
    }
    // The reader takes the end of the file for that of the archive, which has a mark of its own: a block of zeros.
    if end + 512 > section.len {
        let place = if folder.is_empty() { path.to_owned() } else { path.join(folder) };
        return Err(Error::format(place, "length", format!("at least {} bytes", end + 512), section.len));
    }
    Ok(())
}

fn list_stream(path: &Path) -> Result<(Vec<Entry>, Source)> {
    let (mut entries, mut texts): (Vec<Entry>, _) = (Vec::new(), Vec::new());
    walk_stream(path, &mut |name, place, bytes| {
        // Lists of classes and labels: to look at one later would mean to unpack everything before it once more.
        if !is_picture(name) && place.len <= TEXT {
            let mut text = Vec::new();
            bytes.read_to_end(&mut text)?;
            texts.push((place.at, text));
        }
        entries.push(Entry { name: name.to_owned(), place });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((entries, Source::Stream(Mutex::new(Stream::new(path, texts)))))
}

/// What is done with each file of a compressed tar: its name, its place, its bytes.
type Visit<'v> = dyn FnMut(&str, Place, &mut dyn Read) -> io::Result<ControlFlow<()>> + 'v;

/// Goes through the files of a compressed tar in their order, until one of them is the last that is wanted. A tar within it counts as a
/// folder, as in one that is not compressed.
pub(crate) fn walk_stream(path: &Path, visit: &mut Visit<'_>) -> Result<()> {
    walk_packed(path, &mut unpack::open(path)?, "", &mut 0, visit).map(drop)
}

fn walk_packed(path: &Path, packed: &mut dyn Read, folder: &str, number: &mut u64, visit: &mut Visit<'_>) -> Result<ControlFlow<()>> {
    let mut last = folder.to_owned();
    let failed = |name: &str, error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::format(path.join(name), "end of the file", "the rest of the archive", "a cut"),
        _ => Error::io(path, "unpack", error),
    };
    let mut archive = tar::Archive::new(packed);
    for entry in archive.entries().map_err(|error| failed(&last, error))? {
        let mut entry = entry.map_err(|error| failed(&last, error))?;
        let place = Place { at: *number, len: entry.size() };
        *number += 1;
        let Some(name) = file_name(path, &entry)? else { continue };
        let name = format!("{folder}{name}");
        let went = match name.strip_suffix(".tar") {
            Some(name) if folder.is_empty() => walk_packed(path, &mut entry, &format!("{name}/"), number, visit)?,
            _ => visit(&name, place, &mut entry).map_err(|error| failed(&name, error))?,
        };
        if went.is_break() {
            return Ok(went);
        }
        last = name;
    }
    Ok(ControlFlow::Continue(()))
}

/// Bytes of the longest file of another kind that is kept in memory: some times ImageNet's labels.
const TEXT: u64 = 1 << 22;

/// The name of an entry that is a file; none of a folder, and of what only describes the archive.
///
/// # Errors
/// Of a link, a device, and of what else only a disk can hold.
pub(crate) fn file_name(path: &Path, entry: &tar::Entry<'_, impl Read>) -> Result<Option<String>> {
    let kind = entry.header().entry_type();
    if kind.is_dir() || kind.is_pax_global_extensions() {
        return Ok(None);
    }
    let name = inner_name(path, &entry.path_bytes())?;
    if kind.is_file() || kind.is_contiguous() {
        return Ok((!entry.path_bytes().ends_with(b"/")).then_some(name));
    }
    let found = if kind.is_symlink() || kind.is_hard_link() { "a link".to_owned() } else { format!("an entry of kind {:?}", kind) };
    Err(Error::format(path, name, "a file", found))
}

/// A name as `folder/file`. One that leads out of the archive is refused, though nothing is ever written by it: an archive that has such
/// a name is not what it seems.
fn inner_name(path: &Path, name: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(name).map_err(|_| Error::format(path, "name of a file", "UTF-8", String::from_utf8_lossy(name)))?;
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if text.starts_with('/') || parts.contains(&"..") || text.contains('\0') {
        return Err(Error::format(path, "name of a file", "one within the archive", format!("{text:?}")));
    }
    Ok(parts.join("/"))
}

/// A part of a file, read at a position of one's own: any number of these share the open file.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    file: Arc<File>,
    start: u64,
    len: u64,
    position: u64,
}

impl Section {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::io(path, "open", source))?;
        let len = file.metadata().map_err(|source| Error::io(path, "open", source))?.len();
        Ok(Self { file: Arc::new(file), start: 0, len, position: 0 })
    }

    /// So many bytes of the file from `start` on, whatever the length of this section.
    fn within(&self, start: u64, len: u64) -> Self {
        Self { file: Arc::clone(&self.file), start, len, position: 0 }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.len.saturating_sub(self.position)).unwrap_or(usize::MAX));
        let (buffer, at) = (&mut buffer[..most], self.start + self.position);
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(&*self.file, buffer, at)?;
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(&*self.file, buffer, at)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a position before the start of the file"))?;
        Ok(self.position)
    }
}
