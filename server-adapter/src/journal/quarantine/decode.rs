//! What was set aside, for people: decoded as far as it decodes, with the first thing that is wrong and where.
//!
//! The bytes are anybody's. Nothing here believes a length before it has looked, and nothing fails: what cannot be decoded is left for a
//! dump of its bytes.

mod show;
#[cfg(test)]
mod tests;

use std::ops::Range;

use firsthop_core::{Envelope, Error, Flags, Frame, HEADER_LEN, Header, MAGIC, crc32};
use firsthop_intake::{
    RegionSecrets,
    json::{Json, to_string},
};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use self::show::{HEADER, extension, frame_len, header_fault, hex};
pub(crate) use self::show::{annotation, dump};
use crate::{clock, journal::Readable};

/// A body, as far as it decodes.
#[derive(Debug, Serialize)]
pub(crate) struct Decoded {
    /// What it seems to be.
    pub(crate) kind: Kind,
    /// Its bytes, counted from the beginning of what was stored.
    pub(crate) bytes: Range<usize>,
    /// What stands where.
    pub(crate) fields: Vec<Field>,
    /// What the events share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context: Option<Box<RawValue>>,
    /// The events until the first that does not decode.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) events: Vec<Told>,
    /// The first check that fails. None: the bytes are well formed, and it was refused for another reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<Fault>,
    /// The bytes that nothing above tells.
    pub(crate) undecoded: Range<usize>,
    /// Of an envelope: what its edge was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inside: Option<Box<Decoded>>,
}

/// What bytes seem to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A producer's frame, by its first four bytes.
    Frame,
    /// An edge's envelope, by its flag.
    Envelope,
    /// Text that was to be JSON.
    Json,
    /// Nothing that is known here.
    Bytes,
}

/// A value and where it stands.
#[derive(Debug, Serialize)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) at: usize,
    pub(crate) value: Value,
}

/// An event and where it begins. What is JSON in it is kept as text, so that entries stay in their order and numbers keep their digits.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    /// Its number in its source.
    pub(crate) seq: u64,
    pub(crate) at: usize,
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) time: String,
    /// The id that another vendor's SDK gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) foreign_id: Option<String>,
    /// All of its context, if that is not the frame's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context: Option<Box<RawValue>>,
    pub(crate) properties: Option<Box<RawValue>>,
}

/// A check that fails.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// Its name among the reasons.
    pub(crate) code: &'static str,
    /// Where to look: the first byte of what is wrong.
    pub(crate) at: usize,
    /// In words.
    pub(crate) what: String,
}

/// Decodes a body; what is sealed in it too, if it opens with these.
pub(crate) fn decode(body: &[u8], secrets: &RegionSecrets) -> Decoded {
    decode_at(body, 0, true, secrets)
}

/// `base`: where these bytes stand in what was stored. `outer`: whether an envelope is opened. One in another is refused everywhere, and
/// a hundred of them would be read a hundred times.
fn decode_at(bytes: &[u8], base: usize, outer: bool, secrets: &RegionSecrets) -> Decoded {
    let looks = bytes.iter().zip(&MAGIC).take_while(|(byte, magic)| byte == magic).count();
    let is_frame = looks == MAGIC.len() || (looks > 0 && looks == bytes.len());
    let mut decoded = Decoded {
        kind: if is_frame { Kind::Frame } else { Kind::Bytes },
        bytes: base..base + bytes.len(),
        fields: Vec::new(),
        context: None,
        events: Vec::new(),
        fault: None,
        undecoded: base..base + bytes.len(),
        inside: None,
    };
    if is_frame {
        decoded.frame(bytes, base, outer, secrets);
    } else {
        decoded.json(bytes, base);
    }
    decoded
}

impl Decoded {
    fn fail(&mut self, error: Error, at: usize) {
        self.fault.get_or_insert(Fault { code: error.code(), at, what: error.to_string() });
    }

    fn field(&mut self, name: impl Into<String>, at: usize, value: impl Into<Value>) {
        self.fields.push(Field { name: name.into(), at, value: value.into() });
    }

    fn told(&mut self, until: usize) {
        self.undecoded.start = until.clamp(self.undecoded.start, self.undecoded.end);
    }

    fn frame(&mut self, bytes: &[u8], base: usize, outer: bool, secrets: &RegionSecrets) {
        let told = self.header(bytes, base);
        self.told(base + told);
        let header = match Header::peek(bytes) {
            Ok(header) => header,
            Err(error) => return self.fail(error, base + header_fault(bytes, error)),
        };
        if header.flags.contains(Flags::ENVELOPE) {
            self.kind = Kind::Envelope;
        }
        let header_len = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
        let extensions_end = self.extensions(bytes, header_len.min(bytes.len()), base);
        self.told(base + extensions_end);
        match Frame::parse(bytes) {
            Ok(_) if self.kind == Kind::Envelope && !outer => self.fail(Error::Reserved, base + 5),
            Ok(frame) => self.payload(&frame, base, secrets),
            Err(error) => {
                let at = match error {
                    Error::Truncated => bytes.len(),
                    Error::TrailingBytes => frame_len(bytes, &header),
                    Error::Crc => 80,
                    Error::Extension | Error::Payload => extensions_end,
                    _ => 0,
                };
                self.fail(error, base + at);
                if error == Error::Crc {
                    self.say_crc(bytes, &header);
                }
            }
        }
    }

