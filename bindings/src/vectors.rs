//! What the vectors of `core/tests/vectors/` need to be run in WebAssembly: reading, which no page does, and the
//! algorithms that no page has. Only in the build for tests.

use core::cell::UnsafeCell;

use firsthop_core::{
    Alg, Context, Envelope, Error, Event, Frame, FrameSigner, FrameWriter, LeaseKey, MacKey, PropertiesWriter,
    PublicKey, RegionKeyId, RegionSecretKey, SecretKey, Timestamp, Unsigned, Value,
    limits::{MAX_ENVELOPE, MAX_EVENT},
};
use wasm_bindgen::prelude::wasm_bindgen;

struct Room {
    /// Staged: the frame.
    frame: [u8; MAX_ENVELOPE],
    /// Staged: a key. Afterwards: the code of an error.
    key: [u8; 32],
    rewritten: [u8; MAX_ENVELOPE],
    shape: [u8; MAX_EVENT],
    text: [u8; MAX_EVENT],
    extra_shape: [u8; MAX_EVENT],
    extra_text: [u8; MAX_EVENT],
    delta: [u8; MAX_EVENT],
}

struct Single(UnsafeCell<Room>);

// SAFETY: a module of WebAssembly has one thread.
unsafe impl Sync for Single {}

static ROOM: Single = Single(UnsafeCell::new(Room {
    frame: [0; MAX_ENVELOPE],
    key: [0; 32],
    rewritten: [0; MAX_ENVELOPE],
    shape: [0; MAX_EVENT],
    text: [0; MAX_EVENT],
    extra_shape: [0; MAX_EVENT],
    extra_text: [0; MAX_EVENT],
    delta: [0; MAX_EVENT],
}));

/// Calls with the room. Returns 0, or the length of the error's code, which then stands in place of the key.
fn with(call: impl FnOnce(&mut Room) -> Result<(), Error>) -> u32 {
    // SAFETY: every export calls this once.
    let room = unsafe { &mut *ROOM.0.get() };
    match call(room) {
        Ok(()) => 0,
        Err(error) => {
            let code = error.code().as_bytes();
            room.key[..code.len()].copy_from_slice(code);
            code.len() as u32
        }
    }
}

/// Where the frame is staged.
#[wasm_bindgen]
pub fn vector_frame() -> u32 {
    // SAFETY: an address, and nothing is read.
    unsafe { &raw const (*ROOM.0.get()).frame as usize as u32 }
}

/// Where the key is staged, and the code of an error found.
#[wasm_bindgen]
pub fn vector_key() -> u32 {
    // SAFETY: an address, and nothing is read.
    unsafe { &raw const (*ROOM.0.get()).key as usize as u32 }
}

/// Reads the frame up to its CRC.
#[wasm_bindgen]
pub fn vector_parse(len: u32) -> u32 {
    with(|room| Frame::parse(&room.frame[..len as usize]).map(|_| ()))
}

/// Checks the signature. The key of Ed25519 is the public one.
#[wasm_bindgen]
pub fn vector_verify(len: u32, alg: u8) -> u32 {
    with(|room| {
        let frame = Frame::parse(&room.frame[..len as usize])?;
        match self::alg(alg)? {
            Alg::Ed25519 => frame.verify(&PublicKey::from_bytes(&room.key)?),
            alg => frame.verify(&MacKey::new(alg, &room.key)?),
        }
    })
}

/// Reads the payload.
#[wasm_bindgen]
pub fn vector_open(len: u32) -> u32 {
    with(|room| Frame::parse(&room.frame[..len as usize])?.check().map(|_| ()))
}

/// Opens what is sealed and reads it. The key is the region's private one.
#[wasm_bindgen]
pub fn vector_unseal(len: u32, id: u32) -> u32 {
    with(|room| {
        let frame = Frame::parse(&room.frame[..len as usize])?;
        let key = RegionSecretKey::new(RegionKeyId::new(id), room.key);
        frame.unseal(&key, &mut room.rewritten)?.check().map(|_| ())
    })
}

/// Reads the envelope.
#[wasm_bindgen]
pub fn vector_envelope(len: u32) -> u32 {
    with(|room| Envelope::open(&Frame::parse(&room.frame[..len as usize])?).map(|_| ()))
}

/// Checks the session. The key is the lease's.
#[wasm_bindgen]
pub fn vector_session(len: u32, now_ms: f64) -> u32 {
    with(|room| {
        let frame = Frame::parse(&room.frame[..len as usize])?;
        LeaseKey::new(room.key).verify_session(&frame, Timestamp::from_millis(now_ms as u64)).map(|_| ())
    })
}

/// Reads the frame, writes anew all that it found, value by value, signs that, and compares. The key of Ed25519 is the
/// seed.
#[wasm_bindgen]
pub fn vector_rewrite(len: u32, alg: u8) -> u32 {
    with(|room| {
        let bytes = &room.frame[..len as usize];
        let frame = Frame::parse(bytes)?;
        let mut writer = FrameWriter::new(&mut room.rewritten[..], frame.header())?;
        for extension in frame.extensions() {
            writer.extension(extension.kind, extension.value)?;
        }
        let (context, events) = frame.open()?;
        let mut properties = PropertiesWriter::new(&mut room.shape[..], &mut room.text[..]);
        let mut extra = PropertiesWriter::new(&mut room.extra_shape[..], &mut room.extra_text[..]);
        copy(context.extra, &mut extra)?;
        writer.context(&Context { extra: extra.finish()?, ..context })?;
        for event in events {
            let event = event?;
            properties.clear();
            copy(event.properties, &mut properties)?;
            // The delta over nothing is the delta; its extra is copied as the others are.
            let context = event.context.apply(&Context::default())?;
            extra.clear();
            copy(context.extra, &mut extra)?;
            let context = match event.context.is_none() {
                true => event.context,
                false => firsthop_core::ContextDelta::encode(
                    &Context { extra: extra.finish()?, ..context },
                    &mut room.delta,
                )?,
            };
            writer.event(&Event { context, properties: properties.finish()?, ..event })?;
        }
        let signer: &dyn FrameSigner = match self::alg(alg)? {
            Alg::None => &Unsigned,
            Alg::Ed25519 => &SecretKey::from_seed(&room.key),
            alg => &MacKey::new(alg, &room.key)?,
        };
        if writer.finish(signer)? == bytes { Ok(()) } else { Err(Error::Payload) }
    })
}

fn alg(number: u8) -> Result<Alg, Error> {
    [Alg::None, Alg::HmacSha256Trunc128, Alg::HmacSha256, Alg::Ed25519, Alg::Blake3]
        .into_iter()
        .find(|alg| *alg as u8 == number)
        .ok_or(Error::Algorithm)
}

type Block<'b> = PropertiesWriter<&'b mut [u8]>;

fn copy(from: firsthop_core::Properties<'_>, to: &mut Block<'_>) -> Result<(), Error> {
    from.iter().try_for_each(|(key, value)| put(Some(key), value, to))
}

fn put(key: Option<&str>, value: Value<'_>, to: &mut Block<'_>) -> Result<(), Error> {
    match value {
        Value::List(list) => {
            to.begin_list(key)?;
            list.iter().try_for_each(|item| put(None, item, to))?;
            to.end()
        }
        Value::Map(map) => {
            to.begin_map(key)?;
            copy(map, to)?;
            to.end()
        }
        value => to.write(key, value),
    }
}
