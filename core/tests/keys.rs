//! Rotation, leases and sessions over time: no valid frame is refused, and nothing else is accepted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use firsthop_core::{
    Alg, Claim, Computed, DOMAIN, Epoch, Error, ExtensionKind, Flags, Frame, FrameWriter, Header, Holder, KeyId,
    Keyring, LeaseKey, LeaseRing, LeaseScope, MacKey, Region, RootKey, SessionGrant, SourceId, TenantId, Timestamp,
    WorkerId,
    limits::{MAX_SESSION_MS, ROOT_GRACE_MS, SESSION_GRACE_MS},
};
use proptest::prelude::*;

const TENANT: TenantId = TenantId::new(5);
const SOURCE: SourceId = SourceId::new([3; 16]);
const START: u64 = 1_700_000_000_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn scope(epoch: Epoch) -> LeaseScope {
    LeaseScope { tenant: TENANT, region: Region::new(*b"EU").unwrap(), worker: WorkerId::new(2), epoch }
}

/// A frame of a session that was granted under this root and epoch.
fn session_frame(id: KeyId, root: &RootKey, epoch: Epoch, expires: u64) -> Vec<u8> {
    let scope = scope(epoch);
    let holder = Holder::new("https://shop.example", "fh_00000000000a11ce_Kq7Zp0c3Vn8Rb5Ls");
    let grant = SessionGrant { worker: scope.worker, region: scope.region, expires: at(expires), holder };
    let secret = root.lease(&scope).session_secret(SOURCE, &grant);
    let mut header = Header::new(TENANT, SOURCE, at(START));
    (header.flags, header.alg, header.key_id, header.epoch) = (Flags::TRUST, Alg::HmacSha256Trunc128, id, epoch);
    let mut writer = FrameWriter::new(vec![0; 512], &header).unwrap();
    writer.extension(ExtensionKind::Session, &grant.to_bytes()).unwrap();
    writer.finish(&MacKey::new(header.alg, &secret).unwrap()).unwrap().to_vec()
}

/// What a server does that has the roots and nothing else.
fn verify<const N: usize>(roots: &Keyring<N>, bytes: &[u8], now: u64) -> Result<(), Error> {
    let frame = Frame::parse(bytes)?;
    let header = frame.header();
    let scope = frame.session()?.scope(header.tenant, header.epoch);
    roots.get(header.key_id, at(now))?.lease(&scope).verify_session(&frame, at(now)).map(|_| ())
}

