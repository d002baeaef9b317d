//! Start, stop, and what a disk that fails does to it.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::common::{Client, Folder, LONG, Page, Raise, Server, Tenant, clean, firsthop, served, until};

/// SIGTERM under load: what was acknowledged is in the table when the process ends, and it ends with 0.
#[test]
fn a_drain_finishes_what_it_began() {
    let folder = Folder::new();
    let mut server = folder.serve_with(&["--drain-delay", "3s"]);
    let tenant = folder.only_tenant();
    let (acknowledged, broken, end) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let (address, internal) = (server.public, server.internal);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let (mut client, mut page) = (Client::new(address), Page::new(&tenant));
                while !end.load(Ordering::Relaxed) {
                    let frame = page.frame(30);
                    match client.try_request("POST", "/v1/f", &[], &frame) {
                        Ok(response) if response.status == 200 => {
                            acknowledged.fetch_add(u64::from(response.receipt().stored), Ordering::Relaxed);
                        }
                        Ok(response) => panic!("{}", response.text()),
                        // Nobody listens any more. A connection that breaks before an answer is another matter.
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return,
                        Err(_) => {
                            broken.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                    }
                }
            });
        }
        let _end = Raise(&end);
        until("there is a load", || acknowledged.load(Ordering::Relaxed) > 1000);
        let before = Client::new(internal).get("/readyz");
        assert_eq!((before.status, before.text().as_str()), (200, "{\"ready\":true}"));
        server.signal("-TERM");
        // Unready first, and still serving: load balancers need the time.
        let mut during = before;
        until("it is unready", || {
            during = Client::new(internal).get("/readyz");
            during.status == 503
        });
        assert_eq!(during.code(), "unavailable");
        assert_eq!(during.json()["reason"], "stopping");
        assert_eq!(Client::new(internal).get("/livez").status, 200);
        let status = server.wait(LONG);
        assert_eq!(status.code(), Some(0), "{}", server.log());
    });
    let acknowledged = acknowledged.load(Ordering::Relaxed) as i64;
    // A request may be on the wire when the listener closes; none that was read goes unanswered.
    let cut = broken.load(Ordering::Relaxed) as i64;
    let stored = tenant.events("SELECT COUNT(*) FROM events");
    assert!(
        (acknowledged..=acknowledged + 30 * cut).contains(&stored),
        "{acknowledged} acknowledged, {stored} stored, {cut} cut"
    );
    assert_eq!(tenant.events("SELECT frame FROM firsthop_cursor"), tenant.journal("SELECT MAX(id) FROM frames"));
    let said = folder.ok(&["verify"]);
    assert!(said.contains("all of it is as it was written"), "{said}");
}

/// A client that asks and asks and reads no answer holds up the end for as long as it may, and no longer.
#[test]
fn who_reads_no_answers_does_not_keep_a_server_alive() {
    let folder = Folder::new();
    let mut server = folder.serve_with(&["--drain-timeout", "2s"]);
    let mut stream = std::net::TcpStream::connect(server.public).expect("connected");
    stream.set_nonblocking(true).expect("nonblocking");
    // Until neither side's buffers take any more: the server waits to write its answers.
    let requests = b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n".repeat(1000);
    let mut stuck = 0;
    until("it is stuck", || {
        match std::io::Write::write(&mut stream, &requests) {
            Ok(_) => stuck = 0,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => stuck += 1,
            Err(error) => panic!("{error}"),
        }
        stuck > 25
    });
    let tenant = folder.only_tenant();
    let mut page = Page::new(&tenant);
    assert_eq!(server.client().frame(&page.frame(3)).receipt().stored, 3, "others are served");
    server.stop();
    assert!(server.log().contains("some connections did not end in time"), "{}", server.log());
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 3);
}

