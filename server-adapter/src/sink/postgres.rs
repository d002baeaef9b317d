//! Rows of a PostgreSQL table.
//!
//! One statement a batch inserts what is new by the event id, in one transaction of its own: a batch that was committed and whose answer
//! was lost comes again, and changes nothing. A batch that PostgreSQL refuses for what is in it is tried in halves, until it is one row:
//! that is a dead letter.

use std::{future::Future, ops::Range, path::Path, pin::Pin, time::Duration};

use tokio::{runtime::Runtime, sync::watch};
use tokio_postgres::{
    Client, Config, Statement,
    config::{Host, SslMode},
    tls::{ChannelBinding, MakeTlsConnect, NoTls, TlsConnect, TlsStream},
    types::ToSql,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{
    Delivery, Failure, Next, Sink,
    batch::{Batch, Limits},
    deliver_in_parts,
    row::{Buffers, COLUMNS, Field, Row, TEXTS},
    spec::{PostgresSpec, PostgresTls},
    stop::until_stopped,
    tls,
};

/// What a column holds, seen from the text that a row has.
const fn column_type(name: &str) -> &'static str {
    match name.as_bytes() {
        b"received_at" | b"time" => "timestamptz",
        b"properties" | b"context" => "jsonb",
        b"seq" | b"skew_ms" => "bigint",
        _ => "text",
    }
}

/// Columns that every event has.
fn is_required(name: &str) -> bool {
    matches!(
        name,
        "received_at"
            | "time"
            | "kind"
            | "name"
            | "properties"
            | "context"
            | "agent"
            | "traffic"
            | "trust"
            | "source"
            | "seq"
            | "consent"
            | "region"
    )
}

/// Columns that the first version did not have. None of them is required, so that a table of then can take them.
fn is_later(name: &str) -> bool {
    let first = Row::EMPTY.fields().iter().position(|(name, _)| *name == "subdivision");
    Row::EMPTY.fields().iter().position(|(column, _)| *column == name) >= first
}

/// A table in a database.
struct Postgres {
    /// Dropped before the runtime that it lives in.
    client: Client,
    insert: Statement,
    runtime: Runtime,
    limits: Limits,
    timeout: Duration,
    stop: watch::Receiver<bool>,
    buffers: Buffers,
    columns: Columns,
}

/// A batch by columns.
struct Columns {
    texts: [Vec<Option<String>>; TEXTS],
    numbers: [Vec<Option<i64>>; COLUMNS - TEXTS],
}

