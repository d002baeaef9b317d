//! Rows in a real PostgreSQL.

use std::{fs, process::Command, thread};

use serde_json::Value as Json;

use super::{
    certificates::{authority, certificate},
    database::Database,
    kill_in_delivery, listed, send, table_ids,
};
use crate::common::{Folder, Page, Tenant, served, until};

const COUNT: &str = "SELECT COUNT(*) FROM firsthop_events";

fn sink(database: &Database, more: &str) -> String {
    format!("kind = 'postgres'\nname = 'pg'\nurl = '{}'\ntls = 'off'\n{more}", database.url())
}

/// The ids in PostgreSQL, sorted as here.
fn ids(database: &Database) -> Vec<String> {
    let text = database.sql("SELECT event_id FROM firsthop_events");
    let mut ids: Vec<String> = text.lines().map(str::to_owned).collect();
    ids.sort_unstable();
    ids
}

/// Every event is a row with its values and types; what PostgreSQL cannot hold is replaced; away and back, and a replay, double nothing.
#[test]
fn every_event_is_a_row_and_only_one() {
    let mut database = Database::start();
    let (folder, server, tenant) = served();
    tenant.add_sink(&sink(&database, ""));
    send(&server, &tenant, &[3, 1000]);
    let json = r#"{"type":"track","event":"a\u0000b","userId":"u\u0000","messageId":"m","properties":{"n":12345678901234567,"t":"x\u0000y","b":"\\u0000"}}"#;
    server.client().segment("/v1/track", &tenant.key, json);
    until("all are there", || database.number(COUNT) == 1005);
    assert_eq!(ids(&database), table_ids(&tenant));
    let row = "SELECT row_to_json(e) FROM firsthop_events e WHERE vendor = 'segment'";
    let row: Json = serde_json::from_str(&database.sql(row)).expect("JSON");
    assert_eq!((&row["name"], &row["user_id"]), (&"a\u{fffd}b".into(), &"u\u{fffd}".into()));
    let properties = serde_json::json!({"n": 12_345_678_901_234_567_i64, "t": "x\u{fffd}y", "b": "\\u0000"});
    assert_eq!((&row["properties"], &row["seq"]), (&properties, &0.into()));
    // All other columns as the events table has them.
    let printed: Json =
        serde_json::from_str(&folder.ok(&["events", "--json", "--kind", "track", "-n", "1"])).expect("JSON");
    for (name, value) in printed.as_object().expect("an object") {
        match name.as_str() {
            "name" | "user_id" | "properties" => {}
            "time" | "received_at" => {
                let same =
                    format!("SELECT COUNT(*) FROM firsthop_events WHERE vendor = 'segment' AND {name} = {value}");
                assert_eq!(database.sql(&same.replace('"', "'")), "1", "{name}");
            }
            name => assert_eq!(&row[name], value, "{name}"),
        }
    }

    corrected_times_are_those_of_the_events_table(&database, &tenant);

    database.down();
    send(&server, &tenant, &[20]);
    until("it is noticed", || listed(&folder, "pg")[2] == "fails");
    until("it is a metric", || tenant.sink(&server, "up", "pg") == 0.0);
    tenant.settle();
    database.up(&[]);
    until("the rest is there", || database.number(COUNT) == 1026);
    folder.ok(&["replay", "--sink", "pg", "--from", "1"]);
    send(&server, &tenant, &[1]);
    until("it went on", || listed(&folder, "pg")[4] == "0" && database.number(COUNT) == 1028);
    assert_eq!(ids(&database), table_ids(&tenant));
}

