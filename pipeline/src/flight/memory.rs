//! Memory that a server shares with a client on the same machine: batches are made in it and read in it, and nobody copies them.
//!
//! The server makes a file without a name that lies in memory alone, cut into slots of a batch each, and says where its process has it open.
//! A client finds it there, as `/proc/PROCESS/fd/FILE`, which the system shows to processes of the same user, and maps it for reading. The
//! file goes when nobody has it open or mapped any more, however everybody ended. Linux has such files; elsewhere the network carries batches.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use datasets::Buffer;
use memmap2::{MmapOptions, MmapRaw};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use super::protocol::Word;

/// Slots begin at multiples of it: of the pages of any machine, and of what numbers are aligned to.
const PAGE: usize = 16 << 10;
/// Mappings begin at multiples of it on any machine, and so do slots.
const MOST_ALIGNED: usize = 4 << 10;
/// Batches that a client may have at a time. One that wants to keep more copies them: those that it reads ahead and has in hand are two.
pub(super) const MOST_LENT: usize = 3;

/// Where to find a server's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    process: u32,
    file: RawFd,
    /// By which the file is known to be the one that is meant: a port of this machine may lead to another, and each container numbers its
    /// processes anew. This is another each time a machine starts.
    boot: String,
    device: u64,
    inode: u64,
    bytes: u64,
}

/// A server's memory for the batches of one stream.
#[derive(Debug)]
pub(super) struct Memory {
    offer: Offer,
    map: MmapRaw,
    /// Clients find it open.
    _file: File,
    /// Bytes of a slot.
    slot: usize,
    /// Where the slots begin that nobody has.
    free: Mutex<Vec<usize>>,
}

/// A place for one batch, which goes back to its [`Memory`] when this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    memory: Arc<Memory>,
    at: usize,
}

impl Memory {
    /// Memory for `slots` batches of `bytes`; what is never used takes none.
    ///
    /// # Errors
    /// When the system has no such files, or no more of them, or when no file can be so large.
    pub(super) fn new(slots: usize, bytes: usize) -> Result<Arc<Self>> {
        let Some([slot, all]) = sizes(slots, bytes) else {
            return Err(Error::new(ErrorKind::OutOfMemory, format!("wanted memory for {slots} batches of {bytes} bytes")));
        };
        let file = unnamed()?;
        file.set_len(all as u64)?;
        let map = MmapOptions::new().len(all).map_raw(&file)?;
        seal(&file)?;
        let free = (0..slots).rev().map(|number| number * slot).collect();
        let about = file.metadata()?;
        let offer = Offer {
            process: std::process::id(),
            file: file.as_raw_fd(),
            boot: boot()?,
            device: about.dev(),
            inode: about.ino(),
            bytes: about.len(),
        };
        Ok(Arc::new(Self { offer, map, _file: file, slot, free: Mutex::new(free) }))
    }

    /// Where clients find it.
    pub(super) fn offer(&self) -> &Offer {
        &self.offer
    }

    /// A slot that nobody has, if there is one.
    pub(super) fn slot(self: &Arc<Self>) -> Option<Slot> {
        let at = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Slot { memory: Arc::clone(self), at })
    }

    /// Where these bytes lie, which are a slot's.
    pub(super) fn place(&self, bytes: &[u8]) -> usize {
        let at = bytes.as_ptr().addr().checked_sub(self.map.as_ptr().addr());
        let at = at.filter(|at| at.checked_add(bytes.len()).is_some_and(|end| end <= self.map.len()));
        at.expect("a batch that is sent by its place was made in a slot")
    }
}

/// Bytes of a slot for a batch of `bytes`, and of all slots; `None` where there are no such numbers.
fn sizes(slots: usize, bytes: usize) -> Option<[usize; 2]> {
    let slot = bytes.max(1).checked_next_multiple_of(PAGE)?;
    // A slice has at most so many bytes, and a file's length is signed.
    let all = slots.checked_mul(slot).filter(|&all| isize::try_from(all).is_ok())?;
    Some([slot, all])
}

/// Whether `numbers` elements of `size` bytes from byte `at` on begin where a slot may, and end within `len` bytes.
fn lies_within(len: usize, at: usize, numbers: usize, size: usize) -> bool {
    let end = numbers.checked_mul(size).and_then(|bytes| at.checked_add(bytes));
    at.is_multiple_of(PAGE) && end.is_some_and(|end| end <= len)
}

impl AsRef<[u8]> for Slot {
    fn as_ref(&self) -> &[u8] {
        #[expect(unsafe_code, reason = "only this module knows that slots do not overlap")]
        // SAFETY: the slot lies within the mapping, which has `slots` of them (`Memory::new`) and lives as long as it. No other `Slot` has the same
        // bytes: a place is in `free` or in one `Slot`. Nobody else writes to them: the file was sealed, so that no other process can map it for
        // writing, and this one has mapped it once.
        unsafe {
            slice::from_raw_parts(self.memory.map.as_ptr().add(self.at), self.memory.slot)
        }
    }
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        #[expect(unsafe_code, reason = "only this module knows that slots do not overlap")]
        // SAFETY: as above, and this borrow is the only one, `Slot` being no `Clone`. What a client still reads is in a batch that `sharing` keeps,
        // with its `Slot`, until the client gives it back; so a client that keeps to the protocol sees no change. One that does not reads
        // other elements than it was sent, in its own process.
        unsafe {
            slice::from_raw_parts_mut(self.memory.map.as_mut_ptr().add(self.at), self.memory.slot)
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut free = self.memory.free.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(!free.contains(&self.at), "the slot at byte {} goes back twice", self.at);
        free.push(self.at);
    }
}

