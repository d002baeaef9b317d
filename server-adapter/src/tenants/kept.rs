//! Keys that follow from leases, as long as there is room for them: to derive one takes as long as to check a small frame with it.
//!
//! Each thread has its own, so that none waits for another. A key is found by the lease that it follows from, which is asked for first: where a root
//! has ended, nobody finds what followed from it. What has made room is derived again. Only what a signature has held under is kept, so that whoever
//! forges takes nobody's place.

use std::cell::RefCell;

use firsthop_core::{Alg, Error, Frame, LeaseKey, MacKey, SessionGrant, SourceId, Timestamp};

/// How many a thread keeps, each in less than half a kilobyte: an hour's envelopes of an edge have one, and so has a page's session.
const KEYS: usize = 2048;

thread_local! {
    static KEPT: RefCell<Vec<Option<Box<Kept>>>> = const { RefCell::new(Vec::new()) };
}

/// Whose key: one session's, or the lease's own for envelopes.
type Session = Option<(SourceId, SessionGrant)>;

/// A key, and what it follows from.
struct Kept {
    lease: LeaseKey,
    session: Session,
    alg: Alg,
    key: MacKey,
}

/// Checks a frame against the session that it claims, under this lease.
///
/// # Errors
/// As [`LeaseKey::verify_session`].
pub(crate) fn verify_session(lease: &LeaseKey, frame: &Frame<'_>, now: Timestamp) -> Result<SessionGrant, Error> {
    let (grant, header) = (frame.session()?, frame.header());
    let derive = || MacKey::new(header.alg, &lease.session_secret(header.source, &grant));
    by(lease, Some((header.source, grant)), header.alg, derive, |key| SessionGrant::verify(frame, now, key))
}

/// Checks an envelope's signature under this lease.
///
/// # Errors
/// [`Error::Algorithm`], [`Error::Signature`].
pub(crate) fn verify_envelope(lease: &LeaseKey, frame: &Frame<'_>) -> Result<(), Error> {
    let alg = frame.header().alg;
    by(lease, None, alg, || lease.envelope_key(alg), |key| frame.verify(key))
}

/// Checks by the key that is kept, or by one that is derived and kept if it held.
fn by<T>(
    lease: &LeaseKey,
    session: Session,
    alg: Alg,
    derive: impl FnOnce() -> Result<MacKey, Error>,
    check: impl FnOnce(&MacKey) -> Result<T, Error>,
) -> Result<T, Error> {
    KEPT.with_borrow_mut(|kept| {
        if kept.is_empty() {
            kept.resize_with(KEYS, || None);
        }
        let place = &mut kept[place(lease, &session)];
        if let Some(kept) = place
            && (kept.lease.expose(), kept.session, kept.alg) == (lease.expose(), session, alg)
        {
            return check(&kept.key);
        }
        let key = derive()?;
        let checked = check(&key)?;
        *place = Some(Box::new(Kept { lease: lease.clone(), session, alg, key }));
        Ok(checked)
    })
}

/// The one place that a key may have.
fn place(lease: &LeaseKey, session: &Session) -> usize {
    match session {
        // The last bytes of an id are random; the first ones of a page's are its clock.
        Some((source, _)) => source.as_u128() as usize % KEYS,
        None => usize::from(u16::from_le_bytes([lease.expose()[0], lease.expose()[1]])) % KEYS,
    }
}

#[cfg(test)]
mod tests {
    use firsthop_core::{
        Epoch, ExtensionKind, Flags, FrameWriter, Header, Holder, LeaseScope, Region, RootKey, TenantId, WorkerId,
    };
    use proptest::prelude::*;

    use super::*;

    const EPOCH: Epoch = Epoch::new(500_000);
    const TENANT: TenantId = TenantId::new(5);

    fn after(millis: u64) -> Timestamp {
        Timestamp::from_millis(EPOCH.start().as_millis() + millis)
    }

    fn lease(root: u8) -> LeaseKey {
        let scope = LeaseScope { tenant: TENANT, region: Region::ANY, worker: WorkerId::new(0), epoch: EPOCH };
        RootKey::new([root; 32]).lease(&scope)
    }

    /// A frame whose session ends then, signed under a root's lease.
    fn frame(root: u8, source: u8, expires: Timestamp, alg: Alg) -> Vec<u8> {
        // Those of the same place are told apart by their first byte.
        let source = SourceId::new([source, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        let grant =
            SessionGrant { worker: WorkerId::new(0), region: Region::ANY, expires, holder: Holder::new("", "fh_") };
        let mut header = Header::new(TENANT, source, EPOCH.start());
        (header.flags, header.alg, header.epoch) = (Flags::TRUST, alg, EPOCH);
        let mut writer = FrameWriter::new(vec![0; 512], &header).unwrap();
        writer.extension(ExtensionKind::Session, &grant.to_bytes()).unwrap();
        let secret = lease(root).session_secret(source, &grant);
        writer.finish(&MacKey::new(alg, &secret).unwrap()).unwrap().to_vec()
    }

    proptest! {
        /// Whatever was kept before: the verdict is the one of a key that is derived each time.
        #[test]
        fn the_verdict_is_that_of_a_key_that_is_derived(
            frames in prop::collection::vec((0_u8..2, 0_u8..2, 0_u8..3, 0_u64..3, any::<bool>(), 0_u64..4), 1..40)
        ) {
            for (signs, checks, source, expires, long, now) in frames {
                let alg = if long { Alg::HmacSha256 } else { Alg::HmacSha256Trunc128 };
                let day = 24 * 3_600_000;
                let bytes = frame(signs, source, after(1000 + expires * day / 4), alg);
                let (frame, now) = (Frame::parse(&bytes).unwrap(), after(now * 4 * day));
                let derived = lease(checks).verify_session(&frame, now);
                prop_assert_eq!(verify_session(&lease(checks), &frame, now), derived);
                // Neither is a session's key the lease's own.
                prop_assert_eq!(verify_envelope(&lease(checks), &frame), Err(Error::Signature));
            }
        }
    }

    #[test]
    fn what_held_is_kept_and_what_was_forged_is_not() {
        let kept = || KEPT.with_borrow(|kept| kept.iter().flatten().count());
        let [good, forged] = [1, 2].map(|root| frame(root, 0, after(1000), Alg::HmacSha256Trunc128));
        let check = |bytes: &[u8]| verify_session(&lease(1), &Frame::parse(bytes).unwrap(), after(0)).map(drop);
        assert_eq!((check(&forged), kept()), (Err(Error::Signature), 0));
        assert_eq!((check(&good), kept()), (Ok(()), 1));
        assert_eq!((check(&forged), check(&good), kept()), (Err(Error::Signature), Ok(()), 1));
    }
}
