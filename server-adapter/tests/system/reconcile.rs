//! The balance, drawn up while a server runs.

use serde_json::Value as Json;

use crate::common::{Folder, Page};

fn reconcile(folder: &Folder, more: &[&str]) -> (Option<i32>, Json, String) {
    let output = folder.run(&[&["reconcile", "--json"], more].concat());
    let said = crate::common::text(&output.stdout);
    let error = crate::common::text(&output.stderr);
    (output.status.code(), serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{error}")), error)
}

#[test]
fn what_is_missing_is_named_and_what_comes_late_closes_the_balance() {
    let folder = Folder::new();
    assert!(folder.fails(&["reconcile"]).contains("no tenants"));
    let mut server = folder.serve();
    let tenant = folder.only_tenant();
    let mut client = server.client();
    let mut page = Page::new(&tenant);
    page.begin(&mut client);
    let frames: Vec<_> = (0..4).map(|_| page.frame(10)).collect();
    for frame in [&frames[0], &frames[0], &frames[3]] {
        client.frame(frame).receipt();
    }
    // Numbers that anybody can make up.
    let liar = Page::new(&tenant);
    client.frame(&liar.frame_at(1 << 40, 5, "x")).receipt();

    let (code, said, _) = reconcile(&folder, &[]);
    assert_eq!(code, Some(0), "{said}");
    let total = &said["total"];
    for (figure, events) in [
        ("issued", 46),
        ("stored", 26),
        ("duplicate", 10),
        ("in_flight", 20),
        ("unaccounted", 0),
        ("untrusted", 1_u64 << 40),
    ] {
        assert_eq!(total[figure], events, "{figure} in {said}");
    }
    let (code, said, error) = reconcile(&folder, &["--grace", "0s"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(error.contains("20 events are unaccounted for"), "{error}");
    // As the server's own figures have it, if nothing else is said.
    let mut by_variable = crate::common::firsthop(&folder.path);
    by_variable.args(["reconcile"]).env("FIRSTHOP_LEDGER_GRACE", "0s");
    assert_eq!(by_variable.output().expect("runs").status.code(), Some(3));
    let settings = folder.path.join("firsthop.toml");
    std::fs::write(&settings, "ledger_grace = \"0s\"").expect("written");
    let settings = ["--config", settings.to_str().expect("UTF-8")];
    assert_eq!(reconcile(&folder, &settings).0, Some(3));
    assert_eq!(reconcile(&folder, &[&settings[..], &["--grace", "1d"]].concat()).0, Some(0));
    let gap = &said["gaps"]["unaccounted"]["named"][0];
    assert_eq!(
        (&gap["source"], &gap["first"], &gap["last"]),
        (&page.source.to_string().into(), &11.into(), &30.into())
    );
    assert_eq!(said["gaps"]["untrusted"]["named"][0]["source"], liar.source.to_string());
    // Within other hours there is nothing, and nothing is missing.
    let (code, said, _) = reconcile(&folder, &["--grace", "0s", "--to", "2000-01-01"]);
    assert_eq!((code, &said["total"]["issued"]), (Some(0), &0.into()));
    let output = folder.run(&["reconcile", "--from", "2001-01-01", "--to", "2000-01-01"]);
    assert_eq!(output.status.code(), Some(2), "a wrong command line");
    let output = folder.run(&["reconcile", "--grace", "0s", "--hours"]);
    let text = crate::common::text(&output.stdout);
    assert!(text.contains("UNACCOUNTED FOR: 20 events of 1 sources, in 1 gaps"), "{text}");
    assert!(text.contains(&format!("{}/11-30  -- hop 0 in 20", page.source)), "{text}");
    assert!(text.contains("The balance does not close."), "{text}");

    for frame in &frames[1..3] {
        client.frame(frame).receipt();
    }
    let (code, said, _) = reconcile(&folder, &["--grace", "0s"]);
    assert_eq!((code, &said["balanced"], &said["total"]["issued"]), (Some(0), &true.into(), &46.into()), "{said}");
    server.stop();
    assert_eq!(reconcile(&folder, &["--grace", "0s"]).0, Some(0));
    assert!(folder.ok(&["reconcile"]).contains("has its outcome"));
    // The tables are held against each other.
    let journal = rusqlite::Connection::open(tenant.folder.join("journal.db")).expect("opens");
    journal.execute("UPDATE counters SET events = events + 1 WHERE outcome = 'stored'", []).expect("changed");
    let (code, said, error) = reconcile(&folder, &[]);
    assert_eq!(code, Some(3));
    assert!(said["faults"][0].as_str().is_some_and(|fault| fault.contains("47 events are counted")), "{said}");
    assert!(error.contains("contradict"), "{error}");
}