#[test]
fn nothing_configured_works_and_says_what_to_do() {
    let folder = Folder::new();
    let home = folder.path.parent().expect("a parent");
    let mut command = Command::new(env!("CARGO_BIN_EXE_firsthop"));
    clean(&mut command).arg("serve").current_dir(home).env("FIRSTHOP_INTERNAL_LISTEN", "127.0.0.1:0").env("PORT", "0");
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().expect("starts");
    let mut said = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    while !said.contains("track(") {
        use std::io::BufRead;
        assert_ne!(out.read_line(&mut said).expect("text"), 0, "{said}");
    }
    let word = |prefix: &str| {
        said.split(|c: char| c.is_whitespace() || "\"',".contains(c))
            .find(|word| word.starts_with(prefix))
            .expect(prefix)
            .to_owned()
    };
    let key = word("fh_").trim_end_matches(':').to_owned();
    // PORT means all addresses, and the address that is printed works from here.
    let address = word("http://").trim_start_matches("http://").to_owned();
    let mut client = Client::new(address.parse().expect("an address"));
    assert_eq!(client.segment("/v1/track", &key, r#"{"event":"Hello","anonymousId":"me"}"#).status, 200);
    assert!(home.join("firsthop-data/tenants").is_dir());
    child.kill().expect("killed");
    child.wait().expect("ended");
    let output =
        clean(Command::new(env!("CARGO_BIN_EXE_firsthop")).args(["tenant", "list"]).current_dir(home)).output();
    assert!(crate::common::text(&output.expect("runs").stdout).contains(&key));
}

#[test]
fn one_server_to_a_folder() {
    let folder = Folder::new();
    let server = folder.serve();
    let mut second = firsthop(&folder.path);
    second.arg("serve");
    let said = Server::try_start(second).err().expect("refused");
    assert!(said.is_empty() || !said.contains("ready"), "{said}");
    let said = folder.fails(&["serve", "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"]);
    assert!(said.contains("another firsthop serves this folder"), "{said}");
    drop(server);
    folder.serve();
}

/// Tenants and keys change under a running server, which notices by itself.
#[test]
fn a_new_tenant_and_a_new_key_need_no_restart() {
    let folder = Folder::new();
    let server = folder.serve();
    let late = folder.tenant("late", &["--region", "EU"]);
    let mut client = server.client();
    let event = r#"{"event":"x","userId":"u"}"#;
    until("the new tenant is noticed", || client.segment("/v1/track", &late.key, event).status == 200);
    // A write key that is taken out of the file is worth nothing from then on.
    let file = late.folder.join("tenant.toml");
    let text = std::fs::read_to_string(&file).expect("there");
    let other = format!("{}{}", &late.key[..late.key.len() - 1], if late.key.ends_with('x') { 'y' } else { 'x' });
    std::fs::write(&file, text.replace(&late.key, &other)).expect("written");
    until("the change is noticed", || client.segment("/v1/track", &late.key, event).status == 401);
    assert_eq!(client.segment("/v1/track", &other, event).status, 200);
    // What a hand gets wrong changes nothing.
    std::fs::write(&file, "id = 7").expect("written");
    server.says("what was known stays in force");
    assert_eq!(client.segment("/v1/track", &other, event).status, 200);
}

/// What is stored is its owner's alone, also where the folder lets others in.
#[test]
fn nobody_else_may_read_what_is_stored() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, server, tenant) = served();
    Page::new(&tenant).begin(&mut server.client());
    tenant.settle();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&tenant.folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("its mode").permissions().mode() & 0o777;
        let name = entry.file_name().into_string().expect("a name");
        assert_eq!(mode, 0o600, "{name}: {mode:o}");
        files.push(name);
    }
    for name in ["journal.db", "journal.db-wal", "events.db", "events.db-wal"] {
        assert!(files.iter().any(|file| file == name), "{files:?}");
    }
}

/// A server whose files cannot grow beyond 2 MiB.
fn on_a_small_disk(folder: &Folder) -> Server {
    // A limit on file sizes is the failing disk of those who must not mount one. Its signal is ignored, so that writes
    // fail as on a full disk.
    let mut command = Command::new("bash");
    clean(&mut command).args([
        "-c",
        "trap '' XFSZ; ulimit -S -f 2048; exec \"$0\" serve",
        env!("CARGO_BIN_EXE_firsthop"),
    ]);
    command.env("FIRSTHOP_DATA", &folder.path);
    Server::start(command)
}

