//! The files of a data set, in a folder or in a `.zip` that need not be unpacked.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use zip::ZipArchive;

use crate::{Dataset, Error, Info, Picture, Result, Sample, Split};

/// A tree of files. Names are relative to its root, with `/` between their components.
#[derive(Debug, Clone)]
pub(crate) enum Files {
    /// In the file system.
    Folder(PathBuf),
    /// In an archive; `root` is empty, or the name of the folder inside it with a `/`.
    Zip { path: PathBuf, archive: ZipArchive<At>, root: String },
}

impl Files {
    /// A folder, or a `.zip`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let file = File::open(path).map_err(|source| Error::io(path, "open", source))?;
        let archive =
            ZipArchive::new(At { file: Arc::new(file), position: 0 }).map_err(|error| Error::io(path, "read as a zip", error.into()))?;
        Ok(Self::Zip { path: path.to_owned(), archive, root: String::new() })
    }

    /// The same, or the single folder that is all there is in it, where `folder` is to be found there only: archives often have one around them.
    pub(crate) fn around(self, folder: &str) -> Result<Self> {
        if self.has_folder(folder) {
            return Ok(self);
        }
        let children = self.folders("")?;
        let [child] = children.as_slice() else { return Ok(self) };
        let inner = match &self {
            Self::Folder(path) => Self::Folder(path.join(child)),
            Self::Zip { path, archive, root } => {
                Self::Zip { path: path.clone(), archive: archive.clone(), root: format!("{root}{child}/") }
            }
        };
        Ok(if inner.has_folder(folder) { inner } else { self })
    }

    /// Where a file is, for messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(path) if name.is_empty() => path.clone(),
            Self::Folder(path) => path.join(name),
            Self::Zip { path, root, .. } => path.join(format!("{root}{name}")),
        }
    }

    pub(crate) fn has_file(&self, name: &str) -> bool {
        match self {
            Self::Folder(path) => path.join(name).is_file(),
            Self::Zip { archive, root, .. } => archive.index_for_name_raw(format!("{root}{name}").as_bytes()).is_some(),
        }
    }

    pub(crate) fn has_folder(&self, name: &str) -> bool {
        match self {
            Self::Folder(path) => path.join(name).is_dir(),
            Self::Zip { archive, root, .. } => {
                let prefix = format!("{root}{name}/");
                archive.file_names_raw().any(|file| file.starts_with(prefix.as_bytes()))
            }
        }
    }

    /// The names of the folders in folder `name` (the root: ``), sorted by their bytes; hidden ones left out.
    pub(crate) fn folders(&self, name: &str) -> Result<Vec<String>> {
        let mut folders = Vec::new();
        match self {
            Self::Folder(_) => {
                for entry in self.entries(name)? {
                    if entry.path().is_dir() {
                        folders.push(self.component(name, &entry)?);
                    }
                }
            }
            Self::Zip { .. } => {
                for file in self.zipped(name)? {
                    if let Some((folder, _)) = file.split_once('/') {
                        folders.push(folder.to_owned());
                    }
                }
            }
        }
        folders.retain(|folder| !folder.starts_with('.') && folder != "__MACOSX");
        folders.sort_unstable();
        folders.dedup();
        Ok(folders)
    }

    /// The picture files below folder `name`, at any depth, sorted by their bytes; hidden ones left out.
    pub(crate) fn pictures(&self, name: &str) -> Result<Vec<String>> {
        let mut pictures = Vec::new();
        match self {
            Self::Folder(_) => self.walk(name, &mut pictures)?,
            Self::Zip { .. } => pictures.extend(self.zipped(name)?.into_iter().map(|file| join(name, &file))),
        }
        pictures.retain(|file| is_picture(file));
        pictures.sort_unstable();
        Ok(pictures)
    }

    /// The names of the files directly in the root, sorted.
    pub(crate) fn top(&self) -> Result<Vec<String>> {
        let mut files = Vec::new();
        match self {
            Self::Folder(_) => {
                for entry in self.entries("")? {
                    if entry.path().is_file() {
                        files.push(self.component("", &entry)?);
                    }
                }
            }
            Self::Zip { .. } => files.extend(self.zipped("")?.into_iter().filter(|file| !file.contains('/'))),
        }
        files.sort_unstable();
        Ok(files)
    }

    /// The bytes of a file.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let failed = |source| Error::io(self.path(name), "read", source);
        match self {
            Self::Folder(path) => fs::read(path.join(name)).map_err(failed),
            Self::Zip { archive, root, .. } => {
                // A clone shares the directory and has a position of its own, so that threads do not wait for one another.
                let mut archive = archive.clone();
                let index = archive.index_for_name_raw(format!("{root}{name}").as_bytes());
                let index = index.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
                let file = archive.by_index(index).map_err(|error| failed(error.into()))?;
                // The archive's directory may lie about the length: memory grows with what arrives, and stops one byte behind it.
                let length = file.size();
                let mut bytes = Vec::new();
                file.take(length.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
                Ok(bytes)
            }
        }
    }

    /// A file of text.
    pub(crate) fn text(&self, name: &str) -> Result<String> {
        String::from_utf8(self.read(name)?).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Error::format(self.path(name), format!("byte {at}"), "UTF-8 text", format!("{:#04x}", error.as_bytes()[at]))
        })
    }

    fn walk(&self, name: &str, files: &mut Vec<String>) -> Result<()> {
        for entry in self.entries(name)? {
            let component = self.component(name, &entry)?;
            let inner = join(name, &component);
            let kind = entry.file_type().map_err(|source| Error::io(entry.path(), "look at", source))?;
            // Large sets are often assembled from links, so links are followed; asking the disk about each picture would be slow.
            if kind.is_dir() || kind.is_symlink() && entry.path().is_dir() {
                self.walk(&inner, files)?;
            } else {
                files.push(inner);
            }
        }
        Ok(())
    }

    fn entries(&self, name: &str) -> Result<Vec<fs::DirEntry>> {
        let path = self.path(name);
        let entries = fs::read_dir(&path).and_then(Iterator::collect);
        entries.map_err(|source| Error::io(path, "list", source))
    }

    fn component(&self, name: &str, entry: &fs::DirEntry) -> Result<String> {
        let found = entry.file_name();
        found.into_string().map_err(|found| Error::format(self.path(name), "name of a file", "UTF-8", found.to_string_lossy()))
    }

    /// The files of the archive below folder `name`, relative to it.
    fn zipped(&self, name: &str) -> Result<Vec<String>> {
        let Self::Zip { path, archive, root } = self else { return Ok(Vec::new()) };
        let prefix = if name.is_empty() { root.clone() } else { format!("{root}{name}/") };
        let mut files = Vec::new();
        for file in archive.file_names_raw().filter(|file| !file.ends_with(b"/")) {
            if let Some(rest) = file.strip_prefix(prefix.as_bytes()) {
                let rest = std::str::from_utf8(rest);
                files.push(rest.map_err(|_| Error::format(path, "name of a file", "UTF-8", String::from_utf8_lossy(file)))?.to_owned());
            }
        }
        Ok(files)
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Whether a name is that of a JPEG or PNG, and not hidden (copies made on a Mac are full of `._n01440764_10026.JPEG`).
pub(crate) fn is_picture(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    !name.starts_with('.') && matches!(ending.as_deref(), Some("jpg" | "jpeg" | "png"))
}

/// A file read at a position of one's own: any number of these share the open file.
#[derive(Debug, Clone)]
pub(crate) struct At {
    file: Arc<File>,
    position: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(&*self.file, buffer, self.position)?;
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(&*self.file, buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for At {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a position before the start of the file"))?;
        Ok(self.position)
    }
}

/// A data set of picture files, each named with its class: what every reader of a tree ends as.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    files: Files,
    info: Info,
    splits: Vec<Vec<(String, u32)>>,
}

impl Listing {
    /// Splits of `(file, class)`, their order that of the samples.
    pub(crate) fn new(name: &str, classes: Vec<String>, files: Files, splits: Vec<(&str, Vec<(String, u32)>)>) -> Self {
        let parts = splits.iter().map(|(name, files)| Split { name: (*name).to_owned(), len: files.len() }).collect();
        let info = Info { name: name.to_owned(), classes, splits: parts };
        Self { files, info, splits: splits.into_iter().map(|(_, files)| files).collect() }
    }
}

impl Dataset for Listing {
    fn info(&self) -> &Info {
        &self.info
    }

    fn get(&self, split: usize, index: usize) -> Result<Sample> {
        let (name, label) = &self.splits[split][index];
        Ok(Sample { picture: Picture::Encoded(self.files.read(name)?), label: *label, name: name.clone() })
    }
}
