//! What an answer says of a frame.

use firsthop_core::Header;

use crate::{Problem, Receipt, Refusal, Verdict};

/// What an answer to an envelope says of what is inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server has it.
    Stored(Receipt),
    /// The server has looked at it and set it aside: to send it again is of no use.
    SetAside,
    /// The server has looked at it and will not have it, and has no room to set it aside: nothing of it is kept.
    NotKept,
    /// The tenant sends more than it may. The server is there; the frame has to wait.
    Limited,
    /// The server is away, or in trouble: it says nothing of the frame.
    Away,
    /// Somebody will not have these very bytes, and has not set them aside: too large for a proxy, damaged on the way, or for quarantine, which
    /// is full. They must be kept; others may well get through.
    Unfit,
    /// Somebody between here and the server will not have it, and does not say whether it is these bytes (a firewall's rule) or anything of
    /// this edge's (a wrong address). It must be kept; what becomes of others tells.
    Barred,
    /// The server will have nothing of this edge's or this tenant's, by its own word: an enrolment that ended, a root that is gone. It may take
    /// an operator, so to ask often is of no use; and nothing was set aside, so it must be kept.
    Refused,
}

/// What is in an envelope: what its receipt has to be of.
#[derive(Clone, Copy, Debug)]
pub enum Inside<'a> {
    /// A producer's frame. Its receipt names it and accounts for every event.
    Frame(&'a Header),
    /// What a hop has refused, as so many events by its own word. It is none, so its receipt has none.
    Refused(u16),
}

impl Inside<'_> {
    /// How many events it is by its own word.
    #[must_use]
    pub const fn count(self) -> u16 {
        match self {
            Self::Frame(header) => header.count,
            Self::Refused(count) => count,
        }
    }

    fn is_in(self, receipt: &Receipt) -> bool {
        let Receipt { count, stored, duplicate, conflict, spooled, suppressed, .. } = *receipt;
        let known = [stored, duplicate, conflict, suppressed].into_iter().map(u64::from).sum::<u64>();
        // A server has no spool.
        if spooled > 0 || known != u64::from(count) {
            return false;
        }
        match self {
            Self::Frame(header) => {
                let expected = (header.source, header.batch_seq, header.first_seq, u32::from(header.count));
                (receipt.source, receipt.batch, receipt.first, count) == expected
            }
            Self::Refused(_) => count == 0,
        }
    }
}

impl Fate {
    /// Reads an answer to an envelope with this inside: its status, its header [`Verdict::HEADER`] and its body.
    ///
    /// A refusal is the server's verdict on the frame only if it says in its receipt what became of it. Any other is of the envelope, or of
    /// somebody between here and the server; to take it for a verdict would throw away what was never looked at. What answers 2xx without this
    /// very frame's receipt has not answered: nothing is known to be stored.
    #[must_use]
    pub fn of(status: u16, verdict: Option<&str>, body: &[u8], inside: Inside<'_>) -> Self {
        let verdict = || verdict.and_then(|verdict| Verdict::from_header(verdict).ok());
        match status {
            200..=299 => match Receipt::from_json(body) {
                Ok(receipt) if inside.is_in(&receipt) => Self::Stored(receipt),
                _ => Self::Away,
            },
            400..=499 | 501 if verdict().is_some_and(|verdict| verdict.quarantined > 0) => Self::SetAside,
            400..=499 | 501 if verdict().is_some_and(|verdict| verdict == Verdict::default()) => Self::NotKept,
            429 => Self::Limited,
            503 if Problem::code_in(body).as_deref() == Some(Refusal::QuarantineFull.code()) => Self::Unfit,
            408 | 425 | 500.. => Self::Away,
            400 | 409 | 411..=415 | 422 | 431 => Self::Unfit,
            _ if Problem::code_in(body).is_some() => Self::Refused,
            _ => Self::Barred,
        }
    }

    /// Whether it says something of this frame and nothing of others.
    pub(super) const fn is_of_the_frame(&self) -> bool {
        matches!(self, Self::Unfit | Self::NotKept)
    }

    /// Whether it takes somebody to look into it.
    pub(super) const fn takes_an_operator(&self) -> bool {
        matches!(self, Self::Barred | Self::Refused)
    }
}

#[cfg(test)]
mod tests {
    use firsthop_core::{SourceId, Timestamp};

    use super::*;

    fn header() -> Header {
        Header { count: 2, ..Header::new(Default::default(), SourceId::default(), Timestamp::default()) }
    }

    fn receipt() -> Receipt {
        Receipt::stored(&header())
    }

