//! Sealed frames.

use firsthop_core::{
    Error, Event, Frame, FrameWriter, Header, Region, SEAL_LEN, SourceId, TenantId, Timestamp, Unsigned,
};

use crate::{common, mended, region_key};

/// Sealed frames as they come and with lengths and CRC put right; and one of ours, changed where the input says.
pub fn seal(bytes: &[u8]) {
    for bytes in [Some(bytes.to_vec()), mended(bytes)].into_iter().flatten() {
        if let Ok(frame) = Frame::parse(&bytes) {
            open(&frame);
        }
    }
    changed(bytes);
}

/// What opens is decoded, what does not is left alone.
fn open(frame: &Frame<'_>) {
    let mut buffer = vec![0xaa; frame.payload().len()];
    let Some(id) = frame.sealed_to() else {
        assert_eq!(frame.unseal(&region_key(), &mut buffer).err(), Some(Error::State));
        return;
    };
    assert_eq!(frame.check(), Err(Error::Sealed));
    match frame.unseal(&region_key(), &mut buffer) {
        Ok(open) => {
            assert_eq!(open.payload().len() + SEAL_LEN, frame.payload().len());
            assert_eq!(common::content(&open).is_ok(), open.check().is_ok());
        }
        Err(error) => {
            assert_eq!(error, if id == region_key().id() { Error::Seal } else { Error::UnknownKey });
            assert!(buffer.iter().all(|byte| *byte == 0xaa));
        }
    }
}

/// Pairs of where and what: whatever they change, nobody reads it.
fn changed(script: &[u8]) {
    let mut header = Header::new(TenantId::new(0xa11ce), SourceId::new([7; 16]), Timestamp::from_millis(0));
    header.region = Region::new(*b"EU").expect("two capitals");
    let mut writer = FrameWriter::new(vec![0; 512], &header).expect("there is room");
    writer.seal_to(&region_key().public()).expect("the first");
    writer.event(&Event { name: "Product Viewed", ..Event::default() }).expect("there is room");
    let whole = writer.finish_sealed(&Unsigned, &[9; 32]).expect("there is room").to_vec();
    let mut bytes = whole.clone();
    for pair in script.chunks_exact(2).take(8) {
        let at = usize::from(pair[0]) % bytes.len();
        bytes[at] ^= pair[1];
    }
    let Some(bytes) = mended(&bytes) else { return };
    let Ok(frame) = Frame::parse(&bytes) else { return };
    let is_open = frame.unseal(&region_key(), &mut vec![0; bytes.len()]).is_ok();
    assert_eq!(is_open, bytes == whole);
}
