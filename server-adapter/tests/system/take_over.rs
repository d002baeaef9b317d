//! One server after the other on one data folder, with the real binary: nobody who sends notices.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use crate::common::{
    Client, Folder, LONG, Page, Raise, Server, Tenant, clean, firsthop, own_port, sdk, served, text, until,
};

/// Clients that keep their connection and clients that do not, sending all the time. Every answer must be 200.
struct Load {
    stop: AtomicBool,
    stored: AtomicU64,
    slowest: AtomicU64,
}

impl Load {
    fn during(address: SocketAddr, tenant: &Tenant, work: impl FnOnce(&Self)) -> Self {
        let load = Self { stop: AtomicBool::new(false), stored: AtomicU64::new(0), slowest: AtomicU64::new(0) };
        thread::scope(|scope| {
            for i in 0..6 {
                let load = &load;
                scope.spawn(move || {
                    let (mut client, mut page) = (Client::new(address), Page::new(tenant));
                    while !load.stop.load(Ordering::Relaxed) {
                        if i % 2 == 0 {
                            client = Client::new(address);
                        }
                        let frame = page.frame(10);
                        let began = Instant::now();
                        let response = client.try_request("POST", "/v1/f", &[], &frame).unwrap_or_else(|error| {
                            // Or the others go on for ever.
                            load.stop.store(true, Ordering::Relaxed);
                            panic!("a request failed: {error}")
                        });
                        load.slowest.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
                        load.stored.fetch_add(u64::from(response.receipt().stored), Ordering::Relaxed);
                    }
                });
            }
            let _end = Raise(&load.stop);
            work(&load);
        });
        load
    }

    /// Waits until some more is stored.
    fn goes_on(&self) {
        let before = self.stored.load(Ordering::Relaxed);
        let has_more = || self.stored.load(Ordering::Relaxed) >= before + 500 || self.stop.load(Ordering::Relaxed);
        until("more is stored", has_more);
    }
}

fn successor(folder: &Folder) -> Command {
    let mut command = firsthop(&folder.path);
    command.args(["serve", "--take-over"]);
    command
}

fn check(folder: &Folder, tenant: &Tenant, load: &Load) {
    let stored = load.stored.load(Ordering::Relaxed) as i64;
    assert_eq!(tenant.journal("SELECT SUM(events) FROM counters WHERE outcome = 'stored'"), stored);
    assert_eq!(tenant.journal("SELECT COALESCE(SUM(events), 0) FROM counters WHERE outcome = 'duplicate'"), 0);
    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), stored);
    let said = folder.ok(&["verify"]);
    assert!(said.contains("all of it is as it was written"), "{said}");
}

#[test]
fn twenty_servers_in_succession_lose_no_request() {
    let folder = Folder::new();
    // There is nobody to take over from yet: an ordinary start.
    let mut server = Server::start(successor(&folder));
    let tenant = folder.only_tenant();
    let (public, internal) = (server.public, server.internal);
    let mut gaps = Vec::new();
    let load = Load::during(public, &tenant, |load| {
        for _ in 0..20 {
            load.goes_on();
            let next = Server::start(successor(&folder));
            assert_eq!((next.public, next.internal), (public, internal), "the same sockets");
            assert_eq!(server.wait(LONG).code(), Some(0), "{}", server.log());
            let log = server.log();
            let line = log.lines().find(|line| line.contains("handed over")).unwrap_or_else(|| panic!("{log}"));
            let line: Json = serde_json::from_str(line).expect("JSON");
            gaps.push(line["seconds"].as_f64().expect("a number") * 1000.0);
            assert!(!log.contains("took too long"), "{log}");
            server = next;
        }
        load.goes_on();
    });
    gaps.sort_by(f64::total_cmp);
    println!("gaps: median {:.0} ms, longest {:.0} ms; slowest answer {:?} ms", gaps[10], gaps[19], load.slowest);
    assert_eq!(server.internal_get("/readyz").status, 200);
    server.stop();
    check(&folder, &tenant, &load);
}

