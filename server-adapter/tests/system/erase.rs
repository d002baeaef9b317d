//! Erasing a person: nothing of them is left in any file, everybody else's events stay, and no retry brings them back.

use std::{fs, path::Path};

use firsthop_core::{
    Context, ContextDelta, Event, ExtensionKind, FrameWriter, Header, PropertiesWriter, SourceId, Unsigned, Value,
};

use crate::common::{Client, Folder, Page, Tenant, now, random, served, until};

const PERSON: &str = "person-4711@example.com";
const ANONYMOUS: &str = "anonymous-0815-of-the-person";

/// One request with several people's events, as a server-side SDK sends them.
fn batch(client: &mut Client, tenant: &Tenant, number: usize, secret: &str) {
    let json = format!(
        r#"{{"batch":[
            {{"type":"track","event":"A","userId":"other-1","messageId":"o1-{number}","properties":{{"n":{number}}}}},
            {{"type":"track","event":"B","userId":"{PERSON}","messageId":"p1-{number}","properties":{{"secret":"{secret}"}}}},
            {{"type":"page","name":"C","anonymousId":"{ANONYMOUS}","messageId":"p2-{number}"}},
            {{"type":"alias","previousId":"{ANONYMOUS}","userId":"{PERSON}","messageId":"p3-{number}"}},
            {{"type":"track","event":"D","userId":"other-2","messageId":"o2-{number}"}}
        ]}}"#
    );
    assert_eq!(client.segment("/v1/batch", &tenant.key, &json).status, 200);
}

fn one(client: &mut Client, tenant: &Tenant, id: &str, user: &str, event: &str) -> u16 {
    let json = format!(r#"{{"event":"{event}","userId":"{user}","messageId":"{id}"}}"#);
    client.segment("/v1/track", &tenant.key, &json).status
}

/// The files under a folder that have these bytes, by name.
pub(crate) fn grep(folder: &Path, needle: impl AsRef<[u8]>) -> Vec<String> {
    let needle = needle.as_ref();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(grep(&path, needle));
        } else if let Ok(bytes) = fs::read(&path)
            && bytes.windows(needle.len()).any(|window| window == needle)
        {
            found.push(path.file_name().expect("a name").to_string_lossy().into_owned());
        }
    }
    found
}

