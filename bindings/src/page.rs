//! The page: what its frames share, the frame that is open, the block that is being written.

use firsthop_core::{
    Alg, Consent, Context, ContextDelta, Epoch, Error, Event, EventKind, ExtensionKind, Flags, FrameSigner,
    FrameWriter, Header, KeyId, MacKey, PropertiesWriter, Region, SESSION_GRANT_LEN, Screen, SourceId, Tag, TenantId,
    Timestamp, Unsigned, Value, limits::MAX_WRITE_KEY,
};
#[cfg(feature = "seal")]
use firsthop_core::{RegionKeyId, RegionPublicKey};

use crate::{
    fields::Fields,
    memory::{Buffers, context_buffer, utf8},
};

type Bytes = &'static mut [u8];

/// Bytes of a W3C `traceparent`, version 00.
const TRACEPARENT_LEN: usize = 55;

/// A page and its one open frame.
pub(crate) struct Page {
    staging: Bytes,
    /// What every frame of the page has in common, and the numbers of the next frame and event.
    header: Header,
    write_key: [u8; MAX_WRITE_KEY],
    write_key_len: usize,
    session: Option<Session>,
    frame: FrameWriter<Bytes>,
    fields: Fields,
    /// An event's properties, or what a context holds beyond its fields.
    block: PropertiesWriter<Bytes>,
    /// What frames are sealed to.
    #[cfg(feature = "seal")]
    region_key: Option<RegionPublicKey>,
}

struct Session {
    key: MacKey,
    grant: [u8; SESSION_GRANT_LEN],
}

impl Page {
    pub(crate) const fn new(buffers: &'static mut Buffers) -> Self {
        Self {
            staging: &mut buffers.staging,
            header: Header::new(TenantId::new(0), SourceId::new([0; 16]), Timestamp::from_millis(0)),
            write_key: [0; MAX_WRITE_KEY],
            write_key_len: 0,
            session: None,
            frame: FrameWriter::idle(&mut buffers.frame),
            fields: Fields::new(&mut buffers.context),
            block: PropertiesWriter::new(&mut buffers.shape, &mut buffers.text),
            #[cfg(feature = "seal")]
            region_key: None,
        }
    }

    /// Says who writes. Staged: the sixteen bytes of the source, then the write key.
    pub(crate) fn start(&mut self, tenant: TenantId, write_key_len: usize) -> Result<(), Error> {
        let (source, rest) = self.staging.split_first_chunk().ok_or(Error::WriteKey)?;
        self.write_key = *rest.first_chunk().ok_or(Error::WriteKey)?;
        self.write_key_len = write_key_len;
        self.header.tenant = tenant;
        self.header.source = SourceId::new(*source);
        Ok(())
    }

    /// Signs from the next frame on. Staged: the secret, then the grant. With `alg` 0 there is neither, and the next
    /// frame shows the write key again.
    pub(crate) fn session(&mut self, alg: u32, key_id: u32, epoch: u32) -> Result<(), Error> {
        self.session = None;
        self.header.flags = Flags::default();
        self.header.alg = Alg::None;
        self.header.key_id = KeyId::new(key_id);
        self.header.epoch = Epoch::new(epoch);
        let alg = match alg {
            0 => return Ok(()),
            1 => Alg::HmacSha256Trunc128,
            2 => Alg::HmacSha256,
            _ => return Err(Error::Algorithm),
        };
        let (secret, rest) = self.staging.split_first_chunk().ok_or(Error::Session)?;
        let grant = *rest.first_chunk().ok_or(Error::Session)?;
        self.session = Some(Session { key: MacKey::new(alg, secret)?, grant });
        self.header.flags = Flags::TRUST;
        self.header.alg = alg;
        Ok(())
    }

    /// Seals to this key from the next frame on. Staged: its 32 bytes.
    #[cfg(feature = "seal")]
    pub(crate) fn seal_to(&mut self, id: RegionKeyId) -> Result<(), Error> {
        self.region_key = None;
        let bytes = self.staging.first_chunk().ok_or(Error::Parse)?;
        self.region_key = Some(RegionPublicKey::new(id, *bytes)?);
        Ok(())
    }

    /// Sets a text of the next frame's context. Staged: the text.
    pub(crate) fn text(&mut self, field: u32, len: usize) -> Result<(), Error> {
        self.fields.set(field, self.staging.get(..len).ok_or(Error::TooLarge)?)
    }

    /// Begins a frame with the context that was set, and the block as what it holds beyond the fields.
    pub(crate) fn begin(
        &mut self,
        consent: u8,
        region: [u8; 2],
        created: Timestamp,
        screen: Screen,
    ) -> Result<(), Error> {
        let result = self.try_begin(consent, region, created, screen);
        // SAFETY: only the fields borrow from the buffer, and they go here.
        self.fields = Fields::new(unsafe { context_buffer() });
        result
    }