proptest! {
    /// However often roots rotate: a session's frame is accepted from its grant to the end of its grace.
    #[test]
    fn rotation_refuses_no_valid_frame(
        rotations in prop::collection::vec(0..30 * 24 * 3_600_000u64, 0..6),
        granted in 0..30 * 24 * 3_600_000u64,
        lease_age in 0..2u32,
        lasts in 1..=MAX_SESSION_MS,
        late in 0..=SESSION_GRACE_MS,
        early in 0..=MAX_SESSION_MS,
    ) {
        let mut rotations = rotations;
        rotations.sort_unstable();
        let mut roots = Keyring::<8>::new();
        roots.insert(KeyId::FIRST, RootKey::new([0; 32]), at(0), None).unwrap();
        let mut id = KeyId::FIRST;
        for (i, rotation) in rotations.iter().enumerate() {
            id = id.next();
            roots.rotate(id, RootKey::new([i as u8 + 1; 32]), at(START + rotation)).unwrap();
        }
        let granted = START + granted;
        let (id, root) = roots.current(at(granted)).unwrap();
        // A hop may use a lease for one epoch more than its own.
        let epoch = Epoch::new(Epoch::at(at(granted)).get() - lease_age);
        let expires = granted + lasts;
        let frame = session_frame(id, root, epoch, expires);
        for now in [granted, expires - early.min(lasts), expires, expires + late] {
            // Purging forgets nothing that is still needed.
            let mut purged = roots.clone();
            purged.purge(at(now));
            prop_assert_eq!(verify(&roots, &frame, now), Ok(()));
            prop_assert_eq!(verify(&purged, &frame, now), Ok(()));
        }
        prop_assert_eq!(verify(&roots, &frame, expires + SESSION_GRACE_MS + 1).is_err(), true);
    }

    /// A ring keeps what a sorted list of the last ones keeps.
    #[test]
    fn a_lease_ring_keeps_the_newest(leases in prop::collection::vec((1..4u32, 0..8u32, any::<u8>()), 0..40)) {
        let mut ring = LeaseRing::<4>::new();
        let mut model: Vec<((Epoch, KeyId), u8)> = Vec::new();
        for (id, epoch, byte) in leases {
            let (id, epoch) = (KeyId::new(id), Epoch::new(epoch));
            ring.insert(id, epoch, LeaseKey::new([byte; 32]));
            model.retain(|(key, _)| *key != (epoch, id));
            model.push(((epoch, id), byte));
            model.sort_unstable();
            if model.len() > 4 {
                model.remove(0);
            }
            for (id, epoch) in (1..4).flat_map(|id| (0..8).map(move |epoch| (KeyId::new(id), Epoch::new(epoch)))) {
                let held = model.iter().find(|(key, _)| *key == (epoch, id)).map(|(_, byte)| [*byte; 32]);
                prop_assert_eq!(ring.get(id, epoch).ok().map(|key| *key.expose()), held);
            }
            prop_assert_eq!(ring.last_epoch(), model.last().map(|((epoch, _), _)| *epoch));
            for hour in 0..8 {
                let newest = model.iter().rfind(|((epoch, _), _)| epoch.get() == hour);
                let current = ring.current(Epoch::new(hour).start()).ok().map(|(id, epoch, key)| ((epoch, id), key.expose()[0]));
                prop_assert_eq!(current, newest.copied());
            }
        }
    }

    /// One derived key is worth nothing for another tenant, region, worker, epoch, source, origin, write key or end.
    #[test]
    fn keys_are_bound_to_their_scope(which in 0..8usize, bit in 0..8u32) {
        let root = RootKey::new([9; 32]);
        let (mut scope, mut source) = (scope(Epoch::new(400_000)), SOURCE);
        let mut grant = SessionGrant { worker: scope.worker, region: scope.region, expires: at(START), holder: Holder::new("", "") };
        let secret = *root.lease(&scope).session_secret(source, &grant);
        match which {
            0 => scope.tenant = TenantId::new(TENANT.get() ^ 1 << (8 * bit)),
            1 => scope.region = Region::new([b'A' + bit as u8, b'Q']).unwrap(),
            2 => scope.worker = WorkerId::new(scope.worker.get() ^ 1 << (bit * 4)),
            3 => scope.epoch = Epoch::new(scope.epoch.get() ^ 1 << bit),
            4 => source = SourceId::new([3 ^ 1 << bit; 16]),
            5 => grant.holder = Holder::new(&"x".repeat(1 + bit as usize), ""),
            6 => grant.holder = Holder::new("", &"x".repeat(1 + bit as usize)),
            _ => grant.expires = at(START ^ 1 << (7 * bit)),
        }
        prop_assert_ne!(*root.lease(&scope).session_secret(source, &grant), secret);
        prop_assert_ne!(*RootKey::new([8; 32]).lease(&scope).session_secret(source, &grant), secret);
    }
}

#[test]
fn a_root_signs_from_its_beginning_and_verifies_to_its_end() {
    let mut roots = Keyring::<2>::new();
    assert_eq!(roots.current(at(5)).err(), Some(Error::UnknownKey));
    roots.insert(KeyId::new(1), RootKey::new([1; 32]), at(10), None).unwrap();
    assert_eq!(roots.insert(KeyId::new(1), RootKey::new([9; 32]), at(10), None), Err(Error::State));
    assert_eq!(roots.current(at(9)).err(), Some(Error::UnknownKey));
    assert!(roots.get(KeyId::new(1), at(0)).is_ok(), "another's clock may be ahead");

    roots.rotate(KeyId::new(2), RootKey::new([2; 32]), at(20)).unwrap();
    let current = |roots: &Keyring<2>, now| roots.current(at(now)).map(|(id, key)| (id.get(), key.expose()[0]));
    assert_eq!(current(&roots, 19), Ok((1, 1)));
    assert_eq!(current(&roots, 20), Ok((2, 2)));
    assert_eq!(roots.insert(KeyId::new(3), RootKey::new([3; 32]), at(30), None), Err(Error::RingFull));
    assert!(roots.get(KeyId::new(1), at(20 + ROOT_GRACE_MS - 1)).is_ok());
    assert_eq!(roots.get(KeyId::new(1), at(20 + ROOT_GRACE_MS)).err(), Some(Error::UnknownKey));

    // A stolen one ends at once, and its place is free.
    roots.retire(KeyId::new(1), at(25)).unwrap();
    assert_eq!(roots.get(KeyId::new(1), at(25)).err(), Some(Error::UnknownKey));
    assert_eq!(roots.retire(KeyId::new(7), at(25)), Err(Error::UnknownKey));
    roots.purge(at(24));
    assert!(roots.get(KeyId::new(1), at(24)).is_ok());
    roots.purge(at(25));
    assert_eq!(roots.get(KeyId::new(1), at(24)).err(), Some(Error::UnknownKey));
    roots.insert(KeyId::new(3), RootKey::new([3; 32]), at(30), None).unwrap();
    assert_eq!(current(&roots, 30), Ok((3, 3)));
}