/// One tenant's file that cannot be written is one tenant's trouble: the server stays ready for the others.
#[test]
fn one_journal_that_fails_takes_nothing_from_the_others() {
    let folder = Folder::new();
    let (broken, well) = (folder.tenant("broken", &[]), folder.tenant("well", &[]));
    let server = on_a_small_disk(&folder);
    let (mut client, mut page) = (server.client(), Page::new(&broken));
    let up = |tenant: &Tenant| server.metric(&format!("firsthop_journal_up{{tenant=\"{}\"}}", tenant.id));
    // Opened again, a journal may have room once more, for a moment: until it is full as well.
    let trouble = format!(r#"{{"ready":true,"trouble":[{{"tenant":"{}","reason":"journal-down"}}]}}"#, broken.id);
    let is_down = (0..400).any(|_| {
        client.frame(&page.frame(300)).status == 503 && up(&broken) == 0.0 && {
            let ready = server.internal_get("/readyz");
            assert_eq!(ready.status, 200);
            ready.text() == trouble
        }
    });
    assert!(is_down, "its disk is full");
    assert_eq!(up(&well), 1.0);
    assert_eq!(server.client().get("/readyz").text(), r#"{"ready":true}"#, "whose it is, is nobody's business outside");
    assert_eq!(server.metric("firsthop_ready"), 1.0);
    assert_eq!(client.frame(&Page::new(&well).frame(3)).receipt().stored, 3);
    // Until there is nobody left to take events for.
    let mut pages = [page, Page::new(&well)];
    let is_unready = (0..800).any(|i| {
        client.frame(&pages[i % 2].frame(300));
        server.internal_get("/readyz").status == 503
    });
    assert!(is_unready);
}

/// A disk that takes too long: 503 and unready; and nobody has to do anything once it is as quick as before.
#[test]
fn a_slow_disk_is_said_and_forgotten() {
    let folder = Folder::new();
    let server = folder.serve_with(&["--commit-timeout", "1s"]);
    let tenant = folder.only_tenant();
    let (mut client, mut page) = (server.client(), Page::new(&tenant));
    let first = client.deliver(&page.frame(1));
    assert_eq!(first.stored + first.duplicate, 1);
    let journal = rusqlite::Connection::open(tenant.folder.join("journal.db")).expect("opens");
    journal.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let frame = page.frame(2);
    let response = client.frame(&frame);
    assert_eq!((response.status, response.header("retry-after")), (503, "1"));
    assert_eq!(response.json()["detail"], "the disk is slow");
    let unready = server.internal_get("/readyz");
    assert_eq!((unready.status, unready.json()["reason"].as_str()), (503, Some("journals-down")));
    journal.execute_batch("ROLLBACK").expect("unlocked");
    until("it recovers", || server.internal_get("/readyz").status == 200);
    let receipt = client.deliver(&frame);
    assert_eq!(receipt.stored + receipt.duplicate, 2, "what nobody knew of is there once");
    assert_eq!(tenant.journal("SELECT COUNT(*) FROM frames"), 2);
}

/// With no more than the reserve left on the disk nothing is taken, and everything else is as before.
#[test]
fn the_reserve_of_the_disk_is_kept() {
    let folder = Folder::new();
    let server = folder.serve_with(&["--disk-reserve", "1000000GiB"]);
    let tenant = folder.only_tenant();
    let mut client = server.client();
    let response = client.frame(&Page::new(&tenant).frame(1));
    assert_eq!((response.status, response.code().as_str(), response.header("retry-after")), (503, "unavailable", "10"));
    assert_eq!(response.json()["detail"], "the disk is nearly full");
    let segment = client.segment("/v1/track", &tenant.key, r#"{"event":"x","anonymousId":"a"}"#);
    assert_eq!((segment.status, segment.json()["success"].as_bool()), (503, Some(false)));
    for unready in [client.get("/readyz"), server.internal_get("/readyz")] {
        assert_eq!((unready.status, unready.json()["reason"].as_str()), (503, Some("disk-full")));
    }
    assert_eq!((client.get("/livez").status, server.metric("firsthop_ready")), (200, 0.0));
    assert!(server.metric("firsthop_disk_free_bytes") > 1e6);
    assert_eq!(server.metric("firsthop_disk_reserve_bytes"), 1e6 * (1_u64 << 30) as f64);
    assert_eq!(tenant.journal("SELECT COUNT(*) FROM frames") + tenant.quarantine().len() as i64, 0);
}

/// A disk that takes no more: 503 and unready, nothing acknowledged is lost, and it goes on by itself once there is
/// room.
#[test]
fn a_disk_that_fails_ends_in_503_and_not_in_a_lie() {
    let folder = Folder::new();
    let mut server = on_a_small_disk(&folder);
    let tenant = folder.only_tenant();
    let (mut client, mut page) = (server.client(), Page::new(&tenant));
    let (mut stored, mut failed) = (0, Vec::new());
    let up = format!("firsthop_journal_up{{tenant=\"{}\"}}", tenant.id);
    // Opened again, a journal may have room once more, for a moment: until it is full as well.
    let is_down = (0..400).any(|_| {
        let frame = page.frame(300);
        let response = client.frame(&frame);
        if response.status == 200 {
            stored += u64::from(response.receipt().stored);
            return false;
        }
        assert_eq!((response.status, response.code().as_str()), (503, "unavailable"));
        assert!(!response.header("retry-after").is_empty());
        failed.push(frame);
        let unready = server.internal_get("/readyz");
        failed.len() > 5 && server.metric(&up) == 0.0 && {
            (unready.status, unready.json()["reason"].as_str()) == (503, Some("journals-down"))
        }
    });
    assert!(is_down && stored > 0, "{stored} stored, {} failed", failed.len());
    assert_eq!(server.internal_get("/livez").status, 200);
    let pid = server.child.id().to_string();
    assert!(
        Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status().expect("prlimit runs").success()
    );
    until("it recovers", || server.internal_get("/readyz").status == 200);
    // Sent again, as a page would.
    for frame in &failed {
        let receipt = client.frame(frame).receipt();
        stored += u64::from(receipt.stored + receipt.duplicate);
    }
    assert_eq!(stored, page.next);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), stored as i64);
    server.stop();
    folder.ok(&["verify"]);
}

/// A journal that was put back from a copy gives ids again that the table has passed. Its events come into the table all the same.
#[test]
fn a_journal_put_back_from_a_copy_loses_no_new_event() {
    let (folder, mut server, tenant) = served();
    let (journal, copy) = (tenant.folder.join("journal.db"), folder.path.join("copy.db"));
    let mut page = Page::new(&tenant);
    page.begin(&mut server.client());
    tenant.settle();
    server.stop();
    std::fs::copy(&journal, &copy).expect("copied");
    let rewinds = format!("firsthop_sink_rewinds_total{{tenant=\"{}\",sink=\"events\"}}", tenant.id);
    let mut rows = 1;
    // Behind the cursor when the table is opened; with other frames under the same ids; and beyond it again.
    for meanwhile in [0, 2, 6] {
        let mut server = folder.serve();
        for _ in 0..4 {
            assert_eq!(server.client().frame(&page.frame(1)).receipt().stored, 1);
        }
        tenant.settle();
        assert_eq!(server.metric(&rewinds), 0.0);
        server.stop();
        rows += 4;
        assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), rows);
        std::fs::copy(&copy, &journal).expect("put back");
        if meanwhile > 0 {
            let aside = tenant.folder.join("events.aside");
            std::fs::rename(tenant.folder.join("events.db"), &aside).expect("moved");
            let mut server = folder.serve();
            for _ in 0..meanwhile {
                assert_eq!(server.client().frame(&page.frame(1)).receipt().stored, 1);
            }
            tenant.settle();
            server.stop();
            rows += meanwhile;
            std::fs::rename(&aside, tenant.folder.join("events.db")).expect("moved back");
        }
        let mut server = folder.serve();
        assert_eq!(server.client().frame(&page.frame(2)).receipt().stored, 2);
        rows += 2;
        // The table's cursor is beyond this journal until it is set back.
        until("it is set back", || server.metric(&rewinds) == 1.0);
        tenant.settle();
        assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), rows, "meanwhile: {meanwhile}");
        assert!(server.log().contains("the journal is not the one that the sink was at"));
        server.stop();
        std::fs::copy(&copy, &journal).expect("put back");
        folder.serve().stop();
    }
    // A table that meets another journal takes all of it.
    std::fs::remove_file(&journal).expect("removed");
    let mut server = folder.serve();
    let mut other = Page::new(&tenant);
    other.begin(&mut server.client());
    server.stop();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), rows + 1);
}

