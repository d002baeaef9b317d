//! This server as the hop that reads a frame first: where there is no edge, and where the edge could not read it or had no rules.

use bytes::Bytes;
use firsthop_core::{Annotation, Effects, Envelope, Error, Frame, HashKey, Notes, Region};
use firsthop_intake::{
    Facts,
    rules::{Applied, Rules, apply, is_gpc},
};

use crate::{
    journal::{Arrival, At, Noted, stored_as},
    tenants::{KeyFile, TenantFile},
};

/// A tenant's rules, and what they need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstHop<'a> {
    pub(crate) file: &'a TenantFile,
    pub(crate) keys: &'a KeyFile,
}

impl<'a> FirstHop<'a> {
    pub(crate) fn rules(&self) -> &'a Rules {
        match &self.file.policy {
            Some(policy) => &policy.rules,
            None => Rules::none(),
        }
    }

    /// The key that values are hashed with in a region, if the rules hash any. It comes from the tenant's first root, which stays in the file
    /// when it has ended: what is the same is the same for years.
    pub(crate) fn hash_key(&self, region: Region) -> Option<HashKey> {
        let rules = self.rules();
        let root = self.keys.roots.iter().min_by_key(|root| root.id).filter(|_| rules.hashes())?;
        Some(root.secret.hash_key(self.file.id, region, rules.hash_generation))
    }

    /// A frame that was checked, in the body in which it came, as the rules want it.
    pub(super) fn arrive(
        &self,
        body: &Bytes,
        frame: &Frame<'_>,
        foreign: bool,
        at: At,
        facts: &Facts<'_>,
        annotation: &Annotation<'_>,
    ) -> Result<Arrival, Error> {
        let applied = apply(self.rules(), self.hash_key(at.region).as_ref(), facts, annotation, frame)?;
        let noted = Some(stored_as(&applied.annotation, applied.notes_bytes())?);
        match &applied {
            Applied { frame: None, .. } => Arrival::noted(body, frame, foreign, at, noted),
            Applied { frame: Some(bytes), .. } => {
                let body = Bytes::copy_from_slice(bytes);
                Arrival::noted(&body, &Frame::parse(&body)?, foreign, at, noted)
            }
        }
    }

    /// The same of a frame that an edge has forwarded: as it came, if the edge has applied the rules. `annotation`: what this server knows better.
    pub(super) fn arrive_from(
        &self,
        body: &Bytes,
        (envelope, frame): (&Envelope<'_>, &Frame<'_>),
        foreign: bool,
        at: At,
        annotation: Option<Annotation<'_>>,
    ) -> Result<Arrival, Error> {
        let is_done = |notes: &Notes<'_>| {
            let has_rules = notes.rules != 0 || self.rules() == Rules::none();
            frame.rewritten().is_some() || has_rules && !notes.effects.contains(Effects::UNREAD)
        };
        if envelope.notes.as_ref().is_some_and(is_done) {
            let own = annotation.map(|annotation| Noted { annotation, notes: envelope.notes });
            return Arrival::new(body, frame, foreign, at, own.as_ref());
        }
        let noted = Noted { annotation: annotation.unwrap_or(envelope.annotation), notes: envelope.notes };
        self.arrive(body, frame, foreign, at, &facts_of(&noted, at), &noted.annotation)
    }

    /// What is noted on what is set aside.
    pub(super) fn aside(&self, facts: &Facts<'_>, annotation: &Annotation<'_>) -> Result<Box<[u8]>, Error> {
        let mut noted = Noted::from(*annotation);
        self.rules().place.limit(&mut noted.annotation);
        // What a replay has to know.
        noted.notes =
            is_gpc(facts.gpc).then(|| Notes { effects: Effects::GPC.with(Effects::UNREAD), ..Notes::default() });
        noted.encode()
    }
}

/// What was noted of a request, as facts for rules that are applied later.
pub(super) fn facts_of<'n>(noted: &Noted<'n>, at: At) -> Facts<'n> {
    let notes = noted.notes.unwrap_or_default();
    let known = |text: &'n str| Some(text).filter(|text| !text.is_empty());
    Facts {
        gpc: notes.effects.contains(Effects::GPC).then_some("1"),
        subdivision: known(notes.subdivision),
        city: known(notes.city),
        ..Facts::at(at.time)
    }
}
