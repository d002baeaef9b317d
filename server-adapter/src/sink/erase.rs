//! Erasing a person's rows: in the events table, and among what sinks refused.
//!
//! To delete rows lets the database move their neighbours about, and leave copies of them where they were. So first all of a
//! person's rows are written over where they stand, and then they are deleted.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use crate::{
    Error, clock,
    journal::{Delivered, Subject},
};

/// One walk through a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// Only count.
    Look,
    /// Write over what the rows say.
    Blank,
    /// Delete those that say nothing.
    Delete,
}

/// Where rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// `events`, in `events.db`.
    Events,
    /// `dead`, in `sinks.db`.
    Dead,
}

/// Every column that may tell of a person.
const TELLING: [&str; 23] = [
    "received_at",
    "time",
    "name",
    "user_id",
    "anonymous_id",
    "session_id",
    "url",
    "title",
    "referrer",
    "properties",
    "context",
    "country",
    "pop",
    "network",
    "foreign_id",
    "subdivision",
    "city",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_term",
    "utm_content",
    "click_id",
];
/// The time of a row that is blank.
const NEVER: &str = "000000000000000000000000";
/// Rows that one part looks through.
const PART: i64 = 20_000;

/// Erases a person's rows behind one, as far as one part goes. Returns how many there were, and behind which to go on. It has a
/// connection of its own, and holds the file for a moment only: sinks wait for it. `first`: hears which events they are, before a row is
/// written over that nobody could find again.
pub(crate) fn erase(
    path: &Path,
    rows: Rows,
    subject: &Subject,
    after: i64,
    walk: Walk,
    mut first: impl FnMut(Vec<Delivered>) -> Result<(), Error>,
) -> Result<(u64, Option<i64>), Error> {
    if !path.exists() {
        return Ok((0, None));
    }
    let mut told = Ok(());
    let mut erase = || -> rusqlite::Result<(u64, Option<i64>)> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        // Overwritten, and not only forgotten.
        connection.pragma_update(None, "secure_delete", "ON")?;
        let (table, reason) = match rows {
            Rows::Events => ("events", None),
            Rows::Dead => ("dead", Some("reason")),
        };
        // A file that a sink is just making has nothing of anybody in it.
        if !connection.table_exists(None, table)? {
            return Ok((0, None));
        }
        let last: Option<i64> = connection.query_row(
            &format!("SELECT MAX(rowid) FROM (SELECT rowid FROM {table} WHERE rowid > ?1 ORDER BY rowid LIMIT ?2)"),
            [after, PART],
            |row| row.get(0),
        )?;
        let Some(last) = last else { return Ok((0, None)) };
        let of = "WHERE rowid > ?1 AND rowid <= ?2
            AND (user_id = ?3 OR anonymous_id = ?4 OR (kind = 'alias' AND (name = ?3 OR name = ?4)))";
        let values = params![after, last, subject.user, subject.anonymous];
        if walk != Walk::Delete {
            let mut select = connection.prepare(&format!("SELECT event_id, time FROM {table} {of}"))?;
            let named = select.query_map(values, |row| {
                let time = clock::parse(row.get_ref(1)?.as_str()?);
                Ok(row.get_ref(0)?.as_str()?.parse().ok().map(|id| Delivered { id, time }))
            })?;
            told = first(named.filter_map(Result::transpose).collect::<Result<_, _>>()?);
            if told.is_err() {
                return Ok((0, None));
            }
        }
        let count = match walk {
            Walk::Look => {
                let count = format!("SELECT COUNT(*) FROM {table} {of}");
                connection.query_row(&count, values, |row| row.get::<_, i64>(0))? as u64
            }
            Walk::Blank => {
                let blank =
                    |name| format!("{name} = substr(hex(zeroblob(octet_length({name}))), 1, octet_length({name}))");
                let blank: Vec<_> = TELLING.into_iter().chain(reason).map(blank).collect();
                connection.execute(&format!("UPDATE {table} SET {} {of}", blank.join(", ")), values)? as u64
            }
            Walk::Delete => {
                let delete = format!("DELETE FROM {table} WHERE rowid > ?1 AND rowid <= ?2 AND time = ?3");
                connection.execute(&delete, params![after, last, NEVER])? as u64
            }
        };
        Ok((count, Some(last)))
    };
    let done = erase().map_err(Error::database(path))?;
    told.map(|()| done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_just_being_made_has_nobody_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sinks.db");
        let ada = Subject { user: Some("ada".into()), anonymous: None };
        Connection::open(&path).unwrap().pragma_update(None, "journal_mode", "WAL").unwrap();
        for walk in [Walk::Look, Walk::Blank, Walk::Delete] {
            assert_eq!(erase(&path, Rows::Dead, &ada, 0, walk, |_| Ok(())).unwrap(), (0, None));
        }
    }
}
