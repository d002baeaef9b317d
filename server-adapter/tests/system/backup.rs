//! Backup and restore, with the real binary.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use crate::common::{Client, Folder, Page, Raise, served, until};

/// Everything that was acknowledged before the backup began is in it, though the server goes on writing all the time.
#[test]
fn a_backup_under_load_is_whole() {
    let (folder, mut server, tenant) = served();
    let (address, stop) = (server.public, AtomicBool::new(false));
    let (sent, slowest) = (AtomicU64::new(0), AtomicU64::new(0));
    let backup = folder.path.with_file_name("backups").join("one");
    let to = backup.to_str().expect("text").to_owned();
    let mut before = Vec::new();
    thread::scope(|scope| {
        let load: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let (mut client, mut page) = (Client::new(address), Page::new(&tenant));
                    page.begin(&mut client);
                    let mut acknowledged = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let frame = page.frame(50);
                        let began = Instant::now();
                        assert_eq!(client.frame(&frame).receipt().stored, 50);
                        slowest.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
                        sent.fetch_add(1, Ordering::Relaxed);
                        acknowledged.push((Instant::now(), frame));
                    }
                    acknowledged
                })
            })
            .collect();
        let end = Raise(&stop);
        until("there is a load", || sent.load(Ordering::Relaxed) >= 300);
        slowest.store(0, Ordering::Relaxed);
        let (began, sent_before) = (Instant::now(), sent.load(Ordering::Relaxed));
        let said = folder.ok(&["backup", "--to", &to]);
        assert!(said.contains("root keys"), "{said}");
        let meanwhile = sent.load(Ordering::Relaxed) - sent_before;
        assert!(meanwhile > 0, "nothing was written while it ran");
        assert!(slowest.load(Ordering::Relaxed) < 10_000, "{slowest:?} ms for an answer meanwhile");
        drop(end);
        for client in load {
            let frames = client.join().expect("a client");
            before.extend(frames.into_iter().filter(|(when, _)| *when < began).map(|(_, frame)| frame));
        }
    });
    server.stop();
    assert!(before.len() >= 300);
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        names
    };
    let copied = backup.join("tenants").join(tenant.id.to_string());
    assert_eq!(names(backup.parent().expect("there")), ["one"], "nothing half made is left");
    let there = names(&copied);
    assert!(["journal.db", "keys.toml", "tenant.toml"].iter().all(|name| there.iter().any(|there| there == name)));
    assert!(!there.iter().any(|name| name.starts_with("events.db") || name.contains("-wal")), "{there:?}");
    for name in names(&copied) {
        assert_eq!(fs::metadata(copied.join(&name)).expect("there").permissions().mode() & 0o777, 0o600, "{name}");
    }

    let other = Folder::new();
    let said = other.ok(&["restore", "--from", &to]);
    assert!(said.contains("all of it as it was written"), "{said}");
    assert!(other.ok(&["verify"]).contains("all of it is as it was written"));
    let mut server = other.serve();
    let restored = other.only_tenant();
    assert_eq!(restored.id, tenant.id);
    let mut client = server.client();
    for frame in &before {
        let receipt = client.frame(frame).receipt();
        assert_eq!((receipt.stored, receipt.duplicate), (0, 50), "it was acknowledged before the backup began");
    }
    restored.settle();
    assert_eq!(
        restored.events("SELECT COUNT(*) FROM events"),
        restored.journal("SELECT SUM(events) FROM counters WHERE outcome = 'stored'")
    );
    server.stop();
    assert!(other.ok(&["verify"]).contains("all of it is as it was written"));
}

#[test]
fn nothing_is_written_over_and_nothing_broken_is_restored() {
    let folder = Folder::new();
    let (one, two) = (folder.tenant("one", &[]), folder.tenant("two", &[]));
    let mut server = folder.serve();
    let mut page = Page::new(&one);
    page.begin(&mut server.client());
    let frame = page.frame(30);
    server.client().frame(&frame).receipt();
    one.settle();
    let backup = folder.path.with_file_name("backup");
    let to = backup.to_str().expect("text");
    // What a run that was ended has left.
    let left = folder.path.with_file_name(".backup.partial");
    fs::create_dir_all(left.join("tenants/x")).expect("made");
    fs::write(left.join("tenants/x/journal.db"), "half").expect("written");
    folder.ok(&["backup", "--to", to, "--events"]);
    assert!(!left.exists() && !backup.join("tenants/x").exists());
    assert!(backup.join("tenants").join(one.id.to_string()).join("events.db").exists());
    assert!(folder.fails(&["backup", "--to", to]).contains("never written over"));
    let inside = folder.path.join("tenants/backup");
    assert!(folder.fails(&["backup", "--to", inside.to_str().expect("text")]).contains("data folder"));
    assert!(folder.fails(&["restore", "--from", to]).contains("is there already"));
    assert!(
        folder.fails(&["restore", "--from", to, "--tenant", "three"]).contains("no tenant \"three\" in the backup")
    );
    server.stop();

    // With its events table, whose cursor still holds.
    let other = Folder::new();
    other.ok(&["restore", "--from", to, "--tenant", "one"]);
    assert!(!other.path.join("tenants").join(two.id.to_string()).exists());
    let mut restored = other.serve();
    let tenant = other.only_tenant();
    let rewinds = format!("firsthop_sink_rewinds_total{{tenant=\"{}\",sink=\"events\"}}", tenant.id);
    assert_eq!((tenant.events("SELECT COUNT(*) FROM events"), restored.metric(&rewinds)), (31, 0.0));
    // A second tenant comes while the server runs.
    other.ok(&["restore", "--from", to, "--tenant", "two"]);
    let event = r#"{"event":"x","userId":"u"}"#;
    until("the restored tenant is noticed", || restored.client().segment("/v1/track", &two.key, event).status == 200);
    restored.stop();

    // One bit, in any file.
    for name in ["journal.db", "keys.toml", "events.db"] {
        let file = backup.join("tenants").join(one.id.to_string()).join(name);
        let whole = fs::read(&file).expect("read");
        let mut broken = whole.clone();
        let at = broken.len() / 2;
        broken[at] ^= 1;
        fs::write(&file, &broken).expect("written");
        let empty = Folder::new();
        let said = empty.fails(&["restore", "--from", to]);
        assert!(said.contains("is not what was backed up") && said.contains(name), "{said}");
        assert!(!empty.path.join("tenants").join(one.id.to_string()).exists(), "nothing of it is in place");
        fs::write(&file, whole).expect("written");
    }
    fs::remove_file(backup.join("manifest.json")).expect("removed");
    assert!(Folder::new().fails(&["restore", "--from", to]).contains("this is no backup"));
}
