//! All rules, in their order, on one frame.

use firsthop_core::{
    Annotation, Consent, Context, Effects, Error, Frame, HashKey, Header, Network, Notes, Trust, limits::MAX_NOTES,
};

use super::{Rules, SessionRule, Without, is_gpc, redact::Redaction};
use crate::Facts;

/// What rules made of a frame.
#[derive(Clone, Debug)]
pub struct Applied<'a> {
    /// What is to be noted of the request: no more than the rules allow.
    pub annotation: Annotation<'a>,
    /// The frame in place of the one that came. None: that one, as it is.
    pub frame: Option<Vec<u8>>,
    notes: Box<[u8]>,
}

impl Applied<'_> {
    /// What is to be noted besides.
    #[must_use]
    pub fn notes(&self) -> Notes<'_> {
        // They were written by what reads them.
        Notes::from_bytes(&self.notes).unwrap_or_default()
    }

    /// The same, encoded.
    #[must_use]
    pub fn notes_bytes(&self) -> &[u8] {
        &self.notes
    }
}

/// Applies a tenant's rules to a frame that was checked. `key` is needed where [`Rules::hashes`]; `annotation` is what the request says.
///
/// # Errors
/// [`Error::UnknownKey`] if there is no key for hashes, and what is wrong with the frame's content: nothing, if it was checked.
pub fn apply<'a>(
    rules: &Rules,
    key: Option<&HashKey>,
    facts: &Facts<'a>,
    annotation: &Annotation<'a>,
    frame: &Frame<'_>,
) -> Result<Applied<'a>, Error> {
    if rules.hashes() && key.is_none() {
        return Err(Error::UnknownKey);
    }
    let header = frame.header();
    let (mut annotation, mut notes, granted) = request(rules, facts, annotation, header);
    let without = rules.consent.decide(granted);
    let redaction = Redaction { rules, key, without, granted, trusted: annotation.trust == Trust::Session };
    let written = if redaction.is_due() { redaction.write(frame)? } else { None };
    let (frame_now, effects) = written.map_or((None, Effects::default()), |(bytes, effects)| (Some(bytes), effects));
    notes.effects = notes.effects.with(effects);
    if without != Without::Keep {
        annotation.network = Network::Unknown;
        (notes.subdivision, notes.city) = ("", "");
    }
    if without == Without::Suppress {
        return Ok(applied(annotation, frame_now, &notes));
    }
    let page = first_page(frame)?;
    let found = rules.campaign.read(page.url.unwrap_or_default(), granted);
    notes.referrer = rules.referrer.class(page.url, page.referrer, &found);
    notes.campaign = found.campaign();
    notes.click_id = found.click_id.as_deref().filter(|_| without == Without::Keep).unwrap_or_default();
    if rules.session == SessionRule::Source && page.session_id.is_none() && without == Without::Keep {
        notes.effects = notes.effects.with(Effects::SESSION);
    }
    Ok(applied(annotation, frame_now, &notes))
}

/// What to note on a frame that this hop cannot read, or for which it has no key: the rules for what is in it are another's to apply.
#[must_use]
pub fn unread<'a>(rules: &Rules, facts: &Facts<'a>, annotation: &Annotation<'a>, header: &Header) -> Applied<'a> {
    let (annotation, mut notes, _) = request(rules, facts, annotation, header);
    notes.effects = notes.effects.with(Effects::UNREAD);
    applied(annotation, None, &notes)
}

/// What is noted of a request whatever is in its frame; and what the visitor grants with it.
fn request<'a>(
    rules: &Rules,
    facts: &Facts<'a>,
    annotation: &Annotation<'a>,
    header: &Header,
) -> (Annotation<'a>, Notes<'a>, Consent) {
    let mut annotation = *annotation;
    rules.place.limit(&mut annotation);
    if let Some(traffic) = rules.traffic.own(facts.user_agent) {
        annotation.traffic = traffic;
    }
    let revocable = rules.consent.revocable(header.consent);
    let is_revoked = revocable != Consent::NONE && is_gpc(facts.gpc);
    let withdrawn = if is_revoked { revocable } else { Consent::NONE };
    let (subdivision, city) = rules.place.details(facts);
    let notes = Notes {
        rules: rules.fingerprint(),
        effects: if is_revoked { Effects::GPC } else { Effects::default() },
        withdrawn,
        skew_ms: rules.clock.skew_ms(header, facts.now),
        subdivision,
        city,
        ..Notes::default()
    };
    (annotation, notes, header.consent.without(withdrawn))
}

fn applied<'a>(annotation: Annotation<'a>, frame: Option<Vec<u8>>, notes: &Notes<'_>) -> Applied<'a> {
    // All texts in them were cut to their bounds.
    let notes = notes.encode(&mut [0; MAX_NOTES]).map(Box::from).unwrap_or_default();
    Applied { annotation, frame, notes }
}

/// The context of the frame's first event: its page is the one that notes are about.
fn first_page<'a>(frame: &Frame<'a>) -> Result<Context<'a>, Error> {
    let (shared, mut events) = frame.open()?;
    match events.next() {
        Some(event) => event?.context.apply(&shared),
        None => Ok(shared),
    }
}
