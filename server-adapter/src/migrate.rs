//! The version of a database file, and the way from an older one to this build's.
//!
//! A new file is made whole, in one transaction. One of an older version goes up step by step, each step and its number in one
//! transaction: a kill in between leaves a file of a version that was there once, and the next start goes on from it. A file of
//! a newer version is left alone, since nobody knows what it means.

use std::{path::Path, time::Instant};

use rusqlite::{Connection, OpenFlags};

use crate::Error;

/// Tables by version.
#[derive(Debug)]
pub(crate) struct Schema {
    /// What it is, for people.
    pub(crate) what: &'static str,
    /// What `PRAGMA application_id` says of such a file.
    pub(crate) application: i32,
    /// The version of `base`: the first that was released.
    pub(crate) first: i32,
    /// The tables of that version.
    pub(crate) base: &'static str,
    /// What leads from each version to the next.
    pub(crate) steps: &'static [&'static str],
}

impl Schema {
    /// The version that this build reads and writes.
    pub(crate) const fn version(&self) -> i32 {
        self.first + self.steps.len() as i32
    }

    /// Refuses what this build must not write to, before anything is written.
    pub(crate) fn admit(&self, connection: &Connection, path: &Path) -> Result<(), Error> {
        self.found(connection, path).map(drop)
    }

    /// Makes an empty file one of this build's version, and brings an older one up to it.
    pub(crate) fn prepare(&self, connection: &Connection, path: &Path) -> Result<(), Error> {
        if self.found(connection, path)? == Some(self.version()) {
            return Ok(());
        }
        let began = Instant::now();
        // Under the lock of the first transaction it is asked again: another process may have been faster.
        let begin = || connection.execute_batch("BEGIN IMMEDIATE").map_err(Error::database(path));
        let mut from = None;
        loop {
            begin()?;
            let step = self.found(connection, path).and_then(|found| self.step(connection, path, found));
            match step {
                Ok(Some(before)) => from = from.or(before),
                Ok(None) => break,
                Err(error) => {
                    // Where the error has rolled back already, this fails; either way nothing is left of the step.
                    let _ = connection.execute_batch("ROLLBACK");
                    return Err(error);
                }
            }
        }
        if let Some(from) = from {
            let (to, seconds) = (self.version(), began.elapsed().as_secs_f64());
            tracing::info!(file = %path.display(), from, to, seconds, "{} migrated", self.what);
        }
        Ok(())
    }

    /// One step, in the transaction that is open, which it ends. None: there was nothing left to do.
    fn step(&self, connection: &Connection, path: &Path, found: Option<i32>) -> Result<Option<Option<i32>>, Error> {
        let (sql, to) = match found {
            None => {
                let application = format!("PRAGMA application_id = {};", self.application);
                ([&[self.base], self.steps, &[&application]].concat().join("\n"), self.version())
            }
            Some(version) if version == self.version() => {
                connection.execute_batch("COMMIT").map_err(Error::database(path))?;
                return Ok(None);
            }
            Some(version) => (self.steps[(version - self.first) as usize].to_owned(), version + 1),
        };
        connection
            .execute_batch(&format!("{sql}\nPRAGMA user_version = {to}; COMMIT;"))
            .map_err(Error::database(path))?;
        Ok(Some(found))
    }

    /// Whether a reader of this build may read it.
    pub(crate) fn check(&self, connection: &Connection, path: &Path) -> Result<(), Error> {
        match self.found(connection, path)? {
            Some(version) if version == self.version() => Ok(()),
            Some(version) => Err(Error::Fault(format!(
                "{}: schema version {version}, and this build reads {}: `firsthop serve` brings it up to that",
                path.display(),
                self.version()
            ))),
            None => Err(Error::Fault(format!("{}: not {}", path.display(), self.what))),
        }
    }