/// The two queries that `docs/sinks.md` has for clocks that are wrong say the same of the same rows.
fn corrected_times_are_those_of_the_events_table(database: &Database, tenant: &Tenant) {
    let docs = include_str!("../../../../docs/sinks.md");
    let queries: Vec<&str> =
        docs.lines().filter(|line| line.starts_with("SELECT ") && line.contains(" AS corrected ")).collect();
    let [sqlite, postgres] = queries[..] else { panic!("two queries: {queries:?}") };
    // One that is ahead, one that is slow or was offline; those of all others are right.
    let skewed = "UPDATE {} SET skew_ms = CASE seq % 3 WHEN 0 THEN -3600000 WHEN 1 THEN 5000 END";
    tenant.settle();
    let table = rusqlite::Connection::open(tenant.folder.join("events.db")).expect("opens");
    table.execute_batch(&skewed.replace("{}", "events")).expect("changed");
    database.sql(&skewed.replace("{}", "firsthop_events"));
    let (sqlite, _) = sqlite.split_once(';').expect("a statement");
    let mut statement = table.prepare(&format!("{sqlite} ORDER BY event_id")).expect("a query");
    let here: Vec<String> =
        statement.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("a row")).collect();
    let (postgres, _) = postgres.split_once(';').expect("a statement");
    let shown = format!(
        "SELECT to_char(corrected AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') FROM ({}) AS c ORDER BY event_id COLLATE \"C\"",
        postgres.replace(" AS corrected", " AS corrected, event_id")
    );
    let there: Vec<String> = database.sql(&shown).lines().map(str::to_owned).collect();
    assert_eq!(here, there);
    let moved = "SELECT COUNT(*) FROM events WHERE skew_ms < 0";
    assert!(tenant.events(moved) > 300 && tenant.events("SELECT COUNT(*) FROM events WHERE skew_ms IS NULL") > 300);
    // And it is an hour earlier where it has to be.
    let earlier = format!(
        "SELECT COUNT(*) FROM ({}) AS c WHERE corrected = time - interval '1 hour'",
        postgres.replace(" AS corrected", " AS corrected, time")
    );
    assert_eq!(database.number(&earlier) as i64, tenant.events(moved));
}

/// Two servers behind one balancer, which have the same events in another order, deliver into one table: each event is a row there, and
/// only one, and neither server waits for the other in a circle.
#[test]
fn two_servers_have_one_table() {
    let database = Database::start();
    let [one, two] = [Folder::new(), Folder::new()];
    let tenant = one.tenant("shop", &[]);
    tenant.add_sink(&sink(&database, "batch_events = 500"));
    let there = Tenant { folder: two.path.join("tenants").join(tenant.id.to_string()), ..tenant.clone() };
    fs::create_dir_all(&there.folder).expect("made");
    for name in ["tenant.toml", "keys.toml"] {
        fs::copy(tenant.folder.join(name), there.folder.join(name)).expect("copied");
    }
    let servers = [one.serve(), two.serve()];
    // So slow that a batch of the one meets a batch of the other.
    until("there is a table", || database.sql("SELECT to_regclass('firsthop_events') IS NOT NULL") == "t");
    database.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.0005); RETURN NEW; END';
         CREATE TRIGGER slow BEFORE INSERT ON firsthop_events FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let frames: Vec<_> = (0..200).map(|_| Page::new(&tenant).frame(20)).collect();
    let backwards = frames.iter().rev().collect();
    thread::scope(|scope| {
        for (server, frames) in servers.iter().zip([frames.iter().collect::<Vec<_>>(), backwards]) {
            scope.spawn(move || {
                let mut client = server.client();
                for frame in frames {
                    assert_eq!(client.frame(frame).receipt().stored, 20);
                }
            });
        }
    });
    for (server, tenant) in servers.iter().zip([&tenant, &there]) {
        tenant.settle();
        until("nothing waits", || tenant.sink(server, "lag_frames", "pg") == 0.0);
        assert_eq!(tenant.sink(server, "errors_total", "pg"), 0.0, "{}", server.log());
        assert_eq!(ids(&database), table_ids(tenant));
    }
    assert_eq!(database.number(COUNT), 4000);
}

