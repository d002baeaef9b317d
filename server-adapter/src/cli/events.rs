//! `firsthop events`

use std::{thread, time::Duration};

use clap::{Args, builder::PossibleValuesParser};
use firsthop_core::Timestamp;
use rusqlite::{Connection, Row, types::ToSql};

use super::{
    Chosen,
    out::{Out, cut, harmless},
};
use crate::{Error, clock, sink};

#[derive(Debug, Args)]
pub(super) struct Events {
    #[command(flatten)]
    chosen: Chosen,
    /// Only events of this name.
    #[arg(long)]
    name: Option<String>,
    /// Only events of this kind.
    #[arg(long, value_parser = PossibleValuesParser::new(["track", "page", "screen", "identify", "group", "alias"]))]
    kind: Option<String>,
    /// Only events of this user: user id or anonymous id.
    #[arg(long)]
    user: Option<String>,
    /// Only what was received from then on: a time such as 2026-11-21T18:00 (UTC), or how long ago, such as 10m.
    #[arg(long, alias = "since", value_parser = moment)]
    from: Option<Timestamp>,
    /// Only what was received before.
    #[arg(long, alias = "until", value_parser = moment)]
    to: Option<Timestamp>,
    /// How many: the newest of those that match.
    #[arg(long, short = 'n', default_value_t = 50)]
    limit: u32,
    /// Go on, and show what comes in.
    #[arg(long, short)]
    follow: bool,
    /// One JSON object a line, as sinks have it (docs/sinks.md).
    #[arg(long)]
    json: bool,
}

pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    let ago = |ago: Duration| clock::now().offset(-i64::try_from(ago.as_millis()).unwrap_or(i64::MAX));
    clock::parse_duration(text)
        .map(ago)
        .or_else(|| clock::parse(text))
        .ok_or_else(|| "a time such as 2026-11-21T18:00, or how long ago, such as 10m".to_owned())
}

/// How often to look for more.
const LOOK: Duration = Duration::from_millis(200);

impl Events {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        let stored = self.chosen.folder.store()?.find(self.chosen.tenant.as_deref())?;
        let path = stored.events();
        if !path.exists() && !self.follow {
            return Err(Error::Tenant("no events yet: they come with `firsthop serve`".into()));
        }
        while !path.exists() {
            thread::sleep(LOOK);
        }
        let connection = sink::events::open_reader(&path)?;
        let sql = || Error::database(&path);
        // A server that starts for the first time makes the file a moment before the table.
        let exists = "SELECT COUNT(*) > 0 FROM sqlite_master WHERE name = 'events'";
        while self.follow && !connection.query_row(exists, [], |row| row.get::<_, bool>(0)).map_err(sql())? {
            thread::sleep(LOOK);
        }
        let (condition, parameters) = self.condition();
        let newest = format!(
            "SELECT * FROM (SELECT * FROM events WHERE {condition} ORDER BY rowid DESC LIMIT {}) ORDER BY rowid",
            self.limit
        );
        // Taken first: what comes in between is shown twice by no one and missed by no one.
        let mut last: i64 =
            connection.query_row("SELECT COALESCE(MAX(rowid), 0) FROM events", [], |row| row.get(0)).map_err(sql())?;
        let found = read(&connection, &newest, &parameters).map_err(sql())?;
        last = found.last().map_or(last, |event| event.rowid.max(last));
        let mut widths = Widths::default();
        self.show(out, &found, &mut widths)?;
        let more = format!("SELECT * FROM events WHERE rowid > ? AND {condition} ORDER BY rowid LIMIT 1000");
        if !self.follow {
            return Ok(());
        }
        loop {
            out.flush().map_err(|error| Error::Io("standard output".into(), error))?;
            let mut bound: Vec<Box<dyn ToSql>> = vec![Box::new(last)];
            bound.extend(self.condition().1);
            let found = read(&connection, &more, &bound).map_err(sql())?;
            match found.last() {
                Some(event) => last = event.rowid,
                None => thread::sleep(LOOK),
            }
            self.show(out, &found, &mut widths)?;
        }
    }

    fn condition(&self) -> (String, Vec<Box<dyn ToSql>>) {
        let mut condition = "TRUE".to_owned();
        let mut parameters: Vec<Box<dyn ToSql>> = Vec::new();
        let mut and = |sql: &str, value: Option<String>, times: usize| {
            if let Some(value) = value {
                condition.push_str(" AND ");
                condition.push_str(sql);
                parameters.extend((0..times).map(|_| Box::new(value.clone()) as Box<dyn ToSql>));
            }
        };
        and("name = ?", self.name.clone(), 1);
        and("kind = ?", self.kind.clone(), 1);
        and("(user_id = ? OR anonymous_id = ?)", self.user.clone(), 2);
        and("received_at >= ?", self.from.map(clock::format), 1);
        and("received_at < ?", self.to.map(clock::format), 1);
        (condition, parameters)
    }

    fn show(&self, out: &mut Out, events: &[Found], widths: &mut Widths) -> Result<(), Error> {
        for event in events {
            let line = if self.json { event.json.clone() } else { widths.line(event, out.is_terminal()) };
            if !self.json && widths.first() {
                out.line(Widths::HEADING)?;
            }
            out.line(line)?;
        }
        Ok(())
    }
}

/// An event as it is shown.
struct Found {
    rowid: i64,
    json: String,
    time: String,
    kind: String,
    name: String,
    who: String,
    properties: String,
}

fn read(connection: &Connection, sql: &str, parameters: &[Box<dyn ToSql>]) -> rusqlite::Result<Vec<Found>> {
    let mut statement = connection.prepare(sql)?;
    let parameters: Vec<&dyn ToSql> = parameters.iter().map(AsRef::as_ref).collect();
    let mut rows = statement.query(&parameters[..])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Found {
            rowid: row.get("rowid")?,
            json: json(row)?,
            time: row.get("time")?,
            kind: row.get("kind")?,
            name: row.get("name")?,
            who: row.get::<_, Option<String>>("user_id")?.or(row.get("anonymous_id")?).unwrap_or_default(),
            properties: row.get("properties")?,
        });
    }
    Ok(found)
}

/// As every sink writes an event.
fn json(row: &Row<'_>) -> rusqlite::Result<String> {
    let mut line = Vec::new();
    sink::events::read_row(row)?.write_json(&mut line);
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Lines of a table that is not known whole when it begins.
#[derive(Default)]
struct Widths {
    begun: bool,
}

impl Widths {
    const HEADING: &'static str =
        "TIME                      KIND      NAME                      WHO               PROPERTIES";

    fn first(&mut self) -> bool {
        !std::mem::replace(&mut self.begun, true)
    }

    fn line(&self, event: &Found, terminal: bool) -> String {
        let name = cut(&harmless(&event.name), 24);
        let who = cut(&harmless(&event.who), 16);
        let properties = harmless(&event.properties);
        let properties = if terminal { cut(&properties, 80) } else { properties };
        let line = format!("{}  {:<8}  {name:<24}  {who:<16}  {properties}", event.time, event.kind);
        line.trim_end().to_owned()
    }
}