#[test]
fn nothing_of_a_person_is_left_and_all_of_the_others() {
    let (folder, mut server, tenant) = served();
    let mut client = server.client();
    for number in 0..20 {
        batch(&mut client, &tenant, number, "a-secret-of-the-person");
        assert_eq!(one(&mut client, &tenant, &format!("s-{number}"), PERSON, "Single"), 200);
    }
    // In quarantine: the same id with another content.
    one(&mut client, &tenant, "s-0", PERSON, "Contradiction");
    let mut page = Page::new(&tenant);
    page.begin(&mut client);
    let native = page.frame(7);
    assert_eq!(client.frame(&native).receipt().stored, 7);
    tenant.settle();
    let (rows, frames) = (tenant.events("SELECT COUNT(*) FROM events"), tenant.journal("SELECT COUNT(*) FROM frames"));
    assert_eq!(rows, 20 * 6 + 8);
    assert!(!grep(&folder.path, PERSON).is_empty() && !grep(&folder.path, "a-secret-of-the-person").is_empty());

    let who = ["--user", PERSON, "--anonymous", ANONYMOUS];
    let said = folder.ok(&[&["erase", "--dry-run"], &who[..]].concat());
    assert!(
        said.contains("80 stored events in 40 frames, 80 rows of the events table, 1 entries in quarantine, 0 dead"),
        "{said}"
    );
    assert!(folder.fails(&[&["erase"], &who[..]].concat()).contains("--yes"));
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), rows, "nothing was erased yet");
    let said = folder.ok(&[&["erase", "--yes"], &who[..]].concat());
    assert!(said.contains("erased 80 stored events in 40 frames, 80 rows"), "{said}");

    for needle in [PERSON, ANONYMOUS, "a-secret-of-the-person"] {
        assert_eq!(grep(&folder.path, needle), Vec::<String>::new(), "{needle}");
    }
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), rows - 80);
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE user_id LIKE 'other-%'"), 40);
    let outcome =
        |name: &str| tenant.journal(&format!("SELECT COALESCE(SUM(events), 0) FROM counters WHERE outcome = '{name}'"));
    assert_eq!(
        (outcome("stored"), outcome("erased"), outcome("quarantined"), outcome("discarded")),
        (rows - 80, 80, 0, 1)
    );
    let said = folder.ok(&["verify"]);
    assert!(said.contains("erased from 40 frames") && said.contains("all of it is as it was written"), "{said}");

    // A retry, and another content under the same ids: known, and not taken.
    let duplicates = outcome("duplicate");
    for number in 0..20 {
        batch(&mut client, &tenant, number, "another-secret");
    }
    one(&mut client, &tenant, "s-3", PERSON, "Single");
    assert_eq!(client.frame(&native).receipt().duplicate, 7);
    tenant.settle();
    assert_eq!(outcome("duplicate"), duplicates + 20 * 5 + 1 + 7);
    assert_eq!(tenant.journal("SELECT COUNT(*) FROM frames"), frames);
    assert_eq!(grep(&folder.path, "another-secret"), Vec::<String>::new());
    let said = folder.ok(&[&["erase", "--dry-run"], &who[..]].concat());
    assert!(said.contains("0 stored events in 0 frames, 0 rows"), "{said}");

    // Without a server; and a table that is made again has the others, and nobody else.
    server.stop();
    assert!(folder.ok(&["erase", "--yes", "--user", "other-1"]).contains("erased 20 stored events"));
    fs::remove_file(tenant.folder.join("events.db")).expect("removed");
    let mut server = folder.serve();
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 20 + 8);
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE user_id = 'other-2'"), 20);
    assert_eq!(server.client().frame(&native).receipt().duplicate, 7);
    server.stop();
    assert!(folder.ok(&["verify"]).contains("all of it is as it was written"));
    folder.ok(&["reconcile"]);
}

/// Nothing in the journal says any more whose these were; the rows do.
#[test]
fn what_retention_has_removed_is_erased_by_its_rows() {
    let folder = Folder::new();
    let mut server = folder.serve_with(&["--retention-age", "1s"]);
    let tenant = folder.only_tenant();
    let mut client = server.client();
    batch(&mut client, &tenant, 1, "a-secret-of-the-person");
    assert_eq!(one(&mut client, &tenant, "s-1", PERSON, "Single"), 200);
    let native = page_frame(&tenant, 4, true);
    assert_eq!(client.frame(&native).receipt().stored, 4);
    tenant.settle();
    until("all bodies are removed", || tenant.journal("SELECT COUNT(*) FROM frames WHERE LENGTH(body) > 0") == 0);

    let who = ["--user", PERSON, "--anonymous", ANONYMOUS];
    let said = folder.ok(&[&["erase", "--dry-run"], &who[..]].concat());
    assert!(said.contains("6 stored events in 0 frames, 6 rows"), "{said}");
    let said = folder.ok(&[&["erase", "--yes"], &who[..]].concat());
    assert!(said.contains("erased 6 stored events in 0 frames, 6 rows"), "{said}");
    let outcome =
        |name: &str| tenant.journal(&format!("SELECT COALESCE(SUM(events), 0) FROM counters WHERE outcome = '{name}'"));
    assert_eq!((outcome("stored"), outcome("erased")), (4, 6));
    // Six times eight bytes say nothing any more.
    let blank = "SELECT SUM((LENGTH(hex(digests)) - LENGTH(replace(hex(digests), '0000000000000000', ''))) / 16) FROM tombstones";
    assert_eq!(tenant.journal(blank), 6);

    // What comes under their ids is known, and not taken; what is not theirs is compared as before.
    assert_eq!(one(&mut client, &tenant, "s-1", PERSON, "Contradiction"), 200);
    batch(&mut client, &tenant, 1, "another-secret");
    assert_eq!(client.frame(&native).receipt().duplicate, 4);
    tenant.settle();
    assert_eq!((outcome("stored"), outcome("duplicate"), outcome("quarantined")), (4, 10, 0));
    assert_eq!(one(&mut client, &tenant, "o1-1", "other-1", "Contradiction"), 200);
    assert_eq!(outcome("quarantined"), 1);
    let said = folder.ok(&[&["erase", "--dry-run"], &who[..]].concat());
    assert!(said.contains("0 stored events in 0 frames, 0 rows"), "{said}");
    server.stop();
    for needle in [PERSON, ANONYMOUS, "another-secret"] {
        assert_eq!(grep(&folder.path, needle), Vec::<String>::new(), "{needle}");
    }
    assert!(folder.ok(&["verify"]).contains("all of it is as it was written"));
    folder.ok(&["reconcile"]);
}