/// A row that a constraint refuses is found among thousands, and the rest goes on; a batch that was committed and whose answer came too
/// late is not there twice.
#[test]
fn poison_and_a_commit_that_nobody_heard_of() {
    let database = Database::start();
    let (folder, server, tenant) = served();
    tenant.add_sink(&sink(&database, "table = 'public.shop'\ntimeout = '1s'"));
    let count = "SELECT COUNT(*) FROM shop";
    send(&server, &tenant, &[1]);
    until("it is there", || database.number(count) == 2);
    database.sql("ALTER TABLE shop ADD CONSTRAINT no_thirteen CHECK ((properties->>'n')::int % 1000 <> 13)");
    send(&server, &tenant, &[2500]);
    until("the rest is there", || database.number(count) == 2503 - 3);
    until("they are counted", || tenant.sink(&server, "dead_letters", "pg") == 3.0);
    assert!(folder.ok(&["sinks", "dead"]).contains("no_thirteen"));
    database.sql("ALTER TABLE shop DROP CONSTRAINT no_thirteen");
    assert!(folder.ok(&["replay", "--sink", "pg", "--dead"]).contains("3 events that pg had refused are delivered"));
    assert_eq!(database.number(count), 2503);

    // Slower than the sink waits, but it does commit.
    database.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.5); RETURN NULL; END';
         CREATE TRIGGER slow AFTER INSERT ON shop FOR EACH STATEMENT EXECUTE FUNCTION slow()",
    );
    send(&server, &tenant, &[50]);
    until("it gave up, and it is there", || {
        tenant.sink(&server, "errors_total", "pg") > 0.0 && database.number(count) == 2554
    });
    database.sql("DROP TRIGGER slow ON shop");
    until("it is done", || listed(&folder, "pg")[4] == "0");
    assert_eq!(database.number(count), 2554);
    assert_eq!(table_ids(&tenant).len(), 2554);
}

/// PostgreSQL quotes rows in what it says of them. The operator who asks is shown it; the log, which goes elsewhere, has none of it.
#[test]
fn what_postgres_quotes_is_in_no_log() {
    let database = Database::start();
    let folder = Folder::new();
    let mut server = folder.serve_with(&["--log", "trace"]);
    let tenant = folder.only_tenant();
    tenant.add_sink(&sink(&database, ""));
    let call = |event: &str, id: &str, user: &str| {
        let json = format!(r#"{{"event":"{event}","messageId":"{id}","userId":"{user}"}}"#);
        assert_eq!(server.client().segment("/v1/track", &tenant.key, &json).status, 200);
    };
    call("first", "m-1", "ada@example.com");
    until("it is there", || database.number(COUNT) == 1);
    // For good: `DETAIL:  Key (user_id)=(ada@example.com) already exists.`
    database.sql("ALTER TABLE firsthop_events ADD CONSTRAINT one_each UNIQUE (user_id)");
    call("second", "m-2", "ada@example.com");
    until("it is refused", || tenant.sink(&server, "dead_letters", "pg") == 1.0);
    assert!(folder.ok(&["sinks", "dead"]).contains("one_each"));
    // For now, with the row in message, detail, hint and context.
    database.sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'no room for %', NEW.user_id USING ERRCODE = '53100', DETAIL = NEW.name, HINT = NEW.foreign_id; END $$;
         CREATE TRIGGER full_disk BEFORE INSERT ON firsthop_events FOR EACH ROW EXECUTE FUNCTION full_disk()",
    );
    call("Private Thing", "m-4711", "grace@example.com");
    until("it is noticed", || folder.ok(&["sinks", "list"]).contains("no room for grace@example.com"));
    server.says("SQLSTATE 53100");
    database.sql("DROP TRIGGER full_disk ON firsthop_events");
    until("it is there", || database.number(COUNT) == 2);
    server.stop();
    let log = server.log();
    for marker in ["ada@", "grace@", "Private Thing", "m-4711", "no room for", "already exists"] {
        assert!(!log.contains(marker), "{marker} in {log}");
    }
}

