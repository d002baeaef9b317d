//! What a page does: numbers its events, signs once it has a session, sends the same bytes again.

use std::time::{SystemTime, UNIX_EPOCH};

use firsthop_core::{
    Context, Event, ExtensionKind, Flags, FrameWriter, Header, MacKey, PropertiesWriter, SourceId, Timestamp, Unsigned,
    Value,
};
use firsthop_intake::Session;

use crate::{Outcome, folder::Tenant, random::Random};

/// One source. What an event says follows from its number, so that whoever finds it can tell whether it is what was sent.
#[derive(Clone, Debug)]
pub(crate) struct Producer {
    tenant: Tenant,
    pub(crate) source: SourceId,
    pub(crate) session: Option<Session>,
    pub(crate) next: u64,
    batch: u64,
    buffer: Vec<u8>,
}

/// A frame, and what stands in it.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) source: SourceId,
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) batch: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Producer {
    pub(crate) fn new(tenant: &Tenant, random: &mut Random) -> Self {
        let mut ten = [0; 10];
        ten.iter_mut().for_each(|byte| *byte = random.next() as u8);
        let source = SourceId::v7(now(), ten);
        Self { tenant: tenant.clone(), source, session: None, next: 0, batch: 0, buffer: vec![0; 512 * 1024] }
    }

    /// The next frame, of so many events.
    pub(crate) fn frame(&mut self, count: u32) -> Outcome<Made> {
        self.frame_with(count, None)
    }

    /// The same, with a text in each event.
    pub(crate) fn frame_with(&mut self, count: u32, text: Option<&str>) -> Outcome<Made> {
        let (first, batch) = (self.next, self.batch);
        let bytes = self.frame_of(first, count, text)?;
        self.next += u64::from(count);
        self.batch += 1;
        Ok(Made { source: self.source, first, count, batch, bytes })
    }

    /// A frame of events from any number on; the text, if there is one, goes into each.
    pub(crate) fn frame_of(&mut self, first: u64, count: u32, text: Option<&str>) -> Outcome<Vec<u8>> {
        let mut header = Header::new(self.tenant.id, self.source, now());
        (header.batch_seq, header.first_seq) = (self.batch, first);
        if let Some(session) = &self.session {
            header.flags = Flags::TRUST;
            (header.alg, header.key_id, header.epoch, header.region) =
                (session.alg, session.key_id, session.epoch, session.region);
        }
        let mut writer = FrameWriter::new(&mut self.buffer[..], &header)?;
        match &self.session {
            Some(session) => writer.extension(ExtensionKind::Session, &session.grant.to_bytes())?,
            None => writer.extension(ExtensionKind::WriteKey, self.tenant.key.as_bytes())?,
        }
        let anonymous = self.source.to_string();
        let url = Some("https://shop.example/p/1");
        writer.context(&Context { anonymous_id: Some(&anonymous), url, ..Context::default() })?;
        for seq in first..first + u64::from(count) {
            let (mut shape, mut words) = ([0; 128], vec![0; 256 + text.map_or(0, str::len)]);
            let mut properties = PropertiesWriter::new(&mut shape[..], &mut words[..]);
            properties.put("n", Value::U64(seq))?;
            properties.put("sku", Value::Str("G-32"))?;
            properties.put("price", Value::F64(18.99))?;
            if let Some(text) = text {
                properties.put("text", Value::Str(text))?;
            }
            let properties = properties.finish()?;
            writer.event(&Event { name: "Product Viewed", properties, ..Event::default() })?;
        }
        let frame = match &self.session {
            Some(session) => writer.finish(&MacKey::new(session.alg, &session.secret)?)?,
            None => writer.finish(&Unsigned)?,
        };
        Ok(frame.to_vec())
    }
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(since.as_millis() as u64)
}