/// A frame of a page: its events share a context, and two of them, if there are so many, are another person's.
fn page_frame(tenant: &Tenant, events: usize, others: bool) -> Vec<u8> {
    let header = Header::new(tenant.id, SourceId::new(random()), now());
    let mut writer = FrameWriter::new(vec![0; 400_000], &header).expect("room");
    writer.extension(ExtensionKind::WriteKey, tenant.key.as_bytes()).expect("room");
    let block = || PropertiesWriter::new(vec![0; 512], vec![0; 512]);
    let mut extra = block();
    extra.put("email", Value::Str("trait-of-the-person")).expect("room");
    let shared = Context {
        user_id: Some(PERSON),
        anonymous_id: Some("their-device"),
        url: Some("https://shop.example/url-of-the-person"),
        title: Some("title-of-both"),
        extra: extra.finish().expect("closed"),
        ..Context::default()
    };
    writer.context(&shared).expect("room");
    let mut theirs = block();
    theirs
        .put("what", Value::Str("text-of-the-person, of some length so that events are as long as they are"))
        .expect("room");
    let properties = theirs.finish().expect("closed");
    let mut other_extra = block();
    other_extra.put("email", Value::Str("trait-of-another")).expect("room");
    let own = Context {
        user_id: Some("other-9"),
        anonymous_id: Some("another-device"),
        url: Some("https://shop.example/url-of-another"),
        extra: other_extra.finish().expect("closed"),
        ..Context::default()
    };
    let mut delta = [0; 512];
    let delta = ContextDelta::encode(&own, &mut delta).expect("room");
    for index in 0..events {
        let context = if others && index < 2 { delta } else { ContextDelta::NONE };
        writer.event(&Event { name: "Seen", context, properties, ..Event::default() }).expect("room");
    }
    writer.finish(&Unsigned).expect("finished").to_vec()
}

/// What the events of a frame share goes with the last of those that it is of, in small frames and in large ones.
#[test]
fn what_a_persons_events_share_goes_with_them() {
    let (folder, mut server, tenant) = served();
    let mut client = server.client();
    let sizes = [1, 3, 40, 500, 2, 3000, 10];
    for (events, others) in sizes.into_iter().flat_map(|events| [(events, false), (events, events > 2)]) {
        one(&mut client, &tenant, &format!("n-{events}-{others}"), "neighbour", "Beside");
        assert_eq!(client.frame(&page_frame(&tenant, events, others)).receipt().stored as usize, events);
    }
    tenant.settle();
    let rows = tenant.events("SELECT COUNT(*) FROM events");
    folder.ok(&["erase", "--yes", "--user", PERSON]);
    for needle in [PERSON, "their-device", "url-of-the-person", "trait-of-the-person"] {
        assert_eq!(grep(&folder.path, needle), Vec::<String>::new(), "{needle}");
    }
    // All that the others say, by the shared context too, is as it was.
    let others = "user_id = 'other-9' AND title = 'title-of-both' AND url LIKE '%url-of-another' AND context LIKE '%trait-of-another%'";
    let count = |what: &str| tenant.events(&format!("SELECT COUNT(*) FROM events WHERE {what}"));
    assert_eq!((count(others), count("user_id = 'neighbour'")), (2 * 5, 12));
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), rows - 2 * 3556 + 2 * 5);
    let said = folder.ok(&["verify"]);
    assert!(said.contains("as it was written"), "{said}");
    folder.ok(&["erase", "--yes", "--anonymous", "another-device"]);
    for needle in ["title-of-both", "trait-of-another", "another-device", "text-of-the-person", "other-9"] {
        assert_eq!(grep(&folder.path, needle), Vec::<String>::new(), "{needle}");
    }
    server.stop();
    for needle in [PERSON, "url-of-the-person", "text-of-the-person", "title-of-both"] {
        assert_eq!(grep(&folder.path, needle), Vec::<String>::new(), "{needle}");
    }
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 12);
    folder.ok(&["verify"]);
    folder.ok(&["reconcile"]);
}

