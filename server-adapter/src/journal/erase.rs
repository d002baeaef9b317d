//! Erasing a person, part by part: frames are looked through on a reader's connection, and only those that have something
//! are rewritten by the writer.

use std::{collections::HashMap, path::Path, sync::Arc};

use firsthop_core::{Error as CoreError, Frame, Timestamp};
use firsthop_intake::{Contents, RegionSecrets, json::escaped_unit};
use rusqlite::Connection;

use super::{
    counters::At,
    quarantine,
    queue::{Journal, Unavailable},
    schema::open_reader,
    sealed::unseal,
    seen::settled,
    store::open_body,
    tombstone::{self, Delivered, Subject},
};
use crate::Error;

/// Most bytes of bodies that one part looks through.
const LOOK: usize = 64 << 20;
/// What one transaction rewrites at most: those who wait for an acknowledgement wait for it too. Frames, entries in quarantine, events whose
/// frames have no body, and bytes.
const REWRITE: usize = 32;
const ENTRIES: usize = 2048;
const DELIVERED: usize = 256;
const BYTES: usize = 2 << 20;

/// Ids with the sizes of their rows, in parts that each are a transaction's.
fn parts(mut hits: &[(i64, usize)], most: usize) -> impl Iterator<Item = Vec<i64>> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |(_, size): &&(i64, usize)| {
            let fits = bytes == 0 || bytes + size <= BYTES;
            bytes += size;
            fits
        };
        let (part, more) = hits.split_at(hits.iter().take(most).take_while(fits).count());
        hits = more;
        (!part.is_empty()).then(|| part.iter().map(|(id, _)| *id).collect())
    })
}

/// What one part has found, and erased unless it was only to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Found {
    /// Frames that had events of the person.
    pub(crate) frames: u64,
    /// Events of those, where they were stored.
    pub(crate) events: u64,
    /// Entries in quarantine that name the person.
    pub(crate) entries: u64,
    /// Rows of the events table.
    pub(crate) rows: u64,
    /// What sinks had refused.
    pub(crate) letters: u64,
    /// Frames and entries that are sealed and cannot be opened: whom they name, nobody can say.
    #[serde(default)]
    pub(crate) closed: u64,
}

impl std::ops::AddAssign for Found {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.events += other.events;
        self.entries += other.entries;
        self.rows += other.rows;
        self.letters += other.letters;
        self.closed += other.closed;
    }
}

/// Whether any of the ids stands in these bytes. Text is stored as it is, so what has it is found; what is found may be another's.
fn names(subject: &Subject, bytes: &[u8]) -> bool {
    subject.ids().any(|id| memchr::memmem::find(bytes, id.as_bytes()).is_some())
}

/// The same in what anybody sent. JSON has more than one way to write a text, and what was refused need not be whole, nor JSON: so it is
/// not parsed. Where bytes are no JSON, what looks like an escape is read as one all the same.
pub(crate) fn names_escaped(subject: &Subject, bytes: &[u8]) -> bool {
    names(subject, bytes) || (memchr::memchr(b'\\', bytes).is_some() && names(subject, &unescape(bytes)))
}

/// Whether any of the ids stands in what is sealed in these bytes. An error: it cannot be opened.
fn names_sealed(subject: &Subject, body: &[u8], secrets: &RegionSecrets) -> Result<bool, CoreError> {
    let bytes = match open_body(body) {
        Ok((_, bytes)) => bytes,
        Err(_) => return Ok(false),
    };
    let Ok(frame) = Frame::parse(bytes) else { return Ok(false) };
    match unseal(&frame, secrets)? {
        Contents::Opened(payload) => Ok(names(subject, &payload)),
        _ => Ok(false),
    }
}

/// Bytes with what JSON's escapes stand for. What is no escape stays as it is.
fn unescape(mut bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    while let Some(at) = memchr::memchr(b'\\', bytes) {
        plain.extend(&bytes[..at]);
        bytes = &bytes[at..];
        let (stands_for, length) = match bytes.get(1) {
            Some(&byte @ (b'"' | b'\\' | b'/')) => (char::from(byte), 2),
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            _ => numbered(bytes).unwrap_or(('\\', 1)),
        };
        plain.extend(stands_for.encode_utf8(&mut [0; 4]).as_bytes());
        bytes = &bytes[length..];
    }
    plain.extend(bytes);
    plain
}

/// The character of the `\uXXXX` that these bytes begin with, or of two that are one character; and how long that is.
fn numbered(bytes: &[u8]) -> Option<(char, usize)> {
    let units = [escaped_unit(bytes, 0)?].into_iter().chain(escaped_unit(bytes, 6));
    let character = char::decode_utf16(units).next()?.ok()?;
    Some((character, 6 * character.len_utf16()))
}

