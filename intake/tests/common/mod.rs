//! A tenant, its two hops, and frames for them.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

pub mod calls;

use firsthop_core::{
    Alg, Epoch, Event, ExtensionKind, Flags, FrameSigner, FrameWriter, Header, KeyId, Keyring, LeaseRing, LeaseScope,
    MacKey, Region, RootKey, SourceId, TenantId, Timestamp, Unsigned, WorkerId,
};
use firsthop_intake::{Facts, Leased, Origins, RegionSecrets, Rooted, Session, Tenant};

pub const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
pub const TENANT: TenantId = TenantId::new(0xc8);
pub const KEY: &str = "fh_00000000000000c8_Zm9vYmFyYmF6cXV4";
/// Well-formed and of the tenant's, but not one of its keys.
pub const OTHER_KEY: &str = "fh_00000000000000c8_AAAAAAAAAAAAAAAA";
/// Well-formed, of a tenant that nobody knows.
pub const STRANGE_KEY: &str = "fh_00000000000000c9_Zm9vYmFyYmF6cXV4";
pub const ORIGIN: &str = "https://www.shop.example";
pub const SOURCE: SourceId = SourceId::new([9; 16]);
pub const ROOT: [u8; 32] = [7; 32];

pub fn region(code: &str) -> Region {
    code.parse().unwrap()
}

pub fn tenant(worker: u32) -> Tenant {
    Tenant {
        id: TENANT,
        name: "Shop".into(),
        region: region("EU"),
        worker: WorkerId::new(worker),
        write_keys: vec![KEY.into()],
        origins: Origins::parse(["https://*.shop.example"]).unwrap(),
    }
}

pub fn server() -> Rooted {
    let mut roots = Keyring::new();
    roots.insert(KeyId::FIRST, RootKey::new(ROOT), Timestamp::from_millis(0), None).unwrap();
    Rooted { tenant: tenant(0), roots, region_secrets: RegionSecrets::default(), sealed_only: false }
}

/// An edge with leases for the three epochs about `now`.
pub fn edge(now: Timestamp) -> Leased {
    let mut leases = LeaseRing::new();
    let current = Epoch::at(now).get();
    for epoch in [current - 1, current, current + 1].map(Epoch::new) {
        let scope = LeaseScope { tenant: TENANT, region: region("EU"), worker: WorkerId::new(7), epoch };
        leases.insert(KeyId::FIRST, epoch, RootKey::new(ROOT).lease(&scope));
    }
    Leased { tenant: tenant(7), leases, region_secrets: RegionSecrets::default() }
}

pub fn facts() -> Facts<'static> {
    Facts { origin: Some(ORIGIN), ..Facts::at(NOW) }
}

pub fn header() -> Header {
    Header::new(TENANT, SOURCE, NOW)
}

pub fn frame(
    header: &Header,
    extensions: &[(ExtensionKind, &[u8])],
    events: &[Event<'_>],
    signer: &impl FrameSigner,
) -> Vec<u8> {
    let mut writer = FrameWriter::new(vec![0; 64 * 1024], header).unwrap();
    for &(kind, value) in extensions {
        writer.extension(kind, value).unwrap();
    }
    for event in events {
        writer.event(event).unwrap();
    }
    writer.finish(signer).unwrap().to_vec()
}

pub fn event() -> Event<'static> {
    Event { name: "Product Viewed", ..Event::default() }
}

/// A page's first frame.
pub fn first_frame() -> Vec<u8> {
    with_key(KEY)
}

pub fn with_key(key: &str) -> Vec<u8> {
    frame(&header(), &[(ExtensionKind::WriteKey, key.as_bytes())], &[event(), event()], &Unsigned)
}

pub fn session_header(session: &Session) -> Header {
    Header {
        flags: Flags::TRUST,
        alg: session.alg,
        key_id: session.key_id,
        epoch: session.epoch,
        region: session.region,
        batch_seq: 1,
        first_seq: 2,
        ..header()
    }
}

/// A frame of a page that has a session.
pub fn session_frame(session: &Session) -> Vec<u8> {
    session_frame_as(&session_header(session), session)
}

pub fn session_frame_as(header: &Header, session: &Session) -> Vec<u8> {
    let key = MacKey::new(Alg::HmacSha256Trunc128, &session.secret).unwrap();
    frame(header, &[(ExtensionKind::Session, &session.grant.to_bytes())], &[event()], &key)
}

/// Fills with a counter: every call's bytes are its own.
pub fn counter() -> impl FnMut(&mut [u8]) {
    let mut count = 0u64;
    move |bytes| {
        count += 1;
        bytes.fill(0);
        bytes[..8].copy_from_slice(&count.to_be_bytes());
    }
}

/// Only this tenant is known.
pub fn known<T>(account: T) -> impl FnOnce(TenantId) -> Option<T> {
    |id| (id == TENANT).then_some(account)
}
