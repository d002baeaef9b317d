//! Links the core without an allocator: nothing here or below could be linked for wasm32 if it needed one.
//!
//! Every exported function takes a seed, so that nothing is computed by the compiler, walks a part of the core from
//! end to end, and returns 0, or the line on which something was not as it should be. `tools/no-alloc-proof.mjs` looks
//! at the module and calls them.

#![cfg_attr(target_arch = "wasm32", no_std)]

use firsthop_core::{
    Alg, Annotation, Context, ContextDelta, DedupWindow, Envelope, Epoch, Error, Event, EventId, EventKind,
    ExtensionKind, Flags, ForeignId, Frame, FrameSigner, FrameVerifier, FrameWriter, Header, Holder, Insert, KeyId,
    Keyring, LeaseRing, MacKey, Network, Notes, Outcome, PropertiesWriter, Reason, Region, RegionKeyId,
    RegionPublicKey, RegionSecretKey, RootKey, SecretKey, SeqVerdict, SeqWindow, SessionGrant, SourceId, TenantId,
    Timestamp, Unsigned, Value, Vendor, WorkerId, WriteKey, seal_envelope,
};

#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// Returns the line unless what it is given holds.
macro_rules! ensure {
    ($condition:expr) => {
        if !$condition {
            return Err(line!());
        }
    };
}

/// The value, or the line.
macro_rules! get {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(_) => return Err(line!()),
        }
    };
}

/// Nothing, or a line.
type Verdict = Result<(), u32>;

fn exit(outcome: Verdict) -> u32 {
    outcome.err().unwrap_or(0)
}

/// Events, properties and context: written, signed with every algorithm, parsed, verified, decoded.
#[unsafe(no_mangle)]
pub extern "C" fn frames(seed: u32) -> u32 {
    exit((|| {
        frame(seed, Alg::None, &Unsigned, None)?;
        for alg in [Alg::HmacSha256Trunc128, Alg::HmacSha256, Alg::Blake3] {
            let key = get!(MacKey::new(alg, &[seed as u8; 32]));
            frame(seed, alg, &key, Some(&key))?;
        }
        let key = SecretKey::from_seed(&[seed as u8; 32]);
        frame(seed, Alg::Ed25519, &key, Some(&key.public()))
    })())
}

fn frame(seed: u32, alg: Alg, signer: &dyn FrameSigner, verifier: Option<&dyn FrameVerifier>) -> Verdict {
    let (mut shape, mut text, mut delta, mut buffer) = ([0; 256], [0; 256], [0; 128], [0; 2048]);
    let mut properties = PropertiesWriter::new(&mut shape[..], &mut text[..]);
    get!(properties.put("number", Value::U64(seed.into())));
    get!(properties.put("double", Value::F64(f64::from(seed) / 3.0)));
    get!(properties.put("bytes", Value::Bytes(&seed.to_le_bytes())));
    get!(properties.begin_list(Some("products")));
    get!(properties.begin_map(None));
    get!(properties.put("sku", Value::Str("G-32")));
    get!(properties.end());
    get!(properties.push(Value::I64(-i64::from(seed) - 1)));
    get!(properties.end());

    let mut header = header(seed);
    header.alg = alg;
    let mut writer = get!(FrameWriter::new(&mut buffer[..], &header));
    get!(writer.extension(ExtensionKind::Unknown(99), &[1, 2, 3]));
    get!(writer.context(&Context { locale: Some("de-CH"), ..Context::default() }));
    let url = Context { url: Some("https://shop.example/"), ..Context::default() };
    let event = Event {
        kind: EventKind::Page,
        offset_ms: seed.into(),
        id: Some(ForeignId { vendor: Vendor::Segment, id: "m-1" }),
        name: "Home",
        context: get!(ContextDelta::encode(&url, &mut delta)),
        properties: get!(properties.finish()),
    };
    get!(writer.event(&event));
    get!(writer.event(&Event { name: "Largest", offset_ms: i64::MIN, ..Event::default() }));
    let bytes = get!(writer.finish(signer));

    ensure!(Header::peek(bytes) == Ok(Header { count: 2, ..header }));
    let frame = get!(Frame::parse(bytes));
    if let Some(verifier) = verifier {
        get!(frame.verify(verifier));
    }
    get!(frame.check());
    let (context, mut events) = get!(frame.open());
    let Some(Ok(read)) = events.next() else { return Err(line!()) };
    ensure!(read == event);
    ensure!(get!(read.context.apply(&context)).locale == Some("de-CH"));
    ensure!(read.properties.get("number") == Some(Value::U64(seed.into())));
    let Some(Value::List(products)) = read.properties.get("products") else { return Err(line!()) };
    let Some(Value::Map(product)) = products.iter().next() else { return Err(line!()) };
    ensure!(product.get("sku") == Some(Value::Str("G-32")));
    ensure!(events.nth(1).is_none());

    // A changed byte is found.
    let mut changed = [0; 2048];
    let Some(changed) = changed.get_mut(..bytes.len()) else { return Err(line!()) };
    changed.copy_from_slice(bytes);
    changed[bytes.len() - alg.tag_len() - 1] ^= 1;
    ensure!(Frame::parse(changed).err() == Some(Error::Crc));
    Ok(())
}

fn header(seed: u32) -> Header {
    Header::new(TenantId::new(seed.into()), SourceId::new([seed as u8; 16]), Timestamp::from_millis(seed.into()))
}