#[test]
fn an_epoch_is_current_in_its_neighbours_too() {
    let now = Epoch::new(100).start();
    for (epoch, verdict) in
        [(98, Err(Error::Epoch)), (99, Ok(())), (100, Ok(())), (101, Ok(())), (102, Err(Error::Epoch))]
    {
        assert_eq!(Epoch::new(epoch).check_current(now), verdict);
    }
    assert_eq!(Epoch::at(at(u64::MAX)).get(), u32::MAX);
    assert_eq!(Epoch::at(Epoch::new(u32::MAX).start()).get(), u32::MAX);
}

/// A hop whose platform computes the tag comes to the same verdicts.
#[test]
fn what_was_computed_elsewhere_counts_as_what_is_computed_here() {
    use hmac::{Hmac, KeyInit, Mac};

    let (root, epoch) = (RootKey::new([7; 32]), Epoch::new(100));
    let (now, lease) = (epoch.start(), root.lease(&scope(epoch)));
    let bytes = &session_frame(KeyId::FIRST, &root, epoch, now.as_millis() + 1000)[..];

    let claim = Claim::peek(bytes).unwrap();
    let secret = lease.session_secret(claim.header.source, &claim.grant);
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&secret[..]).unwrap();
    mac.update(DOMAIN);
    mac.update(claim.signed);
    let mac: [u8; 32] = mac.finalize().into_bytes().into();
    let frame = Frame::parse(bytes).unwrap();
    let verify = |mac, now| SessionGrant::verify(&frame, now, &Computed::new(frame.header().alg, mac).unwrap());
    assert_eq!(verify(mac, now), lease.verify_session(&frame, now));
    assert_eq!(verify([0; 32], now), Err(Error::Signature));
    assert_eq!(verify(mac, Epoch::new(500).start()), Err(Error::SessionExpired));
    assert!(Computed::new(Alg::None, mac).is_err() && Computed::new(Alg::Blake3, mac).is_err());
    assert!(Claim::peek(&bytes[..40]).is_none());
}

/// Secrets do not show in what is printed.
#[test]
fn secrets_are_redacted() {
    let root = RootKey::new([0xab; 32]);
    let lease = root.lease(&scope(Epoch::new(1)));
    let mac = MacKey::new(Alg::HmacSha256, &[0xab; 32]).unwrap();
    let mut roots = Keyring::<2>::new();
    roots.insert(KeyId::FIRST, root.clone(), at(0), None).unwrap();
    assert_eq!(format!("{root:?} {lease:?} {mac:?}"), "RootKey(…) LeaseKey(…) MacKey(HmacSha256, …)");
    assert!(!format!("{roots:?}").contains("171"));
    assert!(MacKey::new(Alg::None, &[0; 32]).is_err() && MacKey::new(Alg::Ed25519, &[0; 32]).is_err());
}

/// RFC 5869 and RFC 2104 by hand, from another implementation (Python's `hmac`): years from now it must be the same.
#[test]
fn hash_keys_are_of_a_tenant_a_region_and_a_generation() {
    let root = RootKey::new([7; 32]);
    let eu = Region::new(*b"EU").unwrap();
    let hash =
        |tenant, region, generation| root.hash_key(TenantId::new(tenant), region, generation).hash(b"ada@example.com");
    let hex: String = hash(5, eu, 1).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "ddb76e17c16421c3ef13acd77662f437");
    for other in [hash(6, eu, 1), hash(5, Region::new(*b"US").unwrap(), 1), hash(5, eu, 2)] {
        assert_ne!(hash(5, eu, 1), other);
    }
}
