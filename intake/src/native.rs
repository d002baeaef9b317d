//! Native frames: bounds, CRC, region gate, write key or session, origin, seal, events; in that order.

use firsthop_core::{
    Alg, Annotation, Claim, Computed, Error, ExtensionKind, Flags, Frame, Header, Holder, LeaseKey, SessionGrant,
    TenantId, Timestamp, Trust, limits::MAX_FRAME,
};

use crate::{
    Account, Contents, Facts, Problem, Refusal, Refused, Session, Tenant,
    account::HIDDEN,
    annotate::{annotate, check_encoding},
};

/// Largest body of `POST /v1/f`, in bytes.
pub const MAX_BODY: usize = MAX_FRAME;

/// A frame that was accepted: somebody answers for it, and every event of it can be read, unless it is sealed and the key is another hop's.
#[derive(Debug)]
pub struct Accepted<'a, T> {
    /// Whose it is.
    pub account: T,
    /// The frame as it came.
    pub frame: Frame<'a>,
    /// What can be read of it: [`readable`](Self::readable).
    pub contents: Contents,
    /// How many of its events have an id of another vendor's; 0 if they cannot be read.
    pub foreign: usize,
    /// What to note on it. Its `trust` says who answers for the frame.
    pub annotation: Annotation<'a>,
    /// The session that goes into the receipt, if the source needs one.
    pub session: Option<Session>,
}

impl<T> Accepted<'_, T> {
    /// The frame with events that can be read: its [`open`](Frame::open) and they cannot fail. None if it is sealed and this hop has not the key.
    #[must_use]
    pub fn readable(&self) -> Option<Frame<'_>> {
        self.contents.of_frame(&self.frame)
    }
}

/// Decides on a body of `POST /v1/f`. `lookup` finds what the hop knows of a tenant; it is asked at most once.
///
/// A caller whose knowledge may be old can look for news when the refusal is [`Error::WriteKey`] or
/// [`Error::UnknownKey`], and ask again.
///
/// # Errors
/// Whatever is wrong with it, and for whom to set it aside.
pub fn receive<'a, T: Account>(
    body: &'a [u8],
    facts: &Facts<'a>,
    lookup: impl FnOnce(TenantId) -> Option<T>,
) -> Result<Accepted<'a, T>, Box<Refused<'a, T>>> {
    let annotation = annotate(facts);
    // Before anything is known to hold, the header may still say whose the bytes seem to be.
    let peeked = Header::peek(body).ok();
    let account = peeked.and_then(|header| lookup(header.tenant));
    let checked = match &account {
        Some(account) => check(body, facts, account),
        None => Err(nobodys(body, facts)),
    };
    match (checked, account) {
        (Ok(Checked { frame, contents, foreign, trust, session }), Some(account)) => {
            Ok(Accepted { account, frame, contents, foreign, annotation: Annotation { trust, ..annotation }, session })
        }
        (Ok(_), None) => Err(Refused::new(Refusal::Internal, None, body, 1, annotation)),
        (Err(problem), account) => {
            // What is for another region is not kept in this one, broken or not.
            let admitted = |account: &T| peeked.is_some_and(|header| account.tenant().admits(header.region).is_ok());
            let count = peeked.map_or(1, |header| header.count.max(1));
            Err(Refused::new(problem, account.filter(admitted), body, count, annotation))
        }
    }
}

/// Who answers for a frame: its signature, or its write key. For frames that another hop has let in already, whose
/// origin that hop has checked.
///
/// # Errors
/// [`Error::Session`], [`Error::SessionExpired`], [`Error::Epoch`], [`Error::UnknownKey`], [`Error::Algorithm`],
/// [`Error::Signature`] for a frame that claims a session; [`Error::WriteKey`] for one that does not, and
/// [`Error::Algorithm`] if it is signed all the same, since nobody has that key.
pub fn authenticate(
    frame: &Frame<'_>,
    account: &impl Account,
    now: Timestamp,
) -> Result<(Trust, Option<SessionGrant>), Error> {
    authenticate_by(frame, account, now, None)
}

/// The session that a body claims and the lease that it would have been granted under, for a hop that computes the tag before it lets the body be
/// looked at: it keeps the keys of sessions, or its platform has HMAC. None if there is no such session or lease, or the body is not for it to read.
#[must_use]
pub fn claimed<'a>(body: &'a [u8], account: &impl Account, now: Timestamp) -> Option<(LeaseKey, Claim<'a>)> {
    let claim = Claim::peek(body)?;
    let Claim { header, grant, .. } = &claim;
    account.tenant().admits(header.region).ok()?;
    let lease = account.lease(header.key_id, &grant.scope(header.tenant, header.epoch), now).ok()??;
    Some((lease, claim))
}

