//! Ours: whole frames, built and read through the core's public interface, as a user would.

use std::hint::black_box;

use firsthop_core::{
    Alg, Campaign, Context, ContextDelta, Epoch, Error, Event, EventKind, ExtensionKind, Flags, Frame, FrameSigner,
    FrameVerifier, FrameWriter, Header, Holder, KeyId, PropertiesWriter, Region, RegionPublicKey, SessionGrant,
    SourceId, TenantId, Timestamp, Value, WorkerId,
};

use crate::{
    body::{Body, Kind, ProductViewed, Sum},
    wire::Visit,
};

/// The buffers that a producer keeps, and what its frames have in common.
#[derive(Debug)]
pub struct FrameKit {
    header: Header,
    /// What shows whom the frame is from: a session grant, a write key, or nothing.
    extension: Option<(ExtensionKind, Vec<u8>)>,
    buffer: Vec<u8>,
    shape: [u8; 512],
    text: [u8; 2048],
}

impl FrameKit {
    /// A page's session that signs so; with `Alg::None`, no session.
    #[must_use]
    pub fn new(alg: Alg) -> Self {
        let created = Timestamp::from_millis(1_772_446_530_000);
        let source = SourceId::v7(created, [7; 10]);
        let mut header = Header::new(TenantId::new(0x5eed), source, created);
        if alg == Alg::None {
            return Self::with(header, None);
        }
        header.alg = alg;
        header.flags = Flags::TRUST;
        header.key_id = KeyId::new(1);
        header.epoch = Epoch::at(created);
        header.region = Region::new(*b"EU").expect("two capitals");
        let grant = SessionGrant {
            worker: WorkerId::new(7),
            region: header.region,
            expires: created.offset(3_600_000),
            holder: Holder::new("https://shop.example", "fh_0000000000005eed_Zm9vYmFyYmF6cXV4"),
        };
        Self::with(header, Some((ExtensionKind::Session, grant.to_bytes().into())))
    }

    /// A producer with this header, and this extension in every frame.
    #[must_use]
    pub fn with(header: Header, extension: Option<(ExtensionKind, Vec<u8>)>) -> Self {
        Self { header, extension, buffer: vec![0; firsthop_core::limits::MAX_FRAME], shape: [0; 512], text: [0; 2048] }
    }

    /// Moves on to the next frame's numbers, after one of so many events.
    pub const fn advance(&mut self, events: usize) {
        self.header.batch_seq += 1;
        self.header.first_seq += events as u64;
    }