    /// The fixed header, as much of it as is there, whatever its values. Returns where it ends.
    fn header(&mut self, bytes: &[u8], base: usize) -> usize {
        let mut told = 0;
        for (name, at, len, show) in HEADER {
            let Some(raw) = bytes.get(*at..at + len) else { break };
            self.field(*name, base + at, show(raw));
            told = at + len;
        }
        if bytes.len() >= HEADER_LEN { HEADER_LEN } else { told }
    }

    /// The extensions that are whole. Returns where the first begins that is not.
    fn extensions(&mut self, bytes: &[u8], end: usize, base: usize) -> usize {
        let mut at = HEADER_LEN;
        while let Some([a, b, c, d]) = bytes.get(at..end).and_then(|rest| rest.first_chunk()) {
            let (number, len) = (u16::from_le_bytes([*a, *b]), usize::from(u16::from_le_bytes([*c, *d])));
            let Some(value) = bytes.get(at + 4..(at + 4 + len).min(end)).filter(|value| value.len() == len) else {
                break;
            };
            let (name, value) = extension(number, value);
            self.field(name, base + at, value);
            at += 4 + len;
        }
        at
    }

    fn say_crc(&mut self, bytes: &[u8], header: &Header) {
        let end = frame_len(bytes, header) - header.alg.tag_len();
        let (Some(front), Some(rest), Some(fault)) = (bytes.get(..80), bytes.get(84..end), &mut self.fault) else {
            return;
        };
        let is = crc32(&[front, &[0; 4], rest]);
        fault.what = format!("{}: the bytes have {is:08x}", fault.what);
    }

    fn payload(&mut self, frame: &Frame<'_>, base: usize, secrets: &RegionSecrets) {
        let payload = base + (frame.signed().len() - frame.payload().len());
        let end = base + frame.signed().len();
        self.told(payload);
        if self.kind == Kind::Envelope {
            return self.envelope(frame, payload, end, secrets);
        }
        let readable = match Readable::new(*frame, secrets) {
            Ok(readable) => readable,
            Err(error) => return self.fail(error, payload),
        };
        let opened = readable.frame();
        let (context, mut events) = match opened.open() {
            Ok(opened) => opened,
            Err(error) => return self.fail(error, payload),
        };
        self.context = RawValue::from_string(to_string(Json(context))).ok();
        let header = frame.header();
        for seq in header.first_seq.. {
            // Of what was sealed no place in these bytes is the place.
            let at = if frame.sealed_to().is_some() { payload } else { end - events.unread() };
            self.told(at);
            match events.next() {
                None => break,
                Some(Err(error)) => return self.fail(error, at),
                Some(Ok(event)) => {
                    let own = event.context.apply(&context).ok().filter(|own| *own != context);
                    self.events.push(Told {
                        seq,
                        at,
                        kind: event.kind.as_str(),
                        name: event.name.to_owned(),
                        time: clock::format(event.time(header.created)),
                        foreign_id: event.id.map(|id| id.id.to_owned()),
                        context: own.and_then(|own| RawValue::from_string(to_string(Json(own))).ok()),
                        properties: RawValue::from_string(to_string(Json(event.properties))).ok(),
                    });
                }
            }
        }
        // What is left is the tag, and its bytes are all that there is to say of it.
        self.told(end);
        self.tag(frame, end);
    }

    fn tag(&mut self, frame: &Frame<'_>, end: usize) {
        if !frame.tag().is_empty() {
            self.field("tag", end, hex(frame.tag()));
        }
        self.told(end + frame.tag().len());
    }

    fn envelope(&mut self, frame: &Frame<'_>, payload: usize, end: usize, secrets: &RegionSecrets) {
        match Envelope::open(frame) {
            Err(error) => self.fail(error, payload),
            Ok(envelope) => {
                for (name, value) in annotation(&envelope.annotation) {
                    self.field(name, payload, value);
                }
                let inside = end - envelope.frame.len();
                self.inside = Some(Box::new(decode_at(envelope.frame, inside, false, secrets)));
                self.told(end);
                self.tag(frame, end);
            }
        }
    }

    fn json(&mut self, bytes: &[u8], base: usize) {
        let text = match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = error.valid_up_to();
                if matches!(bytes.trim_ascii_start(), [b'{' | b'[', ..]) {
                    self.kind = Kind::Json;
                    self.field("text", base, String::from_utf8_lossy(&bytes[..at]));
                    self.told(base + at);
                    self.fault = Some(Fault { code: "malformed-json", at: base + at, what: "not UTF-8".into() });
                } else {
                    self.fail(Error::Magic, base + header_fault(bytes, Error::Magic));
                }
                return;
            }
        };
        if text.is_empty() {
            return self.fail(Error::Truncated, base);
        }
        self.kind = Kind::Json;
        match serde_json::from_str::<Value>(text) {
            Ok(value) => self.field("json", base, value),
            Err(error) => {
                let at = position(text, error.line(), error.column());
                self.field("text", base, text);
                self.fault = Some(Fault { code: "malformed-json", at: base + at, what: error.to_string() });
            }
        }
        self.told(base + bytes.len());
    }
}

/// Where a line and a column are, both counted from 1.
fn position(text: &str, line: usize, column: usize) -> usize {
    let line: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (line + column.saturating_sub(1)).min(text.len())
}
