//! Retention: bodies go, the oldest first; what was seen stays exact, and the disk is used again.

use std::{fs, os::unix::fs::MetadataExt as _, thread, time::Duration};

use crate::common::{Folder, Page, Server, Tenant, served, until};

fn removed(tenant: &Tenant) -> i64 {
    tenant.journal("SELECT COUNT(*) FROM frames WHERE LENGTH(body) = 0")
}

fn metric(server: &Server, tenant: &Tenant, name: &str) -> f64 {
    server.metric(&format!("{name}{{tenant=\"{}\"}}", tenant.id))
}

#[test]
fn by_size_the_oldest_go_and_their_room_is_used_again() {
    let (folder, mut server, tenant) = served();
    let mut client = server.client();
    let mut page = Page::new(&tenant);
    page.begin(&mut client);
    let mut send = |pages: &mut Page, count| -> Vec<Vec<u8>> {
        (0..count)
            .map(|_| {
                let frame = pages.frame(300);
                assert_eq!(client.frame(&frame).receipt().stored, 300);
                frame
            })
            .collect()
    };
    let frames = send(&mut page, 200);
    tenant.settle();
    let total = tenant.journal("SELECT COUNT(*) FROM frames");
    assert_eq!(removed(&tenant), 0, "nothing is removed unless somebody says so");
    until("the figure of bytes", || metric(&server, &tenant, "firsthop_journal_bytes") > 3_000_000.0);
    let before = metric(&server, &tenant, "firsthop_journal_bytes");

    // Noticed while it runs.
    let file = tenant.folder.join("tenant.toml");
    let text = fs::read_to_string(&file).expect("read");
    fs::write(&file, format!("{text}\n[retention]\nmax_bytes = \"2MiB\"\n")).expect("written");
    until("what is too much is removed", || {
        let bytes = metric(&server, &tenant, "firsthop_journal_bytes");
        println!("{bytes} bytes, {} removed", removed(&tenant));
        bytes <= f64::from(2 << 20)
    });
    let gone = || metric(&server, &tenant, "firsthop_retention_frames_total") as i64;
    until("all that is removed is counted", || gone() == removed(&tenant));
    let gone = gone();
    assert!(gone > 30 && gone < total, "{gone} of {total}, from {before} bytes");
    assert_eq!(tenant.journal("SELECT MAX(id) FROM frames WHERE LENGTH(body) = 0"), gone, "the oldest");
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 200 * 300 + 1, "the table is not the journal");
    let said = folder.ok(&["verify"]);
    assert!(said.contains(&format!("removed the bodies of {gone} frames")), "{said}");
    assert!(said.contains("all of it is as it was written"), "{said}");

    // Exact all the same: the same bytes, the same events in another frame, other events under known numbers.
    let mut client = server.client();
    assert_eq!(client.frame(&frames[0]).receipt().duplicate, 300);
    let receipt = client.frame(&page.frame_at(5, 10, "Something Else")).receipt();
    assert_eq!((receipt.conflict, receipt.stored), (10, 0));
    // The same room once more.
    let disk = || fs::metadata(tenant.folder.join("journal.db")).expect("there").len();
    server.stop();
    let (before, mut server) = (disk(), folder.serve());
    let mut client = server.client();
    for _ in 0..200 {
        let frame = page.frame(300);
        assert_eq!(client.frame(&frame).receipt().stored, 300);
    }
    tenant.settle();
    until("it is removed again", || metric(&server, &tenant, "firsthop_journal_bytes") <= f64::from(2 << 20));
    server.stop();
    // It may grow by what came faster than it was removed, and by what is kept of each event.
    assert!(disk() < before + before * 3 / 4, "{before} bytes before, and {} then", disk());
    folder.ok(&["verify"]);
    folder.ok(&["reconcile"]);

    // What the journal could not give again is in a backup.
    let backup = folder.path.with_file_name("backup");
    folder.ok(&["backup", "--to", backup.to_str().expect("text")]);
    assert!(backup.join("tenants").join(tenant.id.to_string()).join("events.db").exists());
    let other = Folder::new();
    other.ok(&["restore", "--from", backup.to_str().expect("text")]);
    assert!(other.ok(&["verify"]).contains("all of it is as it was written"));
}

/// What a sink that stood still has filled is free again once it has it: not only within the file.
#[test]
fn a_disk_that_is_nearly_full_gets_back_what_is_removed() {
    let (folder, mut server, tenant) = served();
    let (mut client, mut page) = (server.client(), Page::new(&tenant));
    page.begin(&mut client);
    let frames: Vec<_> = (0..200).map(|_| page.frame(300)).collect();
    frames.iter().for_each(|frame| assert_eq!(client.frame(frame).receipt().stored, 300));
    tenant.settle();
    server.stop();
    // No disk has so much room.
    let mut server = folder.serve_with(&["--disk-reserve", "1000000GiB", "--retention-bytes", "1MiB"]);
    assert_eq!(server.internal_get("/readyz").status, 503);
    let disk = || metric(&server, &tenant, "firsthop_journal_disk_bytes");
    until("the figure", || disk() > 0.0);
    let file = tenant.folder.join("journal.db");
    let taken = || fs::metadata(&file).expect("there").blocks() * 512;
    let long = fs::metadata(&file).expect("there").len();
    until("it takes less of the disk", || {
        println!(
            "{} bytes of the disk, {} of the file in use",
            taken(),
            metric(&server, &tenant, "firsthop_journal_bytes")
        );
        taken() < long / 2 && disk() == taken() as f64
    });
    server.stop();
    assert!(folder.ok(&["verify"]).contains("all of it is as it was written"));
    // The room is used again, and what is known is known.
    let server = folder.serve();
    let mut client = server.client();
    for frame in &frames {
        assert_eq!(client.frame(frame).receipt().duplicate, 300);
        assert_eq!(client.frame(&page.frame(300)).receipt().stored, 300);
    }
    assert!(folder.ok(&["verify"]).contains("all of it is as it was written"));
}

/// By age; and nothing that a sink has yet to get.
#[test]
fn by_age_all_go_that_every_sink_has() {
    let folder = Folder::new();
    let mut server = folder.serve_with(&["--retention-age", "2s"]);
    let tenant = folder.only_tenant();
    let mut page = Page::new(&tenant);
    page.begin(&mut server.client());
    until("it is removed once the table has it", || removed(&tenant) == 1);
    let table = rusqlite::Connection::open(tenant.folder.join("events.db")).expect("opens");
    table.busy_timeout(Duration::from_secs(5)).expect("a timeout");
    table.execute_batch("BEGIN IMMEDIATE").expect("locked");
    for _ in 0..10 {
        let frame = page.frame(3);
        assert_eq!(server.client().frame(&frame).receipt().stored, 3);
    }
    thread::sleep(Duration::from_secs(4));
    assert_eq!(removed(&tenant), 1, "the table has yet to get the others");
    table.execute_batch("ROLLBACK").expect("unlocked");
    until("and then the others are", || removed(&tenant) == 11);
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 31);
    until("nothing is old", || metric(&server, &tenant, "firsthop_journal_oldest_seconds") == 0.0);
    server.stop();
    folder.ok(&["verify"]);
    // A table that is made again has none of them, and that is no fault.
    fs::remove_file(tenant.folder.join("events.db")).expect("removed");
    let mut server = folder.serve();
    let frame = page.frame(2);
    assert_eq!(server.client().frame(&frame).receipt().stored, 2);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 2);
    server.stop();
    folder.ok(&["verify"]);
}