    /// The events alone, without context or session: the counterpart of the codecs' bodies. Returns the frame.
    ///
    /// # Errors
    /// None with our data.
    #[inline]
    pub fn bare(&mut self, bodies: &[Body<'_>], signer: &impl FrameSigner) -> Result<&[u8], Error> {
        let mut writer = FrameWriter::new(&mut self.buffer[..], &self.header)?;
        let mut properties = PropertiesWriter::new(&mut self.shape[..], &mut self.text[..]);
        write_events(&mut writer, &mut properties, bodies)?;
        let len = writer.finish(signer)?.len();
        Ok(&self.buffer[..len])
    }

    /// A page's frame as it goes out: session grant, shared context, events. Returns the frame.
    ///
    /// # Errors
    /// None with our data.
    #[inline]
    pub fn page(&mut self, visit: &Visit, bodies: &[Body<'_>], signer: &impl FrameSigner) -> Result<&[u8], Error> {
        let mut writer = FrameWriter::new(&mut self.buffer[..], &self.header)?;
        let mut properties = PropertiesWriter::new(&mut self.shape[..], &mut self.text[..]);
        if let Some((kind, value)) = &self.extension {
            writer.extension(*kind, value)?;
        }
        write_context(&mut writer, &mut properties, visit)?;
        write_events(&mut writer, &mut properties, bodies)?;
        let len = writer.finish(signer)?.len();
        Ok(&self.buffer[..len])
    }

    /// The same, sealed to a region's key.
    ///
    /// # Errors
    /// None with our data.
    pub fn sealed(
        &mut self,
        visit: &Visit,
        bodies: &[Body<'_>],
        signer: &impl FrameSigner,
        key: &RegionPublicKey,
    ) -> Result<&[u8], Error> {
        let mut writer = FrameWriter::new(&mut self.buffer[..], &self.header)?;
        let mut properties = PropertiesWriter::new(&mut self.shape[..], &mut self.text[..]);
        if let Some((kind, value)) = &self.extension {
            writer.extension(*kind, value)?;
        }
        writer.seal_to(key)?;
        write_context(&mut writer, &mut properties, visit)?;
        write_events(&mut writer, &mut properties, bodies)?;
        // The same bytes each time cost what random ones do.
        let len = writer.finish_sealed(signer, &[7; 32])?.len();
        Ok(&self.buffer[..len])
    }

    /// The same, but every event happened on a page of its own and says so: the most that context can cost.
    ///
    /// # Errors
    /// None with our data.
    pub fn wandering(&mut self, visit: &Visit, bodies: &[Body<'_>], signer: &impl FrameSigner) -> Result<&[u8], Error> {
        let mut writer = FrameWriter::new(&mut self.buffer[..], &self.header)?;
        let mut properties = PropertiesWriter::new(&mut self.shape[..], &mut self.text[..]);
        if let Some((kind, value)) = &self.extension {
            writer.extension(*kind, value)?;
        }
        write_context(&mut writer, &mut properties, visit)?;
        for body in bodies {
            let url = format!("https://shop.example/en/products/{}", body.properties.product_id);
            let delta = Context {
                url: Some(&url),
                title: Some(body.properties.name),
                referrer: Some(visit.url),
                ..Context::default()
            };
            let mut buf = [0; 1024];
            let context = ContextDelta::encode(&delta, &mut buf)?;
            properties.clear();
            body.properties.put(&mut properties)?;
            writer.event(&Event {
                kind: kind(body.kind),
                offset_ms: body.offset_ms,
                name: body.name,
                context,
                properties: properties.finish()?,
                ..Event::default()
            })?;
        }
        let len = writer.finish(signer)?.len();
        Ok(&self.buffer[..len])
    }
}

#[inline]
fn write_events(
    writer: &mut FrameWriter<&mut [u8]>,
    properties: &mut PropertiesWriter<&mut [u8]>,
    bodies: &[Body<'_>],
) -> Result<(), Error> {
    for body in bodies {
        properties.clear();
        body.properties.put(properties)?;
        writer.event(&Event {
            kind: kind(body.kind),
            offset_ms: body.offset_ms,
            name: body.name,
            properties: properties.finish()?,
            ..Event::default()
        })?;
    }
    Ok(())
}

fn write_context(
    writer: &mut FrameWriter<&mut [u8]>,
    properties: &mut PropertiesWriter<&mut [u8]>,
    visit: &Visit,
) -> Result<(), Error> {
    properties.clear();
    properties.begin_map(Some("library"))?;
    properties.put("name", Value::Str(visit.library.0))?;
    properties.put("version", Value::Str(visit.library.1))?;
    properties.end()?;
    writer.context(&Context {
        anonymous_id: Some(visit.anonymous_id),
        locale: Some(visit.locale),
        url: Some(visit.url),
        title: Some(visit.title),
        referrer: Some(visit.referrer),
        campaign: Some(Campaign {
            source: Some(visit.campaign.0),
            medium: Some(visit.campaign.1),
            name: Some(visit.campaign.2),
            ..Campaign::default()
        }),
        extra: properties.finish()?,
        ..Context::default()
    })
}

const fn kind(kind: Kind) -> EventKind {
    match kind {
        Kind::Track => EventKind::Track,
        Kind::Page => EventKind::Page,
    }
}

/// Decodes everything in a frame and visits every property: every key is read, every value added up. With a key, its signature is
/// checked first.
///
/// # Errors
/// None with our data.
#[inline]
pub fn read_frame(bytes: &[u8], key: Option<&impl FrameVerifier>) -> Result<u64, Error> {
    read(bytes, key, |event| {
        let mut sum = event.name.sum();
        for (key, value) in event.properties {
            black_box(key);
            sum = sum.wrapping_add(match value {
                Value::U64(number) => number,
                Value::F64(number) => number.to_bits(),
                Value::Str(text) => text.sum(),
                _ => return Err(Error::Payload),
            });
        }
        Ok(sum)
    })
}

/// The same, but into the struct that the other codecs decode into, by comparing keys.
///
/// # Errors
/// None with our data.
#[inline]
pub fn read_frame_typed(bytes: &[u8], key: Option<&impl FrameVerifier>) -> Result<u64, Error> {
    read(bytes, key, |event| {
        let mut properties = ProductViewed::default();
        for (key, value) in event.properties {
            match (key, value) {
                ("product_id", Value::Str(text)) => properties.product_id = text,
                ("sku", Value::Str(text)) => properties.sku = text,
                ("category", Value::Str(text)) => properties.category = text,
                ("name", Value::Str(text)) => properties.name = text,
                ("brand", Value::Str(text)) => properties.brand = text,
                ("price", Value::F64(number)) => properties.price = number,
                ("quantity", Value::U64(number)) => properties.quantity = number as u32,
                _ => return Err(Error::Payload),
            }
        }
        Ok(event.name.sum().wrapping_add(black_box(&properties).sum()))
    })
}

#[inline]
fn read(
    bytes: &[u8],
    key: Option<&impl FrameVerifier>,
    visit: impl Fn(Event<'_>) -> Result<u64, Error>,
) -> Result<u64, Error> {
    let frame = Frame::parse(bytes)?;
    if let Some(key) = key {
        frame.verify(key)?;
    }
    let (context, events) = frame.open()?;
    black_box(&context);
    let mut sum = 0u64;
    for event in events {
        let event = event?;
        sum = sum.wrapping_add(event.kind as u64).wrapping_add_signed(event.offset_ms).wrapping_add(visit(event)?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use firsthop_core::{MacKey, Unsigned};

    use super::*;
    use crate::bodies;

    #[test]
    fn frames_carry_every_value() {
        let bodies = bodies(50, 1);
        let expected = bodies.iter().fold(0u64, |sum, body| sum.wrapping_add(body.sum()));
        let none = None::<&MacKey>;

        let mut kit = FrameKit::new(Alg::None);
        let frame = kit.bare(&bodies, &Unsigned).unwrap();
        assert_eq!(read_frame(frame, none), Ok(expected));
        assert_eq!(read_frame_typed(frame, none), Ok(expected));

        let key = MacKey::new(Alg::HmacSha256Trunc128, &[3; 32]).unwrap();
        let other = MacKey::new(Alg::HmacSha256Trunc128, &[4; 32]).unwrap();
        let visit = Visit::new(50);
        let mut kit = FrameKit::new(Alg::HmacSha256Trunc128);
        for frame in
            [kit.page(&visit, &bodies, &key).unwrap().to_vec(), kit.wandering(&visit, &bodies, &key).unwrap().to_vec()]
        {
            assert_eq!(read_frame(&frame, Some(&key)), Ok(expected));
            assert_eq!(read_frame(&frame, Some(&other)), Err(Error::Signature));
        }
    }
}