/// `mac` is what was computed for the frame under the secret of the session that it [claims](claimed).
fn authenticate_by(
    frame: &Frame<'_>,
    account: &impl Account,
    now: Timestamp,
    mac: Option<[u8; 32]>,
) -> Result<(Trust, Option<SessionGrant>), Error> {
    let header = frame.header();
    if !header.flags.contains(Flags::TRUST) {
        if header.alg != Alg::None {
            return Err(Error::Algorithm);
        }
        account.tenant().check_write_key(&frame.write_key()?)?;
        return Ok((Trust::WriteKey, None));
    }
    let grant = frame.session()?;
    match account.lease(header.key_id, &grant.scope(header.tenant, header.epoch), now)? {
        Some(lease) => {
            let grant = match mac {
                Some(mac) => SessionGrant::verify(frame, now, &Computed::new(header.alg, mac)?)?,
                None => account.verify_session(&lease, frame, now)?,
            };
            Ok((Trust::Session, Some(grant)))
        }
        None if header.alg == Alg::None => Err(Error::Algorithm),
        None => Ok((Trust::Unchecked, Some(grant))),
    }
}

/// A frame that nothing is wrong with.
struct Checked<'a> {
    frame: Frame<'a>,
    contents: Contents,
    foreign: usize,
    trust: Trust,
    session: Option<Session>,
}

/// Everything that can be wrong with the bytes, in the order in which it is looked for.
fn check<'a>(body: &'a [u8], facts: &Facts<'a>, account: &impl Account) -> Result<Checked<'a>, Problem> {
    account.has_room(body.len())?;
    let frame = parse(body, facts)?;
    let tenant = account.tenant();
    tenant.admits(frame.header().region)?;
    let (trust, grant) = authenticate_by(&frame, account, facts.now, facts.mac)?;
    tenant.origins.check(facts.origin)?;
    let origin = facts.origin.unwrap_or_default();
    if let Some(grant) = &grant {
        check_holder(&grant.holder, origin, tenant)?;
    }
    account.admit(frame.header().count, body.len())?;
    account.check_sealed(frame.header().flags.contains(Flags::SEALED))?;
    let contents = Contents::of(&frame, account)?;
    let foreign = contents.of_frame(&frame).map_or(Ok(0), |frame| frame.check())?;
    let source = frame.header().source;
    let session = match grant {
        Some(grant) => Session::renewal(account, source, &grant, facts.now),
        None => Session::mint(account, source, Holder::new(origin, frame.write_key()?.as_str()), facts.now),
    };
    Ok(Checked { frame, contents, foreign, trust, session })
}

/// Whether a session may be used here: its write key is one of the tenant's still, and the request comes from its origin.
fn check_holder(holder: &Holder, origin: &str, tenant: &Tenant) -> Result<(), Problem> {
    if !tenant.write_keys.iter().any(|key| holder.has_write_key(key)) {
        return Err(Problem::new(Error::WriteKey).with_detail("the session was granted for a write key of before"));
    }
    // `navigator.sendBeacon` hides the origin under `Referrer-Policy: no-referrer`, at the one moment that has no retry; `fetch` on the
    // same page told it. A tenant that lets hidden origins in, and nobody gets here else, has no use for the difference.
    if origin != HIDDEN && !holder.has_origin(origin) {
        return Err(Problem::new(Error::Origin).with_detail("the session was granted to another origin"));
    }
    Ok(())
}

/// That a frame is its producer's: only a hop that answers for it may say that its rules have written it anew, since such events are told
/// from others by nothing but their numbers.
///
/// # Errors
/// [`Error::Reserved`].
pub fn check_own(frame: &Frame<'_>) -> Result<(), Problem> {
    match frame.extensions().get(ExtensionKind::Rewritten) {
        None => Ok(()),
        Some(_) => Err(Problem::new(Error::Reserved).with_detail("extension 7 is for first hops")),
    }
}

fn parse<'a>(body: &'a [u8], facts: &Facts<'_>) -> Result<Frame<'a>, Problem> {
    check_encoding(facts.content_encoding)?;
    if body.len() > MAX_BODY {
        return Err(Problem::body_too_large(MAX_BODY));
    }
    let frame = Frame::parse(body)?;
    if frame.header().flags.contains(Flags::ENVELOPE) {
        return Err(Problem::new(Error::Reserved).with_detail("an envelope goes to /v1/e"));
    }
    check_own(&frame)?;
    Ok(frame)
}

/// What to say of bytes that name no tenant whom the hop knows: first what is wrong with the bytes themselves.
fn nobodys(body: &[u8], facts: &Facts<'_>) -> Problem {
    match parse(body, facts) {
        Err(problem) => problem,
        Ok(frame) if frame.header().flags.contains(Flags::TRUST) => Error::UnknownKey.into(),
        Ok(_) => Error::WriteKey.into(),
    }
}