pub(super) fn open(spec: &PostgresSpec, folder: &Path, stop: watch::Receiver<bool>) -> Result<Box<dyn Sink>, Failure> {
    let mut config: Config = spec.connection(folder)?;
    config.application_name("firsthop").connect_timeout(spec.timeout.0).keepalives(true);
    // A socket in the file system is this machine.
    let local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    let connector = match spec.tls {
        PostgresTls::Verify if !local => {
            config.ssl_mode(SslMode::Require);
            Some(tls::connector(spec.ca_file.as_deref().map(|file| folder.join(file)).as_deref())?)
        }
        _ => {
            config.ssl_mode(SslMode::Disable);
            None
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    let mut waits = stop.clone();
    let opening = async {
        let client = match connector {
            Some(connector) => {
                let (client, connection) = config.connect(Tls(connector)).await.map_err(|error| say(&error))?;
                tokio::spawn(connection);
                client
            }
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(|error| say(&error))?;
                tokio::spawn(connection);
                client
            }
        };
        make_durable(&client).await.map_err(|error| say(&error))?;
        let insert = prepare(&client, &spec.table).await.map_err(|error| say(&error))?;
        Ok::<_, Failure>((client, insert))
    };
    let bounded = async { tokio::time::timeout(spec.timeout.0, opening).await };
    let (client, insert) = match runtime.block_on(until_stopped(&mut waits, bounded)) {
        None => return Err(Failure::new("the sink stops")),
        Some(Err(_)) => return Err(Failure::new(format!("no connection within {:?}", spec.timeout.0))),
        Some(Ok(opened)) => opened?,
    };
    Ok(Box::new(Postgres {
        client,
        insert,
        runtime,
        limits: Limits { events: spec.batch_events, bytes: 4 << 20 },
        timeout: spec.timeout.0,
        stop,
        buffers: Buffers::default(),
        columns: Columns::default(),
    }))
}

/// The cursor moves on what PostgreSQL calls committed, and retention goes by the cursor: so a commit must be on its disk, whatever is set
/// for the role or the database. All values but `off` say at least that.
async fn make_durable(client: &Client) -> Result<(), tokio_postgres::Error> {
    const ON: &str =
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
    client.batch_execute(ON).await
}

/// Makes the table if there is none, and the statement that fills it.
async fn prepare(client: &Client, table: &str) -> Result<Statement, tokio_postgres::Error> {
    let table: Vec<String> = table.split('.').map(|part| format!("\"{part}\"")).collect();
    let table = table.join(".");
    let names = Row::EMPTY.fields().map(|(name, _)| name);
    // Asked first: who may only insert may not make tables, even ones that are there.
    let is_there = async || -> Result<bool, tokio_postgres::Error> {
        Ok(client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await?.get(0))
    };
    if !is_there().await?
        && let Err(error) = client.batch_execute(&format!("CREATE TABLE IF NOT EXISTS {table} ({})", definition(&names))).await
        // Two that make it in one moment are told of a name that is taken, `IF NOT EXISTS` or not: then the other one has made it.
        && !is_there().await?
    {
        return Err(error);
    }
    // One that an older version made lacks what came later.
    let sql =
        "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";
    let known: Vec<String> = client.query(sql, &[&table]).await?.iter().map(|row| row.get(0)).collect();
    let new = |name: &&str| is_later(name) && !known.iter().any(|known| known == name);
    let missing: Vec<_> = names.iter().copied().filter(new).collect();
    if !missing.is_empty() {
        let add = missing.iter().map(|name| format!("ADD COLUMN IF NOT EXISTS \"{name}\" {}", column_type(name)));
        let add = add.collect::<Vec<_>>().join(", ");
        client.batch_execute(&format!("ALTER TABLE {table} {add}")).await?;
    }
    let quoted = names.map(|name| format!("\"{name}\"")).join(", ");
    let arrays = names.iter().enumerate().map(|(i, name)| {
        let of = if column_type(name) == "bigint" { "bigint" } else { "text" };
        format!("${}::{of}[]", i + 1)
    });
    let casts = names.map(|name| format!("\"{name}\"::{}", column_type(name))).join(", ");
    let arrays = arrays.collect::<Vec<_>>().join(", ");
    // In one order: two servers that write the same events into one table would otherwise wait for each other's rows in a circle.
    client
        .prepare(&format!(
            "INSERT INTO {table} ({quoted}) SELECT {casts} FROM unnest({arrays}) AS new ({quoted}) ORDER BY new.event_id \
             ON CONFLICT (event_id) DO NOTHING"
        ))
        .await
}

fn definition(names: &[&str]) -> String {
    let column = |name: &&str| {
        let rule = match *name {
            "event_id" => " PRIMARY KEY",
            name if is_required(name) => " NOT NULL",
            _ => "",
        };
        format!("\"{name}\" {}{rule}", column_type(name))
    };
    names.iter().map(column).collect::<Vec<_>>().join(", ")
}

impl Sink for Postgres {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn deliver(&mut self, batch: &Batch) -> Delivery {
        self.columns.fill(batch, &mut self.buffers, self.limits.events);
        deliver_in_parts(self.columns.len(), |part| self.insert(part))
    }
}

impl Postgres {
    fn insert(&mut self, part: Range<usize>) -> Next {
        let Self { client, insert, runtime, timeout, stop, columns, .. } = self;
        let texts: Vec<&[Option<String>]> = columns.texts.iter().map(|column| &column[part.clone()]).collect();
        let numbers: Vec<&[Option<i64>]> = columns.numbers.iter().map(|column| &column[part.clone()]).collect();
        // Numbers stand where the row has them.
        let (mut texts, mut numbers) = (texts.iter(), numbers.iter());
        let mut parameters: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(COLUMNS);
        for (_, field) in Row::EMPTY.fields() {
            parameters.extend(match field {
                Field::Number(_) => numbers.next().map(|column| column as &(dyn ToSql + Sync)),
                _ => texts.next().map(|column| column as &(dyn ToSql + Sync)),
            });
        }
        let (client, timeout) = (&*client, *timeout);
        let bounded = async { tokio::time::timeout(timeout, client.execute(&*insert, &parameters)).await };
        match runtime.block_on(until_stopped(stop, bounded)) {
            None => Next::Later(Failure::new("the sink stops")),
            Some(Err(_)) => Next::Later(Failure::new(format!("no answer within {timeout:?}"))),
            Some(Ok(Ok(_))) => Next::Delivered,
            Some(Ok(Err(error))) if is_of_the_row(&error) => Next::Refused(say(&error).what),
            Some(Ok(Err(error))) => Next::Later(say(&error)),
        }
    }
}

impl Default for Columns {
    fn default() -> Self {
        Self { texts: [const { Vec::new() }; TEXTS], numbers: [const { Vec::new() }; COLUMNS - TEXTS] }
    }
}

impl Columns {
    fn len(&self) -> usize {
        self.texts[0].len()
    }

    fn fill(&mut self, batch: &Batch, buffers: &mut Buffers, most: usize) {
        self.texts.iter_mut().for_each(Vec::clear);
        self.numbers.iter_mut().for_each(Vec::clear);
        // An error is only the end of it.
        let _ = batch.each(buffers, |index, row| {
            if index >= most {
                return Err(());
            }
            let (mut texts, mut numbers) = (self.texts.iter_mut(), self.numbers.iter_mut());
            for (_, field) in row.fields() {
                let text = match field {
                    Field::Number(number) => {
                        numbers.next().into_iter().for_each(|column| column.push(number));
                        continue;
                    }
                    Field::Text(text) => text.map(without_nul),
                    Field::Json(text) => Some(without_escaped_nul(text)),
                };
                if let Some(column) = texts.next() {
                    column.push(text);
                }
            }
            Ok(())
        });
    }
}

/// PostgreSQL has no U+0000 in a text: U+FFFD stands in its place.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The same in the text of JSON, where it is written `\u0000`.
fn without_escaped_nul(json: &str) -> String {
    if !json.contains("\\u0000") {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        // An escape is two characters or six, and a backslash that is escaped begins none.
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = escape.strip_prefix("\\u0000") {
            out.push('\u{fffd}');
            rest = after;
        } else {
            let length = escape.char_indices().nth(2).map_or(escape.len(), |(at, _)| at);
            out.push_str(&escape[..length]);
            rest = &escape[length..];
        }
    }
    out.push_str(rest);
    out
}

/// Whether it is what stands in the rows, and not the database, that is wrong: data exceptions, constraints, limits, and what a trigger
/// raises.
fn is_of_the_row(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["22", "23", "54", "P0001"].iter().any(|class| code.code().starts_with(class)))
}