/// Roots, leases, sessions and envelopes.
#[unsafe(no_mangle)]
pub extern "C" fn keys(seed: u32) -> u32 {
    exit((|| {
        let (now, region) = (Timestamp::from_millis(1_700_000_000_000 + u64::from(seed)), get!(Region::new(*b"EU")));
        let mut roots = Keyring::<2>::new();
        get!(roots.insert(KeyId::FIRST, RootKey::new([seed as u8; 32]), now, None));
        get!(roots.rotate(KeyId::FIRST.next(), RootKey::new([!seed as u8; 32]), now.offset(1)));
        let (id, root) = get!(roots.current(now));
        ensure!(id == KeyId::FIRST);

        let (worker, epoch) = (WorkerId::new(7), Epoch::at(now));
        let mut header = header(seed);
        let grant = SessionGrant {
            worker,
            region,
            expires: now.offset(60_000),
            holder: Holder::new("https://shop.example", "fh_00000000000a11ce_Kq7Zp0c3Vn8Rb5Ls"),
        };
        let mut leases = LeaseRing::<2>::new();
        leases.insert(id, epoch, root.lease(&grant.scope(header.tenant, epoch)));
        let (_, _, lease) = get!(leases.current(now));

        let key = get!(MacKey::new(Alg::HmacSha256Trunc128, &lease.session_secret(header.source, &grant)));
        (header.flags, header.alg, header.key_id, header.epoch) = (Flags::TRUST, Alg::HmacSha256Trunc128, id, epoch);
        let mut buffer = [0; 512];
        let mut writer = get!(FrameWriter::new(&mut buffer[..], &header));
        get!(writer.extension(ExtensionKind::Session, &grant.to_bytes()));
        get!(writer.event(&Event::default()));
        let bytes = get!(writer.finish(&key));
        ensure!(lease.verify_session(&get!(Frame::parse(bytes)), now) == Ok(grant));

        let key = get!(lease.envelope_key(Alg::Blake3));
        header.alg = Alg::Blake3;
        let network = Network::of(core::net::IpAddr::V4(core::net::Ipv4Addr::from_bits(seed)));
        let annotation = Annotation { received_ms: seed.into(), network, ..Annotation::default() };
        let mut envelope = [0; 1024];
        let notes = Notes { rules: seed, city: "Bern", ..Notes::default() };
        let envelope = get!(seal_envelope(&mut envelope, &header, worker, (&annotation, &notes), bytes, &key));
        let frame = get!(Frame::parse(envelope));
        get!(frame.verify(&key));
        ensure!(Envelope::open(&frame) == Ok(Envelope { worker, annotation, notes: Some(notes), frame: bytes }));
        Ok(())
    })())
}

/// Sealed frames.
#[unsafe(no_mangle)]
pub extern "C" fn seals(seed: u32) -> u32 {
    exit((|| {
        let key = RegionSecretKey::new(RegionKeyId::new(seed), [seed as u8; 32]);
        let public = get!(RegionPublicKey::new(key.id(), *key.public().as_bytes()));
        let (mut buffer, mut opened) = ([0; 512], [0; 512]);
        let mut writer = get!(FrameWriter::new(&mut buffer[..], &header(seed)));
        get!(writer.seal_to(&public));
        get!(writer.event(&Event { name: "Sealed", offset_ms: seed.into(), ..Event::default() }));
        ensure!(writer.finish(&Unsigned).is_err());
        let frame = get!(Frame::parse(get!(writer.finish_sealed(&Unsigned, &[!seed as u8; 32]))));
        ensure!(frame.check() == Err(Error::Sealed));
        let other = RegionSecretKey::new(key.id(), [!seed as u8; 32]);
        ensure!(frame.unseal(&other, &mut opened).err() == Some(Error::Seal));
        let open = get!(frame.unseal(&key, &mut opened));
        let (_, mut events) = get!(open.open());
        let Some(Ok(event)) = events.next() else { return Err(line!()) };
        ensure!(event.name == "Sealed" && event.offset_ms == i64::from(seed));
        Ok(())
    })())
}

/// What was seen, and what becomes of it.
#[unsafe(no_mangle)]
pub extern "C" fn windows(seed: u32) -> u32 {
    exit((|| {
        let mut ids = DedupWindow::<64>::new((seed.into(), 1));
        let mut seqs = SeqWindow::<4>::new();
        for i in 0..65u32 {
            let expected = if i < 64 { Insert::Fresh } else { Insert::FreshForgetting(seed.into()) };
            ensure!(ids.insert(u128::from(seed) + u128::from(i)) == expected);
            ensure!(seqs.insert(u64::from(seed) + u64::from(i)) != SeqVerdict::Duplicate);
        }
        ensure!(ids.insert(u128::from(seed) + 64) == Insert::Duplicate);
        ensure!(seqs.insert(u64::from(seed) + 64) == SeqVerdict::Duplicate);
        ensure!(Outcome::Quarantined(Reason::Refused(Error::Crc)).as_str() == "quarantined");

        let source =
            SourceId::of_foreign(TenantId::new(seed.into()), &ForeignId { vendor: Vendor::Segment, id: "m-1" });
        let mut text = Text::default();
        get!(core::fmt::write(&mut text, format_args!("{}", EventId { source, seq: seed.into() })));
        ensure!(get!(text.as_str().parse::<EventId>()) == EventId { source, seq: seed.into() });
        ensure!(WriteKey::parse(text.as_str()).is_err());
        Ok(())
    })())
}

/// Text on the stack.
struct Text {
    bytes: [u8; 64],
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; 64], len: 0 }
    }
}

impl Text {
    fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl core::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(core::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
