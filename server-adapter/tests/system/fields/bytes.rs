//! Frames by their parts, which need not fit.

use firsthop_core::{Alg, FrameSigner, MacKey, SourceId, TenantId, Unsigned, crc32};

use crate::common::{now, random};

/// A frame by its parts, that need not fit.
#[derive(Clone)]
pub(super) struct Parts {
    /// The 88 bytes, without lengths and CRC.
    header: [u8; 88],
    pub(super) extensions: Vec<(u16, Vec<u8>)>,
    pub(super) payload: Vec<u8>,
    key: Option<[u8; 32]>,
    alg: Alg,
}

impl Parts {
    /// Of a new source: `alg` and key as given.
    pub(super) fn new(tenant: TenantId, region: &str, count: u16, key: Option<(Alg, [u8; 32])>) -> Self {
        let mut header = [0; 88];
        header[..5].copy_from_slice(b"FHOP\x01");
        header[8..16].copy_from_slice(&tenant.get().to_le_bytes());
        header[16..32].copy_from_slice(SourceId::v7(now(), random()).as_bytes());
        header[40..42].copy_from_slice(region.as_bytes());
        header[44..46].copy_from_slice(&count.to_le_bytes());
        header[64..72].copy_from_slice(&now().as_millis().to_le_bytes());
        let alg = key.map_or(Alg::None, |(alg, _)| alg);
        header[42] = alg as u8;
        Self { header, extensions: Vec::new(), payload: Vec::new(), key: key.map(|(_, key)| key), alg }
    }

    pub(super) fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// In the place of another of its kind.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.extensions.retain(|(other, _)| *other != kind);
        self.extensions.push((kind, value.to_vec()));
        self
    }

    pub(super) fn and(mut self, kind: u16, value: &[u8]) -> Self {
        self.extensions.push((kind, value.to_vec()));
        self
    }

    pub(super) fn holding(self, payload: Vec<u8>) -> Self {
        Self { payload, ..self }
    }

    pub(super) fn header_len(&self) -> usize {
        88 + self.extensions.iter().map(|(_, value)| 4 + value.len()).sum::<usize>()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes_with(|_| {})
    }

    /// Its bytes, with something else in the header than belongs there; CRC and tag are made over that.
    pub(super) fn bytes_with(&self, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut bytes = self.header.to_vec();
        bytes[6..8].copy_from_slice(&(self.header_len() as u16).to_le_bytes());
        bytes[76..80].copy_from_slice(&(self.payload.len() as u32).to_le_bytes());
        for (kind, value) in &self.extensions {
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
            bytes.extend_from_slice(value);
        }
        bytes.extend_from_slice(&self.payload);
        change(&mut bytes);
        let crc = crc32(&[&bytes[..80], &[0; 4], &bytes[84..]]);
        bytes[80..84].copy_from_slice(&crc.to_le_bytes());
        let tag = match &self.key {
            Some(key) => MacKey::new(self.alg, key).expect("a MAC").sign(&bytes),
            None => Unsigned.sign(&bytes),
        };
        bytes.extend_from_slice(tag.as_bytes());
        bytes
    }
}

pub(super) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Length and bytes.
pub(super) fn block(bytes: &[u8]) -> Vec<u8> {
    [varint(bytes.len() as u64), bytes.to_vec()].concat()
}

pub(super) fn some(bytes: &[u8]) -> Vec<u8> {
    [&[1], &block(bytes)[..]].concat()
}

/// A context with one field, the how-manieth of its twelve.
pub(super) fn context(field: usize, bytes: &[u8]) -> Vec<u8> {
    let mut fields = vec![vec![0]; 12];
    // Text and shape.
    fields[11] = vec![0, 0];
    fields[field] = bytes.to_vec();
    fields.concat()
}

pub(super) fn no_context() -> Vec<u8> {
    context(0, &[0])
}

/// An event of parts as they are encoded.
pub(super) struct Event {
    pub(super) kind: Vec<u8>,
    pub(super) offset: Vec<u8>,
    pub(super) id: Vec<u8>,
    pub(super) name: Vec<u8>,
    pub(super) context: Vec<u8>,
    pub(super) text: Vec<u8>,
    pub(super) shape: Vec<u8>,
}

impl Event {
    pub(super) fn new() -> Self {
        let none = || vec![0];
        Self {
            kind: none(),
            offset: none(),
            id: none(),
            name: block(b"x"),
            context: none(),
            text: none(),
            shape: none(),
        }
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        [no_context(), self.bytes()].concat()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let Self { kind, offset, id, name, context, text, shape } = self;
        [&kind[..], offset, id, name, context, text, shape].concat()
    }
}