    /// Opens a file that sinks write, to read: one of this build's version, or one that is empty because a server is about to make it. Says
    /// whether there is something in it.
    pub(crate) fn open_reader(&self, path: &Path) -> Result<(Connection, bool), Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(Error::database(path))?;
        connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(Error::database(path))?;
        let is_made = self.found(&connection, path)?.is_some();
        if is_made {
            self.check(&connection, path)?;
        }
        Ok((connection, is_made))
    }

    /// The file's version, if it is one that this build knows. None: the file is empty.
    fn found(&self, connection: &Connection, path: &Path) -> Result<Option<i32>, Error> {
        let number = |pragma: &str| -> Result<i32, Error> {
            connection.pragma_query_value(None, pragma, |row| row.get(0)).map_err(Error::database(path))
        };
        let known = self.version();
        match (number("application_id")?, number("user_version")?) {
            (0, 0) => Ok(None),
            (application, version) if application == self.application && version > known => Err(Error::Fault(format!(
                "{}: a newer firsthop has written it (schema version {version}; this build knows versions up to {known}): \
                     run that one, or restore a backup from before the update",
                path.display()
            ))),
            (application, version) if application == self.application && version >= self.first => Ok(Some(version)),
            (application, version) if application == self.application => Err(Error::Fault(format!(
                "{}: schema version {version}, which was never released; this build knows {} to {known}",
                path.display(),
                self.first
            ))),
            _ => Err(Error::Fault(format!("{}: not {}", path.display(), self.what))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Schema =
        Schema { what: "a test", application: 7, first: 2, base: "CREATE TABLE a (x INTEGER) STRICT;", steps: &[] };
    const THREE: Schema = Schema {
        steps: &[
            "CREATE TABLE b (x INTEGER) STRICT; INSERT INTO b SELECT x FROM a;",
            "ALTER TABLE b ADD COLUMN y INTEGER;",
            "UPDATE b SET y = x + 1;",
        ],
        ..EMPTY
    };

    fn open(path: &Path) -> Connection {
        Connection::open(path).expect("opens")
    }

    fn number(connection: &Connection, sql: &str) -> i64 {
        connection.query_row(sql, [], |row| row.get(0)).expect(sql)
    }

    fn old(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("test.db");
        let connection = open(&path);
        EMPTY.prepare(&connection, &path).expect("made");
        connection.execute_batch("INSERT INTO a VALUES (41)").expect("a row");
        path
    }

    #[test]
    fn an_old_file_and_a_new_one_come_to_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = old(folder.path());
        let connection = open(&path);
        assert!(THREE.check(&connection, &path).expect_err("old").to_string().contains("firsthop serve"));
        THREE.prepare(&connection, &path).expect("migrated");
        THREE.prepare(&connection, &path).expect("nothing to do");
        assert_eq!(number(&connection, "SELECT y FROM b"), 42);
        let fresh = folder.path().join("fresh.db");
        let other = open(&fresh);
        THREE.prepare(&other, &fresh).expect("made");
        let tables = "SELECT group_concat(sql) FROM sqlite_master ORDER BY name";
        let text =
            |connection: &Connection| connection.query_row(tables, [], |row| row.get::<_, String>(0)).expect("text");
        assert_eq!(text(&connection), text(&other));
        for connection in [&connection, &other] {
            assert_eq!(number(connection, "PRAGMA user_version"), 5);
            assert_eq!(number(connection, "PRAGMA application_id"), 7);
        }
    }

    /// Ended after any step, it goes on from there; a step that fails leaves nothing of itself.
    #[test]
    fn what_was_interrupted_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = old(folder.path());
        const FAILS: Schema =
            Schema { steps: &[THREE.steps[0], "ALTER TABLE b ADD COLUMN y INTEGER; DROP TABLE nowhere;"], ..EMPTY };
        FAILS.prepare(&open(&path), &path).expect_err("the second step fails");
        let connection = open(&path);
        assert_eq!(number(&connection, "PRAGMA user_version"), 3);
        assert_eq!(number(&connection, "SELECT COUNT(*) FROM pragma_table_info('b')"), 1);
        THREE.prepare(&connection, &path).expect("goes on");
        assert_eq!(number(&connection, "SELECT y FROM b"), 42);
    }

    #[test]
    fn what_is_newer_or_another_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = old(folder.path());
        THREE.prepare(&open(&path), &path).expect("migrated");
        let before = std::fs::read(&path).expect("read");
        let said = EMPTY.prepare(&open(&path), &path).expect_err("newer").to_string();
        assert!(said.contains("a newer firsthop") && said.contains("version 5") && said.contains("up to 2"), "{said}");
        let other = Schema { application: 8, what: "something else", ..EMPTY };
        let said = other.prepare(&open(&path), &path).expect_err("another").to_string();
        assert!(said.contains("not something else"), "{said}");
        assert_eq!(std::fs::read(&path).expect("read"), before);
    }
}