/// One that cannot serve, before the old one has let go and after: the old one goes on.
#[test]
fn a_successor_that_fails_takes_nothing_away() {
    let (folder, mut server, tenant) = served();
    let load = Load::during(server.public, &tenant, |load| {
        load.goes_on();
        // Its settings ask for an address that somebody else has.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut other = successor(&folder);
        other.args(["--listen", &taken.local_addr().expect("an address").to_string()]);
        other.args(["--internal-listen", "127.0.0.1:0"]);
        let output = other.output().expect("runs");
        assert!(String::from_utf8_lossy(&output.stderr).contains("listen on 127.0.0.1"), "{output:?}");
        assert_eq!(output.status.code(), Some(1));
        load.goes_on();
        assert!(!server.log().contains("handing over"), "it had not let go of anything");
        // It cannot write a byte: found when the folder is its own.
        let mut other = Command::new("bash");
        clean(&mut other).args([
            "-c",
            "trap '' XFSZ; ulimit -S -f 0; exec \"$0\" serve --take-over --listen 127.0.0.1:0 --internal-listen 127.0.0.1:0 2>&1 | cat",
            env!("CARGO_BIN_EXE_firsthop"),
        ]);
        let output = other.env("FIRSTHOP_DATA", &folder.path).output().expect("runs");
        assert!(!text(&output.stdout).contains("ready"), "{output:?}");
        server.says("handing over");
        server.says("this one goes on");
        load.goes_on();
        // And one that can.
        let next = Server::start(successor(&folder));
        assert_eq!(server.wait(LONG).code(), Some(0), "{}", server.log());
        server = next;
        load.goes_on();
    });
    server.stop();
    check(&folder, &tenant, &load);
}

/// A client that does what a successor does, one step after the other. Dropped, it is gone.
struct Steps {
    stream: UnixStream,
    lines: Lines<BufReader<UnixStream>>,
}

impl Steps {
    fn connect(folder: &Folder) -> Self {
        let socket = folder.path.join("control.sock");
        // A link stands for a path that is too long.
        let stream = UnixStream::connect(std::fs::read_link(&socket).unwrap_or(socket)).expect("connected");
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        let lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
        Self { stream, lines }
    }

    fn ask(&mut self) {
        let request = "POST /control/1/take-over HTTP/1.1\r\nHost: control\r\nConnection: upgrade\r\n\
                       Upgrade: firsthop-take-over/1\r\nContent-Length: 0\r\n\r\n";
        self.stream.write_all(request.as_bytes()).expect("sent");
    }

    /// The sockets come with the offer; they close as they are read without being taken.
    fn hear_the_offer(&mut self) {
        self.read_to("}");
    }

    fn go(&mut self) {
        self.stream.write_all(b"go\n").expect("sent");
    }

    fn hear_that_all_is_closed(&mut self) {
        self.read_to("closed");
    }

    fn read_to(&mut self, end: &str) {
        while !self.lines.next().expect("a line").expect("read").ends_with(end) {}
    }
}

/// Whatever step the new one has come to when it ends: the old one has let go of nothing or takes it back, and commands and the next new
/// one find it as before.
#[test]
fn at_whatever_step_a_successor_ends_the_old_one_goes_on() {
    let (folder, mut server, tenant) = served();
    let steps: [&dyn Fn(&mut Steps); 5] =
        [&|_| {}, &Steps::ask, &Steps::hear_the_offer, &Steps::go, &Steps::hear_that_all_is_closed];
    let load = Load::during(server.public, &tenant, |load| {
        for last in 0..steps.len() {
            let mut successor = Steps::connect(&folder);
            steps[..=last].iter().for_each(|step| step(&mut successor));
            drop(successor);
            // Of one that was gone before it said that it wants the folder there may be nothing to say.
            let taken_back = last.saturating_sub(2);
            until("it is taken back", || server.log().matches("is gone; this one goes on").count() == taken_back);
            load.goes_on();
            // Once its control socket is open again.
            until("it takes commands", || folder.served_by() == Some(server.child.id().into()));
            assert_eq!(server.internal_get("/readyz").status, 200);
        }
        let handed = server.log().matches("handing over").count();
        assert_eq!(handed, 2, "only to those who said that they want it: {}", server.log());
        // And one that does all of it.
        let next = Server::start(successor(&folder));
        assert_eq!(server.wait(LONG).code(), Some(0), "{}", server.log());
        server = next;
        load.goes_on();
    });
    server.stop();
    check(&folder, &tenant, &load);
}