    #[test]
    fn what_an_answer_says_of_a_frame() {
        let good = receipt().to_json();
        let aside = Some("stored=0, duplicate=0, conflict=0, quarantined=1");
        let nothing = Some("stored=0, duplicate=0, conflict=0, quarantined=0");
        let problem = |refusal| Problem::new(refusal).to_json();
        let (full, unavailable) = (problem(Refusal::QuarantineFull), problem(Refusal::Unavailable));
        let (enrolment, elsewhere) = (problem(Refusal::Enrolment), problem(Refusal::NotFound));
        for (status, verdict, body, expected) in [
            (200, None, good.as_str(), Fate::Stored(receipt())),
            (200, None, "", Fate::Away),
            (204, None, "", Fate::Away),
            (200, None, "<html>welcome", Fate::Away),
            (400, aside, "", Fate::SetAside),
            (401, aside, "", Fate::SetAside),
            (413, aside, "", Fate::SetAside),
            (501, aside, "", Fate::SetAside),
            (400, nothing, "", Fate::NotKept),
            (401, nothing, &enrolment, Fate::NotKept),
            (501, nothing, "", Fate::NotKept),
            // Of a server in trouble, no word counts for a verdict.
            (500, aside, "", Fate::Away),
            (503, aside, "", Fate::Away),
            (503, nothing, "", Fate::Away),
            // Its own word for trouble with this one.
            (503, None, &full, Fate::Unfit),
            (503, None, &unavailable, Fate::Away),
            (500, None, &full, Fate::Away),
            (400, Some("quarantined"), "", Fate::Unfit),
            (400, None, "", Fate::Unfit),
            (415, None, "", Fate::Unfit),
            (422, None, "", Fate::Unfit),
            (413, None, "<html>too large", Fate::Unfit),
            // The server's word, and somebody's on the way.
            (401, None, &enrolment, Fate::Refused),
            (404, None, &elsewhere, Fate::Refused),
            (401, None, "", Fate::Barred),
            (403, None, "<html>blocked", Fate::Barred),
            (404, None, r#"{"type":"about:blank","code":"not-found"}"#, Fate::Barred),
            // One that only a newer server knows.
            (418, None, r#"{"type":"https://firsthop.dev/problems/made-up"}"#, Fate::Refused),
            (301, None, "", Fate::Barred),
            // What `redirect: manual` gives.
            (0, None, "", Fate::Barred),
            (408, None, "", Fate::Away),
            (425, None, "", Fate::Away),
            (429, None, "", Fate::Limited),
            (500, None, "", Fate::Away),
            (501, None, "", Fate::Away),
            (502, None, "", Fate::Away),
            (503, None, "", Fate::Away),
            (504, None, "", Fate::Away),
            (599, None, "", Fate::Away),
        ] {
            let fate = Fate::of(status, verdict, body.as_bytes(), Inside::Frame(&header()));
            assert_eq!(fate, expected, "{status} {verdict:?} {body}");
        }
    }

    #[test]
    fn a_receipt_is_of_this_very_frame() {
        let none = Receipt { count: 0, stored: 0, ..receipt() };
        for (what, receipt, of_frame, of_refused) in [
            ("its own", receipt(), true, false),
            ("duplicates", Receipt::duplicate(&header()), true, false),
            ("all kinds", Receipt { stored: 1, suppressed: 1, ..receipt() }, true, false),
            ("another source's", Receipt { source: SourceId::new([1; 16]), ..receipt() }, false, false),
            ("another batch's", Receipt { batch: 1, ..receipt() }, false, false),
            ("of other events", Receipt { first: 1, ..receipt() }, false, false),
            ("of fewer events", Receipt { count: 1, stored: 1, ..receipt() }, false, false),
            ("of none", none.clone(), false, true),
            ("of none, though some were stored", Receipt { count: 0, ..receipt() }, false, false),
            ("with one unaccounted for", Receipt { stored: 1, ..receipt() }, false, false),
            ("with one too many", Receipt { conflict: 1, ..receipt() }, false, false),
            ("that overflows", Receipt { stored: 3, duplicate: u32::MAX, ..receipt() }, false, false),
            ("of a hop that has it in a spool", Receipt::spooled(&header()), false, false),
            ("of another source's refusal", Receipt { source: SourceId::new([1; 16]), ..none }, false, true),
        ] {
            let is =
                |inside| Fate::of(200, None, receipt.to_json().as_bytes(), inside) == Fate::Stored(receipt.clone());
            assert_eq!((is(Inside::Frame(&header())), is(Inside::Refused(2))), (of_frame, of_refused), "{what}");
        }
    }
}