/// What PostgreSQL says it has committed, it has after a crash: also where the database asks for less.
#[test]
fn what_is_delivered_is_on_postgresqls_disk() {
    let mut database = Database::start();
    let (folder, server, tenant) = served();
    database.sql("ALTER ROLE shop SET synchronous_commit = off");
    database.down();
    // Its log would be written in ten seconds, if nobody waited for it.
    let later = ["wal_writer_delay=10s", "autovacuum=off"];
    database.up(&later);
    tenant.add_sink(&sink(&database, ""));
    send(&server, &tenant, &[1]);
    until("it is there", || database.number(COUNT) == 2);
    database.sql(
        "CREATE TABLE settings (synchronous_commit text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO settings VALUES (current_setting(''synchronous_commit'')); RETURN NULL; END';
         CREATE TRIGGER note AFTER INSERT ON firsthop_events FOR EACH STATEMENT EXECUTE FUNCTION note(); CHECKPOINT",
    );
    for sent in 1..=5 {
        send(&server, &tenant, &[30]);
        until("it is confirmed", || listed(&folder, "pg")[4] == "0" && database.number(COUNT) == 2 + sent * 31);
    }
    database.down();
    database.up(&later);
    assert_eq!(database.number(COUNT), 2 + 5 * 31, "what was confirmed is there after a crash");
    assert_eq!(database.sql("SELECT DISTINCT synchronous_commit FROM settings"), "on");
    // What is stricter stays.
    database.sql("ALTER ROLE shop SET synchronous_commit = remote_apply; TRUNCATE settings");
    database.down();
    database.up(&later);
    send(&server, &tenant, &[1]);
    until("it is there", || database.number(COUNT) == 4 + 5 * 31);
    assert_eq!(database.sql("SELECT DISTINCT synchronous_commit FROM settings"), "remote_apply");
}

/// SIGKILL of the server in the middle of delivery, twenty times: every event is a row, and only one.
#[test]
fn a_kill_loses_and_doubles_no_row() {
    let database = Database::start();
    let (folder, server, tenant) = served();
    tenant.add_sink(&sink(&database, "batch_events = 200"));
    let server = kill_in_delivery(&folder, server, &tenant, 10, || database.number(COUNT));
    let expected = table_ids(&tenant);
    until("nothing waits", || tenant.sink(&server, "lag_frames", "pg") == 0.0);
    assert_eq!(ids(&database), expected);
}

/// TLS is spoken and the certificate verified: by the authority that is named, and no other.
#[test]
fn tls_is_verified() {
    let mut database = Database::start();
    authority(database.path(), "ca");
    authority(database.path(), "other");
    certificate(database.path(), "ca", "db", "IP:127.0.0.1");
    database.down();
    for name in ["db.key", "db.pem"] {
        let own =
            format!("cp {name} data/{name} && chmod 600 data/{name} && (chown postgres:postgres data/{name} || true)");
        let done = Command::new("sh").args(["-c", &own]).current_dir(database.path()).output().expect("sh runs");
        assert!(done.status.success(), "{done:?}");
    }
    database.up(&["ssl=on", "ssl_cert_file=db.pem", "ssl_key_file=db.key"]);
    // Who does not speak TLS is not let in.
    fs::write(database.path().join("data/pg_hba.conf"), "local all all trust\nhostssl all all 127.0.0.1/32 trust\n")
        .expect("written");
    database.sql("SELECT pg_reload_conf()");
    let (folder, server, tenant) = served();
    send(&server, &tenant, &[3]);
    // The last address that a name has is the one whose error is said, and PostgreSQL listens on one of them.
    let url = database.url().replace("localhost", "127.0.0.1");
    let sink = |tls: &str| format!("kind = 'postgres'\nname = 'pg'\nurl = '{url}'\n{tls}");
    for (tls, says) in [
        ("tls = 'off'", "no pg_hba.conf entry"),
        (&format!("ca_file = '{}'", database.path().join("other.pem").display()), "UnknownIssuer"),
    ] {
        tenant.add_sink(&sink(tls));
        until(says, || folder.ok(&["sinks", "list"]).contains(says));
        tenant.remove_sinks();
    }
    tenant.add_sink(&sink(&format!("ca_file = '{}'", database.path().join("ca.pem").display())));
    until("all are there", || database.number(COUNT) == 4);
    let secure = "SELECT COUNT(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'firsthop'";
    until("one connection, and a secure one", || database.number(secure) == 1);
}