/// The real one, killed after ever more time, until it has come so far that it serves.
#[test]
fn a_successor_that_is_killed_on_its_way_takes_nothing_away() {
    let folder = Folder::new();
    // Its own, so that it is still free for the last one: between that and the one that is killed nobody has it.
    let port = own_port().local_addr().expect("an address").port().to_string();
    let mut first = firsthop(&folder.path);
    first.arg("serve").env("PORT", &port);
    let mut server = Server::start(first);
    let tenant = folder.only_tenant();
    let (public, stop) = (SocketAddr::from(([127, 0, 0, 1], server.public.port())), AtomicBool::new(false));
    let (mut kills, mut pause) = (0, Duration::from_millis(1));
    let sent: u64 = thread::scope(|scope| {
        let pages = (0..3).map(|_| {
            scope.spawn(|| {
                let (mut client, mut page) = (Client::new(public), Page::new(&tenant));
                while !stop.load(Ordering::Relaxed) {
                    let frame = page.frame(10);
                    // One that is killed when it serves already breaks off what it has begun, and one that lets go answers 503 to
                    // what took too long: then a page sends again.
                    until("it is taken", || {
                        let answer = client.try_request("POST", "/v1/f", &[], &frame);
                        answer.is_ok_and(|answer| answer.status != 503 && answer.receipt().conflict == 0)
                    });
                }
                page.next
            })
        });
        let pages: Vec<_> = pages.collect();
        let end = Raise(&stop);
        loop {
            let mut next = successor(&folder);
            next.env("PORT", &port);
            next.env("FIRSTHOP_INTERNAL_LISTEN", server.internal.to_string());
            let mut next = next.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
            thread::sleep(pause);
            next.kill().expect("killed");
            next.wait().expect("ended");
            kills += 1;
            pause = pause.mul_f64(1.3);
            // Either it was told that the new one serves, or it goes on.
            until("one or the other", || {
                server.child.try_wait().expect("a child").is_some()
                    || folder.served_by() == Some(server.child.id().into())
            });
            if server.child.try_wait().expect("a child").is_some() {
                break;
            }
        }
        assert_eq!(server.wait(LONG).code(), Some(0), "{}", server.log());
        assert!(server.log().contains("handed over"), "{}", server.log());
        let mut last = firsthop(&folder.path);
        last.arg("serve").env("PORT", &port);
        server = Server::start(last);
        drop(end);
        pages.into_iter().map(|page| page.join().expect("a page")).sum()
    });
    println!("killed {kills} times");
    server.stop();
    assert!(kills > 5, "it was killed on its way {kills} times only");
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events"), sent as i64);
    assert_eq!(tenant.events("SELECT COUNT(DISTINCT event_id) FROM events"), sent as i64);
    folder.ok(&["verify"]);
}

/// One that is gone once it has the folder, and whose lock is cleared away later.
#[test]
fn the_old_one_waits_for_the_lock_of_a_successor_that_was_killed() {
    let (folder, mut server, tenant) = served();
    let mut steps = Steps::connect(&folder);
    steps.ask();
    steps.hear_the_offer();
    steps.go();
    steps.hear_that_all_is_closed();
    let lock = std::fs::File::options().append(true).open(folder.path.join("server.lock")).expect("there");
    lock.try_lock().expect("free");
    drop(steps);
    server.says("this one goes on");
    thread::sleep(Duration::from_millis(500));
    assert!(!server.log().contains("nobody serves"), "{}", server.log());
    drop(lock);
    // Whoever connects meanwhile waits.
    let (mut client, mut page) = (Client::new(server.public), Page::new(&tenant));
    assert_eq!(client.frame(&page.frame(10)).receipt().stored, 10);
    assert_eq!(server.internal_get("/readyz").status, 200);
    server.stop();
}

/// A tenant's file that a new server could not open is found while the old one still serves.
#[test]
fn what_a_start_would_stumble_over_is_found_first() {
    let folder = Folder::new();
    let mut server = folder.serve();
    let tenant = folder.tenant("broken", &[]);
    std::fs::write(tenant.folder.join("keys.toml"), "roots = 7").expect("written");
    let said = folder.fails(&["serve", "--take-over", "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"]);
    assert!(said.contains("keys.toml"), "{said}");
    assert_eq!(server.internal_get("/readyz").status, 200);
    server.stop();
    assert!(!server.log().contains("handing over"));
}

/// The files of the page SDK become others in their place while a server has them, and do not match: a new server finds that while the old
/// one still serves, and the old one, which has read them, does not need them to take its folder back.
#[test]
fn a_page_sdk_that_was_broken_meanwhile_keeps_nobody_from_serving() {
    let (folder, sdk) = (Folder::new(), sdk());
    let arguments = ["--sdk", sdk.path().to_str().expect("a path")];
    let mut server = folder.serve_with(&arguments);
    let tenant = folder.only_tenant();
    std::fs::write(sdk.path().join("firsthop.js"), "void 1;").expect("written");
    let mut other = successor(&folder);
    let output = other.args(arguments).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("sdk: ") && said.contains("firsthop.js: not the bytes"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
    assert!(!server.log().contains("handing over"), "{}", server.log());
    // One whose SDK is in order, and that is gone once it has the folder.
    let mut steps = Steps::connect(&folder);
    steps.ask();
    steps.hear_the_offer();
    steps.go();
    steps.hear_that_all_is_closed();
    drop(steps);
    server.says("this one goes on");
    let (mut client, mut page) = (Client::new(server.public), Page::new(&tenant));
    assert_eq!(client.frame(&page.frame(10)).receipt().stored, 10);
    assert_eq!(client.get("/sdk/firsthop.js").text(), "void 0;");
    server.stop();
    assert!(!server.log().contains("nobody serves"), "{}", server.log());
}