impl Journal {
    /// Lets all runs up to the last frame settle: from then on no memory has what is rewritten. Returns that frame; none if other
    /// writers were always in between. Blocks.
    pub(crate) fn settle(&self, path: &Path) -> Result<Option<i64>, Error> {
        let tip = self.tip();
        let reader = open_reader(path)?;
        for _ in 0..100 {
            if settled(&reader).map_err(Error::database(path))? >= tip {
                return Ok(Some(tip));
            }
            self.change(0, |connection, tables, _| tables.seen.settle_now(connection)).map_err(unavailable)?;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(None)
    }

    /// Erases in frames after `after`, up to `until`, as far as one part goes. All of those must be settled. Returns how far it came.
    /// Blocks.
    pub(crate) fn erase_frames(
        &self,
        path: &Path,
        subject: &Subject,
        (after, until): (i64, i64),
        only_look: bool,
        now: Timestamp,
    ) -> Result<(Found, i64), Error> {
        let reader = open_reader(path)?;
        let (mut found, mut hits, mut at, mut size) = (Found::default(), Vec::new(), after, 0);
        let secrets = self.seals().get();
        let mut look = || -> rusqlite::Result<()> {
            let mut statement = reader
                .prepare("SELECT id, body, count, accepted FROM frames WHERE id > ?1 AND id <= ?2 ORDER BY id")?;
            let mut rows = statement.query([after, until])?;
            while let Some(row) = rows.next()? {
                if size >= LOOK || hits.len() >= 16 * REWRITE {
                    return Ok(());
                }
                at = row.get(0)?;
                let body = row.get_ref(1)?.as_blob()?;
                size += body.len();
                let inside = names_sealed(subject, body, &secrets);
                found.closed += u64::from(inside.is_err());
                if names(subject, body) || inside == Ok(true) {
                    let places = subject.find(body, &secrets);
                    if !places.is_empty() {
                        let accepted = super::Accepted::from_column(row.get_ref(3)?.as_blob_or_null()?);
                        found.frames += 1;
                        found.events += places.iter().filter(|&&place| accepted.has(place)).count() as u64;
                        hits.push((at, body.len()));
                    }
                }
            }
            at = until;
            Ok(())
        };
        look().map_err(Error::database(path))?;
        drop(reader);
        if only_look {
            return Ok((found, at));
        }
        let mut erased = Found { closed: found.closed, ..Found::default() };
        for ids in parts(&hits, REWRITE) {
            let (subject, secrets) = (subject.clone(), Arc::clone(&secrets));
            erased += self
                .change(0, move |connection, _, counts| {
                    let mut found = Found::default();
                    for id in &ids {
                        let Some(erased) = tombstone::erase(connection, *id, &subject, &secrets)? else { continue };
                        let place = At { time: now, region: erased.region, hop: erased.hop };
                        let events = i64::from(erased.events);
                        counts.correct(place, ("stored", "".into()), ("erased", "".into()), events);
                        found.frames += 1;
                        found.events += u64::from(erased.events);
                    }
                    Ok(found)
                })
                .map_err(unavailable)?;
        }
        Ok((erased, at))
    }

    /// Erases events by what was delivered of them: those whose bodies retention has removed. The others are found by their bodies. Blocks.
    pub(crate) fn erase_delivered(
        &self,
        path: &Path,
        events: Vec<Delivered>,
        only_look: bool,
        now: Timestamp,
    ) -> Result<u64, Error> {
        if only_look {
            let reader = open_reader(path)?;
            let look = || -> rusqlite::Result<u64> {
                events.iter().try_fold(0, |sum, event| Ok(sum + u64::from(tombstone::is_there(&reader, event)?)))
            };
            return look().map_err(Error::database(path));
        }
        let mut erased = 0;
        for part in events.chunks(DELIVERED) {
            let part = part.to_vec();
            erased += self
                .change(0, move |connection, _, counts| {
                    let mut sum = 0;
                    for event in &part {
                        let Some(erased) = tombstone::erase_delivered(connection, event)? else { continue };
                        let place = At { time: now, region: erased.region, hop: erased.hop };
                        counts.correct(place, ("stored", "".into()), ("erased", "".into()), erased.events.into());
                        sum += u64::from(erased.events);
                    }
                    Ok(sum)
                })
                .map_err(unavailable)?;
        }
        Ok(erased)
    }

    /// Takes out of quarantine what names the person: whole entries, since what is refused cannot be taken apart. Blocks.
    #[cfg(feature = "cli")]
    pub(crate) fn erase_quarantine(
        &self,
        path: &Path,
        subject: &Subject,
        only_look: bool,
        now: Timestamp,
    ) -> Result<Found, Error> {
        let reader = open_reader(path)?;
        let (secrets, mut closed) = (self.seals().get(), 0);
        let mut look = || -> rusqlite::Result<Vec<(i64, usize)>> {
            let mut statement = reader.prepare("SELECT id, body, hash FROM quarantine ORDER BY id")?;
            let mut rows = statement.query([])?;
            let mut hits = Vec::new();
            while let Some(row) = rows.next()? {
                let body = row.get_ref(1)?.as_blob()?;
                let is_blank = quarantine::is_blank(body, row.get_ref(2)?.as_blob()?);
                let inside = if is_blank { Ok(false) } else { names_sealed(subject, body, &secrets) };
                closed += u64::from(inside.is_err());
                if is_blank || names_escaped(subject, body) || inside == Ok(true) {
                    hits.push((row.get(0)?, body.len()));
                }
            }
            Ok(hits)
        };
        let hits = look().map_err(Error::database(path))?;
        drop(reader);
        let mut found = Found { entries: hits.len() as u64, closed, ..Found::default() };
        if !only_look {
            found.entries = 0;
            // All of them first: to delete one lets the database move its neighbours about, and leave copies of them.
            let mut hops = HashMap::new();
            for ids in parts(&hits, ENTRIES) {
                hops.extend(self.blank(ids, now).map_err(unavailable)?);
            }
            for ids in parts(&hits, ENTRIES) {
                let entries = ids.iter().filter_map(|id| Some((*id, *hops.get(id)?))).collect();
                found.entries += self.take_out(entries, now).map_err(unavailable)?;
            }
        }
        Ok(found)
    }
}

fn unavailable(reason: Unavailable) -> Error {
    Error::Fault(format!("{}; what was erased until then stays erased: give the command again", reason.as_str()))
}

/// Moves the log of a database into it, so that nothing of what was removed is left there. False: a reader holds on to it.
pub(crate) fn scrub(path: &Path) -> Result<bool, Error> {
    if !path.exists() {
        return Ok(true);
    }
    let scrub = || -> rusqlite::Result<bool> {
        let connection = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(std::time::Duration::from_millis(500))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        super::log::move_all(&connection)
    };
    scrub().map_err(Error::database(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_small_in_number_and_in_bytes() {
        let sizes = |sizes: &[usize]| (1..).zip(sizes.iter().copied()).collect::<Vec<_>>();
        let half = BYTES / 2;
        let hits = sizes(&[half, half, 1, BYTES + 1, 0, half, half, half]);
        assert_eq!(parts(&hits, 9).collect::<Vec<_>>(), [vec![1, 2], vec![3], vec![4], vec![5, 6, 7], vec![8]]);
        assert_eq!(parts(&sizes(&[1; 5]), 2).collect::<Vec<_>>(), [vec![1, 2], vec![3, 4], vec![5]]);
        assert_eq!(parts(&[], 2).count(), 0);
    }

    #[test]
    fn a_text_is_found_however_json_writes_it() {
        let plain = |text: &str| String::from_utf8(unescape(text.as_bytes())).expect("text");
        assert_eq!(
            plain(r#"{"userId":"jos\u00e9 \uD83D\uDE00 a\/b \"\\\n\t"}"#),
            "{\"userId\":\"jos\u{e9} \u{1f600} a/b \"\\\n\t\"}"
        );
        // An escaped backslash begins nothing; half a pair, half an escape and what is none stay.
        for (escaped, expected) in [
            (r"\\u00e9", r"\u00e9"),
            (r"\ud83d\u00e9", "\\ud83d\u{e9}"),
            (r"\ude00x", r"\ude00x"),
            (r"\u00e", r"\u00e"),
            (r"\u+0e9", r"\u+0e9"),
            (r"\{\", r"\{\"),
        ] {
            assert_eq!(plain(escaped), expected, "{escaped}");
        }
        let subject = Subject { user: Some("jos\u{e9}".into()), anonymous: Some("a/b".into()) };
        // Bytes before it, cut off after it: an envelope with something that was refused.
        for named in [
            &b"\x00\xff\\{\"userId\":\"jos\\u00E9\",\"tr"[..],
            b"{\"anonymousId\":\"a\\/b\"",
            "jos\u{e9}".as_bytes(),
            b"a/b",
        ] {
            assert!(names_escaped(&subject, named), "{}", named.escape_ascii());
        }
        assert!(!names_escaped(&subject, br#"{"userId":"jos\\u00e9","anonymousId":"a\b"}"#));
    }
}