/// A server's memory, as its client has it: to be read.
#[derive(Debug)]
pub(super) struct Mapping {
    map: MmapRaw,
    /// Buffers that read from it now.
    lent: AtomicUsize,
    /// Tells the server that it is open, and which slot is free again.
    words: UnboundedSender<Word>,
}

impl Mapping {
    /// The memory that a server offers, which is told so, and later, which slots were read.
    ///
    /// # Errors
    /// When it is not to be found from here, as from another container or by another user, or not sealed.
    pub(super) fn open(offer: &Offer, words: UnboundedSender<Word>) -> Result<Arc<Self>> {
        if boot()? != offer.boot {
            return Err(Error::new(ErrorKind::NotFound, "the server is on another machine"));
        }
        let path = format!("/proc/{}/fd/{}", offer.process, offer.file);
        // It is looked at before it is opened: what else is called so may be anything.
        let found = fs::metadata(&path)?;
        if !found.is_file() || (found.dev(), found.ino(), found.len()) != (offer.device, offer.inode, offer.bytes) {
            return Err(Error::new(ErrorKind::NotFound, format!("{path}: another file than the server's")));
        }
        let file = File::open(&path)?;
        if !is_sealed(&file)? {
            return Err(Error::new(ErrorKind::PermissionDenied, format!("{path}: could become shorter while it is read")));
        }
        let len = usize::try_from(offer.bytes).map_err(Error::other)?;
        let map = MmapOptions::new().len(len).map_raw_read_only(&file)?;
        // Without a stream there is nobody to be told, here as below.
        let _ = words.send(Word::Opened);
        Ok(Arc::new(Self { map, lent: AtomicUsize::new(0), words }))
    }

    /// The `numbers` numbers that begin at byte `at`, where they lie if not too many are read there already; `None` if they are outside.
    pub(super) fn buffer<T: Pod + Send + Sync>(self: &Arc<Self>, at: usize, numbers: usize) -> Option<Buffer<T>> {
        const { assert!(align_of::<T>() <= MOST_ALIGNED) };
        if !lies_within(self.map.len(), at, numbers, size_of::<T>()) {
            return None;
        }
        let loan = Loan { mapping: Arc::clone(self), at, numbers, _numbers: PhantomData };
        let before = self.lent.fetch_add(1, Ordering::Relaxed);
        // The server sends no more to a client that keeps them all.
        Some(if before < MOST_LENT - 1 { Buffer::lent(loan) } else { loan.as_ref().to_vec().into() })
    }
}

/// Numbers of a batch, which nobody writes to before this is dropped.
struct Loan<T> {
    mapping: Arc<Mapping>,
    at: usize,
    numbers: usize,
    _numbers: PhantomData<T>,
}

impl<T: Pod> AsRef<[T]> for Loan<T> {
    fn as_ref(&self) -> &[T] {
        #[expect(unsafe_code, reason = "only this module knows that the server leaves them as they are")]
        // SAFETY: they lie within the mapping, as `Mapping::buffer` checked, which lives as long as this, of a file that cannot become shorter, as
        // `Mapping::open` checked. The server writes to the slot again once it was told to, which `drop` does: it is trusted in this, being
        // a process of the same user, whose files the system shows to no other.
        let bytes = unsafe { slice::from_raw_parts(self.mapping.map.as_ptr().add(self.at), self.numbers * size_of::<T>()) };
        bytemuck::cast_slice(bytes)
    }
}

impl<T> Drop for Loan<T> {
    fn drop(&mut self) {
        self.mapping.lent.fetch_sub(1, Ordering::Relaxed);
        let _ = self.mapping.words.send(Word::Returned(self.at));
    }
}

/// What the system calls itself since it started.
fn boot() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A new file in memory that has no name.
#[cfg(target_os = "linux")]
fn unnamed() -> Result<File> {
    use std::os::fd::{FromRawFd, OwnedFd};
    #[expect(unsafe_code, reason = "the standard library has no name for it")]
    // SAFETY: the name ends with a zero; the file that comes back is nobody else's.
    let file = unsafe {
        match libc::memfd_create(c"topolab".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) {
            -1 => return Err(Error::last_os_error()),
            file => OwnedFd::from_raw_fd(file),
        }
    };
    Ok(file.into())
}

/// Keeps a file's length for good, and all but those who have it mapped by now from writing to it.
#[cfg(target_os = "linux")]
fn seal(file: &File) -> Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;
    #[expect(unsafe_code, reason = "the standard library has no name for it")]
    // SAFETY: the descriptor is open as long as `file`; this command takes a number and touches no memory of this process.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        -1 => Err(Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether a file cannot become shorter.
#[cfg(target_os = "linux")]
fn is_sealed(file: &File) -> Result<bool> {
    #[expect(unsafe_code, reason = "the standard library has no name for it")]
    // SAFETY: the descriptor is open as long as `file`; this command takes nothing and touches no memory of this process.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) } {
        -1 => Err(Error::last_os_error()),
        seals => Ok(seals & libc::F_SEAL_SHRINK != 0),
    }
}

#[cfg(not(target_os = "linux"))]
fn unnamed() -> Result<File> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn seal(_: &File) -> Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn is_sealed(_: &File) -> Result<bool> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