fn say(error: &tokio_postgres::Error) -> Failure {
    match error.as_db_error() {
        Some(error) => {
            let code = error.code().code();
            // A trigger, for one, says what it likes.
            let for_log = Some(format!("PostgreSQL: SQLSTATE {code}; `firsthop sinks list` shows what it said"));
            Failure { for_log, ..Failure::new(format!("PostgreSQL: {} ({code})", error.message())) }
        }
        None => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Failure::new(format!("PostgreSQL: {error}{cause}"))
        }
    }
}

/// rustls for `tokio-postgres`.
#[derive(Clone)]
struct Tls(TlsConnector);

struct TlsTo(TlsConnector, ServerName<'static>);

/// A stream inside TLS.
struct Secure(tokio_rustls::client::TlsStream<tokio_postgres::Socket>);

impl MakeTlsConnect<tokio_postgres::Socket> for Tls {
    type Stream = Secure;
    type TlsConnect = TlsTo;
    type Error = tokio_rustls::rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, Self::Error> {
        Ok(TlsTo(self.0.clone(), ServerName::try_from(domain.to_owned())?))
    }
}

impl TlsConnect<tokio_postgres::Socket> for TlsTo {
    type Stream = Secure;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Secure>> + Send>>;

    fn connect(self, stream: tokio_postgres::Socket) -> Self::Future {
        Box::pin(async move { self.0.connect(self.1, stream).await.map(Secure) })
    }
}

impl TlsStream for Secure {
    fn channel_binding(&self) -> ChannelBinding {
        // The password's proof is not bound to the certificate; that the certificate is verified has to do.
        ChannelBinding::none()
    }
}

impl tokio::io::AsyncRead for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Secure {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgresql_cannot_hold_is_replaced() {
        assert_eq!(without_nul("a\0b"), "a\u{fffd}b");
        for (json, expected) in [
            (r#"{"a\u0000":"\u0000\u0000x"}"#, "{\"a\u{fffd}\":\"\u{fffd}\u{fffd}x\"}"),
            (r#"{"a":"\\u0000"}"#, r#"{"a":"\\u0000"}"#),
            (r#"{"a":"\\\u0000\"ü\u00001"}"#, "{\"a\":\"\\\\\u{fffd}\\\"ü\u{fffd}1\"}"),
            (r#"{"a":1}"#, r#"{"a":1}"#),
        ] {
            assert_eq!(without_escaped_nul(json), expected);
        }
    }

    #[test]
    fn the_table_is_the_documented_one() {
        let table = definition(&Row::EMPTY.fields().map(|(name, _)| name)).replace('"', "");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sinks.md");
        let docs = std::fs::read_to_string(path).expect("the docs stand beside");
        let documented = docs.split("CREATE TABLE firsthop_events (").nth(1).and_then(|rest| rest.split(");").next());
        let documented = documented.expect("a table in the docs").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(documented, table);
    }
}
