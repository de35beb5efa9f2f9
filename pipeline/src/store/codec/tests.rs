//! Records through a value and back, and what is no value.

use super::*;

/// Label, encoding, index and bytes.
type Parts = (u32, Encoding, &'static [u8], &'static [u8]);

fn value() -> (Vec<u8>, [Parts; 4]) {
    let raw = Encoding::Raw { height: 2, width: 3, channels: 1 };
    let records: [Parts; 4] = [
        (7, raw, b"", b"pixels"),
        (0, Encoding::Jpeg, b"rows", b"of a file"),
        (u32::MAX, Encoding::Png, b"", b""),
        (1, Encoding::Jpeg, b"", b"x"),
    ];
    let mut packer = Packer::default();
    for (label, encoding, index, bytes) in records {
        packer.push(label, Picture { encoding, index: index.to_vec(), bytes: bytes.to_vec() });
    }
    let value = packer.finish();
    let mut bytes = vec![0xaa; value.len()];
    value.write(&mut bytes);
    (bytes, records)
}

#[test]
fn records_come_back() {
    let (bytes, records) = value();
    for (from_last, (label, encoding, index, picture)) in (0..).zip(records.iter().rev()) {
        let record = record(&bytes, from_last).unwrap();
        assert_eq!((record.label, record.encoding, record.index, record.bytes), (*label, *encoding, *index, *picture));
    }
    assert_eq!(record(&bytes, 4).unwrap_err().field, "number of records");
}

#[test]
fn any_bytes_are_a_record_or_a_flaw() {
    let (bytes, records) = value();
    // Miri looks at some of them.
    let step = if cfg!(miri) { 7 } else { 1 };
    for cut in (0..bytes.len()).step_by(step) {
        assert!(record(&bytes[..cut], 0).is_err(), "{cut} of {} bytes", bytes.len());
    }
    for at in (0..bytes.len()).step_by(step) {
        for flipped in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flipped;
            for from_last in 0..=records.len() as u64 {
                if let Ok(record) = record(&damaged, from_last) {
                    assert!(record.bytes.len() + record.index.len() <= bytes.len());
                }
            }
        }
    }
}
