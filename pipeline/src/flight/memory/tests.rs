//! Memory of one process, offered to itself.

use std::io::Write;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

fn open(offer: &Offer) -> (Result<Arc<Mapping>>, UnboundedReceiver<Word>) {
    let (sender, receiver) = unbounded_channel();
    (Mapping::open(offer, sender), receiver)
}

#[test]
fn sizes_do_not_wrap_around() {
    assert_eq!(sizes(3, 5), Some([PAGE, 3 * PAGE]));
    assert_eq!(sizes(3, PAGE + 1), Some([2 * PAGE, 6 * PAGE]));
    assert_eq!(sizes(7, 0), Some([PAGE, 7 * PAGE]));
    // Two halves of all addresses are none at all, and the largest number of bytes does not fit into whole pages.
    for (slots, bytes) in [(2, usize::MAX / 2 + 1), (1, usize::MAX), (1, usize::MAX / 2 + 1), (usize::MAX, PAGE)] {
        assert_eq!(sizes(slots, bytes), None, "{slots} slots of {bytes} bytes");
    }
}

#[test]
fn places_lie_within() {
    for (at, numbers, size) in [(0, 2 * PAGE, 1), (PAGE, PAGE / 4, 4), (2 * PAGE, 0, 4)] {
        assert!(lies_within(2 * PAGE, at, numbers, size), "{numbers} of {size} bytes from {at} on");
    }
    let wraps = usize::MAX - PAGE + 1;
    for (at, numbers, size) in [(0, 2 * PAGE + 1, 1), (PAGE, PAGE / 4 + 1, 4), (4, 1, 4), (wraps, PAGE, 1), (0, usize::MAX / 4 + 1, 4)] {
        assert!(!lies_within(2 * PAGE, at, numbers, size), "{numbers} of {size} bytes from {at} on");
    }
}

#[test]
fn more_memory_than_there_can_be_is_an_error() {
    assert_eq!(Memory::new(2, usize::MAX / 2 + 1).unwrap_err().kind(), ErrorKind::OutOfMemory);
}

#[test]
fn slots_are_everybodys_once() {
    let memory = Memory::new(3, 5).unwrap();
    let slots: Vec<Slot> = std::iter::from_fn(|| memory.slot()).collect();
    let mut places: Vec<usize> = slots.iter().map(|slot| memory.place(slot.as_ref())).collect();
    places.sort_unstable();
    assert_eq!(places, [0, PAGE, 2 * PAGE]);
    drop(slots.into_iter().nth(1));
    assert!(memory.slot().is_some());
}

#[test]
fn what_is_written_is_read_until_it_goes_back() {
    let memory = Memory::new(4, 8).unwrap();
    let mut slots: Vec<Slot> = std::iter::from_fn(|| memory.slot()).collect();
    for (number, slot) in slots.iter_mut().enumerate() {
        slot.as_mut()[..8].copy_from_slice(bytemuck::cast_slice(&[number as f32, 0.5]));
    }
    let (mapping, mut returned) = open(memory.offer());
    let mapping = mapping.unwrap();
    let read = |slot: &Slot| mapping.buffer::<f32>(memory.place(slot.as_ref()), 2).unwrap();
    let mut buffers: Vec<Buffer<f32>> = slots.iter().map(read).collect();
    assert!(buffers.iter().enumerate().all(|(number, buffer)| buffer[..] == [number as f32, 0.5]));
    assert_eq!(returned.try_recv(), Ok(Word::Opened));
    // Two are read where they are; of the others copies were made, and they are the server's again.
    let place = |slot: &Slot| Word::Returned(memory.place(slot.as_ref()));
    let mut back = std::iter::from_fn(|| returned.try_recv().ok()).collect::<Vec<_>>();
    assert_eq!(back, slots[2..].iter().map(place).collect::<Vec<_>>());
    slots.iter_mut().skip(2).for_each(|slot| slot.as_mut().fill(9));
    assert!(buffers.iter().enumerate().all(|(number, buffer)| buffer[..] == [number as f32, 0.5]));
    buffers.truncate(1);
    back = std::iter::from_fn(|| returned.try_recv().ok()).collect();
    assert_eq!(back, [place(&slots[1])]);
}

#[test]
fn nothing_outside_is_read() {
    let memory = Memory::new(2, PAGE).unwrap();
    let mapping = open(memory.offer()).0.unwrap();
    assert!(mapping.buffer::<u8>(PAGE, PAGE).is_some());
    for (at, numbers) in [(PAGE, PAGE + 1), (2 * PAGE, 1), (7, 1), (usize::MAX - PAGE + 1, PAGE), (0, usize::MAX)] {
        assert!(mapping.buffer::<u8>(at, numbers).is_none(), "{numbers} from {at} on");
    }
    assert!(mapping.buffer::<f32>(0, usize::MAX / 2).is_none());
}

#[test]
fn another_file_is_not_opened() {
    let memory = Memory::new(1, 1).unwrap();
    let offer = memory.offer().clone();
    let refusal = |offer: Offer| open(&offer).0.unwrap_err().kind();
    assert_eq!(refusal(Offer { inode: offer.inode + 1, ..offer.clone() }), ErrorKind::NotFound);
    assert_eq!(refusal(Offer { bytes: offer.bytes + 1, ..offer.clone() }), ErrorKind::NotFound);
    assert_eq!(refusal(Offer { boot: "another".to_owned(), ..offer.clone() }), ErrorKind::NotFound);
    assert_eq!(refusal(Offer { file: 1_000_000, ..offer.clone() }), ErrorKind::NotFound);
    // One that somebody could cut off under its reader.
    let mut loose = tempfile::tempfile().unwrap();
    loose.write_all(b"pictures").unwrap();
    let about = loose.metadata().unwrap();
    let loose = Offer { file: loose.as_raw_fd(), device: about.dev(), inode: about.ino(), bytes: 8, ..offer };
    assert!(open(&loose).0.is_err());
}

#[test]
fn nobody_else_writes() {
    let memory = Memory::new(1, 1).unwrap();
    let Offer { process, file, .. } = memory.offer();
    let mut writer = fs::OpenOptions::new().write(true).open(format!("/proc/{process}/fd/{file}")).unwrap();
    assert_eq!(writer.write_all(b"x").unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(writer.set_len(0).unwrap_err().kind(), ErrorKind::PermissionDenied);
}