/// A table that cannot be written delays no acknowledgement, and the end of the server for as long as it may; what is
/// left comes after the next start.
#[test]
fn a_table_that_is_locked_delays_nothing() {
    let folder = Folder::new();
    let mut server = folder.serve_with(&["--drain-timeout", "1s"]);
    let tenant = folder.only_tenant();
    let mut page = Page::new(&tenant);
    page.begin(&mut server.client());
    tenant.settle();
    let lock = || {
        let connection = rusqlite::Connection::open(tenant.folder.join("events.db")).expect("opens");
        connection.busy_timeout(Duration::from_secs(5)).expect("a timeout");
        connection.execute_batch("BEGIN IMMEDIATE").expect("locked");
        connection
    };
    let locked = lock();
    for _ in 0..20 {
        let frame = page.frame(5);
        assert_eq!(server.client().frame(&frame).receipt().stored, 5);
    }
    assert!(server.metric(&format!("firsthop_sink_lag_frames{{tenant=\"{}\",sink=\"events\"}}", tenant.id)) > 10.0);
    assert_eq!(server.internal_get("/readyz").status, 200, "it takes events");
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed().as_millis() >= 900, "{:?}", began.elapsed());
    drop(locked);
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 1);

    let mut server = folder.serve_with(&["--drain-timeout", "1h"]);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 101);
    // Who cannot wait says so twice.
    let locked = lock();
    let frame = page.frame(5);
    assert_eq!(server.client().frame(&frame).receipt().stored, 5);
    server.signal("-TERM");
    server.says("stopping");
    thread::sleep(Duration::from_millis(500));
    assert!(server.child.try_wait().expect("a child").is_none(), "it waits for the table");
    server.signal("-TERM");
    assert_eq!(server.wait(LONG).code(), Some(0));
    drop(locked);
    folder.ok(&["verify"]);
    let _server = folder.serve();
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), 106);
}