    fn try_begin(&mut self, consent: u8, region: [u8; 2], created: Timestamp, screen: Screen) -> Result<(), Error> {
        self.header.consent = Consent::from_bits(consent);
        self.header.region = Region::new(region)?;
        self.header.created = created;
        self.frame.begin(&self.header)?;
        let (kind, value) = match &self.session {
            Some(session) => (ExtensionKind::Session, &session.grant[..]),
            None => (ExtensionKind::WriteKey, self.write_key.get(..self.write_key_len).ok_or(Error::WriteKey)?),
        };
        self.frame.extension(kind, value)?;
        // One that is none does no harm, but a header has a bound. Whoever reads it looks closer.
        if let Some(trace) = self.fields.traceparent.filter(|text| text.len() == TRACEPARENT_LEN) {
            self.frame.extension(ExtensionKind::Traceparent, trace.as_bytes())?;
        }
        #[cfg(feature = "seal")]
        self.frame.seal_to(self.region_key.as_ref().ok_or(Error::Sealed)?)?;
        let mut context: Context<'_> = self.fields.context;
        context.screen = Some(screen);
        context.extra = self.block.finish()?;
        self.frame.context(&context)
    }

    /// Begins a block.
    pub(crate) fn block(&mut self) {
        self.block.clear();
    }

    /// Writes an entry of the map or list that is open. Staged: its key, unless its length is −1, then its text.
    pub(crate) fn put(&mut self, key_len: i32, kind: u32, value: f64, high: u32) -> Result<(), Error> {
        /// Up to here, a double and an integer say the same number.
        const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;
        let integer = value as i64;
        let bits = u64::from(high) << 32 | integer as u64;
        let staged = &self.staging[..];
        let (key, text) = match usize::try_from(key_len) {
            Ok(len) => {
                staged.split_at_checked(len).map(|(key, text)| (Some(utf8(key)), text)).ok_or(Error::TooLarge)?
            }
            Err(_) => (None, staged),
        };
        let value = match kind {
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 if integer as f64 == value && value.abs() <= MAX_SAFE_INTEGER => Value::I64(integer),
            3 if value.is_finite() => Value::F64(value),
            4 => Value::Str(utf8(text.get(..integer as usize).ok_or(Error::TooLarge)?)),
            5 => return self.block.begin_list(key),
            6 => return self.block.begin_map(key),
            7 => return self.block.end(),
            8 => Value::U64(bits),
            9 => Value::I64(bits.cast_signed()),
            _ => Value::Null,
        };
        self.block.write(key, value)
    }

    /// Writes the event into the frame, with the block as its properties. Staged: its name.
    pub(crate) fn event(&mut self, kind: EventKind, name_len: usize, time: Timestamp) -> Result<usize, Error> {
        let name = utf8(self.staging.get(..name_len).ok_or(Error::TooLarge)?);
        let offset_ms = time.as_millis().cast_signed() - self.header.created.as_millis().cast_signed();
        let properties = self.block.finish()?;
        self.frame.event(&Event { kind, offset_ms, id: None, name, context: ContextDelta::NONE, properties })?;
        Ok(self.frame.len())
    }

    /// Signs the frame and returns its length. Of what was `dropped`, the `skipped` have no number yet: they get those before the frame's.
    /// Staged, where frames are sealed: 32 random bytes.
    pub(crate) fn finish(&mut self, dropped: u32, skipped: u32) -> Result<usize, Error> {
        self.header.first_seq += u64::from(skipped);
        self.frame.set_dropped(dropped);
        self.frame.set_first_seq(self.header.first_seq);
        let count = self.frame.count();
        let signer = Signer(self.session.as_ref());
        #[cfg(not(feature = "seal"))]
        let len = self.frame.finish(&signer)?.len();
        #[cfg(feature = "seal")]
        let len = {
            let random = self.staging.first_chunk_mut().ok_or(Error::State)?;
            let len = self.frame.finish_sealed(&signer, random)?.len();
            random.fill(0);
            len
        };
        self.header.batch_seq += 1;
        self.header.first_seq += u64::from(count);
        Ok(len)
    }
}

/// Signs with the session's key, if there is one. One type for both, so that there is one `finish`.
struct Signer<'a>(Option<&'a Session>);

impl FrameSigner for Signer<'_> {
    fn alg(&self) -> Alg {
        self.0.map_or(Alg::None, |session| FrameSigner::alg(&session.key))
    }

    fn sign(&self, signed: &[u8]) -> Tag {
        match self.0 {
            Some(session) => session.key.sign(signed),
            None => Unsigned.sign(signed),
        }
    }
}