/// What a sink has yet to get is not taken from it, unless that is said.
#[test]
fn what_is_not_delivered_waits_or_is_said() {
    let (folder, server, tenant) = served();
    let mut client = server.client();
    one(&mut client, &tenant, "1", "somebody", "First");
    tenant.settle();
    let table = rusqlite::Connection::open(tenant.folder.join("events.db")).expect("opens");
    table.busy_timeout(std::time::Duration::from_secs(5)).expect("a timeout");
    table.execute_batch("BEGIN IMMEDIATE").expect("locked");
    one(&mut client, &tenant, "2", "somebody", "Second");
    let waiting = std::thread::spawn({
        let path = folder.path.clone();
        move || crate::common::firsthop(&path).args(["erase", "--yes", "--user", "somebody"]).output().expect("runs")
    });
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(!waiting.is_finished(), "it waits for the table");
    table.execute_batch("ROLLBACK").expect("unlocked");
    let output = waiting.join().expect("ended");
    assert!(output.status.success(), "{output:?}");
    let said = crate::common::text(&output.stdout);
    assert!(said.contains("erased 2 stored events in 2 frames, 2 rows"), "{said}");
    assert_eq!(grep(&folder.path, "somebody"), Vec::<String>::new());
}

/// What was refused is as its sender wrote it: the same id as it is and as JSON may write it, in what is JSON and in what is not.
#[test]
fn an_entry_in_quarantine_that_writes_the_id_in_another_way_goes_too() {
    let (folder, mut server, tenant) = served();
    let mut client = server.client();
    let entries = || tenant.journal("SELECT COUNT(*) FROM quarantine");
    for (number, id) in ["jos\u{e9}/1", r"jos\u00e9\/1", r"\u006aos\u00E9\u002f1"].into_iter().enumerate() {
        // Cut off, and of a type that there is not.
        for json in [
            format!(r#"{{"messageId":"{number}","userId":"{id}","event":"A"#),
            format!(r#"{{"batch":[{{"type":"none","messageId":"b{number}","userId":"{id}"}}]}}"#),
        ] {
            client.segment("/v1/batch", &tenant.key, &json);
        }
    }
    client.segment("/v1/batch", &tenant.key, r#"{"userId":"jos\\u00e9/1","event":"somebody else"#);
    assert_eq!(entries(), 7);
    let said = folder.ok(&["erase", "--yes", "--user", "jos\u{e9}/1"]);
    assert!(said.contains("6 entries"), "{said}");
    assert_eq!(entries(), 1);
    server.stop();
    assert_eq!(grep(&folder.path, "somebody else").len(), 1);
    for needle in ["jos\u{e9}/1", r"jos\u00e9\/1", r"\u006aos"] {
        assert_eq!(grep(&folder.path, needle), Vec::<String>::new(), "{needle}");
    }
    folder.ok(&["verify"]);
    // As if the command had been interrupted between making an entry blank and taking it out: the next one does.
    let journal = rusqlite::Connection::open(tenant.folder.join("journal.db")).expect("opens");
    journal.execute("UPDATE quarantine SET body = zeroblob(LENGTH(body))", []).expect("blank");
    drop(journal);
    assert!(folder.ok(&["erase", "--yes", "--user", "anybody"]).contains("1 entries"));
    assert_eq!(entries(), 0);
    folder.ok(&["verify"]);
    folder.ok(&["reconcile"]);
}
