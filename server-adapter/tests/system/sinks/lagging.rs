//! Retention and sinks that have yet to get something: it stays for them, whatever kind they are and whatever happens meanwhile.

use std::{
    fs::{self, File},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{database::Database, receiver::Receiver, send};
use crate::common::{Folder, Server, Tenant, served, until};

/// A sink that is away until it is let.
struct Away<'a> {
    name: &'a str,
    toml: String,
    /// The same with settings by which it cannot even try.
    broken: Option<(&'a str, &'a str)>,
    back: &'a mut dyn FnMut(),
    /// How many events it has.
    has: &'a dyn Fn(&Tenant) -> usize,
}

const RETENTION: [&str; 2] = ["--retention-age", "1s"];

fn removed(tenant: &Tenant) -> i64 {
    tenant.journal("SELECT COUNT(*) FROM frames WHERE LENGTH(body) = 0")
}

/// Waits until retention has looked at bodies that are due by far.
fn await_age(server: &Server, tenant: &Tenant) {
    let sample = format!("firsthop_journal_oldest_seconds{{tenant=\"{}\"}}", tenant.id);
    let first = server.metric(&sample);
    until("retention has looked, and looked again", || server.metric(&sample) >= 3.0_f64.max(first + 2.0));
}

fn nothing_goes_that_it_has_yet_to_get(sink: Away<'_>) {
    let (folder, mut server, tenant) = served();
    tenant.add_sink(&sink.toml);
    until("it is asked for", || tenant.sink(&server, "up", sink.name) >= 0.0);
    send(&server, &tenant, &[5, 50]);
    tenant.settle();
    server.kill();
    server = folder.serve_with(&RETENTION);
    await_age(&server, &tenant);
    assert_eq!(removed(&tenant), 0, "it is away");
    if let Some((from, to)) = sink.broken {
        let file = tenant.folder.join("tenant.toml");
        let text = fs::read_to_string(&file).expect("there");
        fs::write(&file, text.replace(from, to)).expect("written");
        until("it is noticed", || server.log().contains("tenant changed"));
        await_age(&server, &tenant);
        assert_eq!(removed(&tenant), 0, "its settings are wrong");
        server.kill();
        server = folder.serve_with(&RETENTION);
        await_age(&server, &tenant);
        assert_eq!(removed(&tenant), 0, "from the start");
        fs::write(&file, text).expect("written");
    }
    (sink.back)();
    until("it has all", || (sink.has)(&tenant) == 56);
    until("and then it goes", || removed(&tenant) == 3);
    assert_eq!((sink.has)(&tenant), 56);
    server.stop();
    folder.ok(&["verify"]);
}

#[test]
fn what_http_has_yet_to_get_stays() {
    let well = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&well);
    let receiver = Receiver::start(move |_| answers.load(Ordering::Relaxed).then(|| (200, String::new())));
    nothing_goes_that_it_has_yet_to_get(Away {
        name: "hook",
        toml: format!("kind = 'http'\nname = 'hook'\nurl = 'http://{}/in'", receiver.address),
        broken: Some(("name = 'hook'\n", "name = 'hook'\nauthorization_file = 'nowhere'\n")),
        back: &mut || well.store(true, Ordering::Relaxed),
        has: &|_| receiver.taken().len(),
    });
}

#[test]
fn what_a_file_has_yet_to_get_stays() {
    let held = tempfile::tempdir().expect("a folder");
    let path = held.path().join("lines.ndjson");
    let file = File::create(&path).expect("made");
    file.lock().expect("locked");
    let mut file = Some(file);
    nothing_goes_that_it_has_yet_to_get(Away {
        name: "lines",
        toml: format!("kind = 'ndjson'\nname = 'lines'\npath = '{}'", path.display()),
        broken: None,
        back: &mut || drop(file.take()),
        has: &|_| fs::read_to_string(&path).expect("UTF-8").lines().count(),
    });
}

#[test]
fn what_postgres_has_yet_to_get_stays() {
    let database = std::cell::RefCell::new(Database::start());
    database.borrow_mut().down();
    let url = database.borrow().url();
    nothing_goes_that_it_has_yet_to_get(Away {
        name: "pg",
        toml: format!("kind = 'postgres'\nname = 'pg'\ntls = 'off'\nurl = '{url}'"),
        broken: Some((&format!("url = '{url}'"), "url_file = 'nowhere'")),
        back: &mut || database.borrow_mut().up(&[]),
        has: &|_| database.borrow().number("SELECT COUNT(*) FROM firsthop_events"),
    });
}

/// A journal may be far larger than it is to be: what a sink has yet to get is not what makes room.
#[test]
fn what_is_too_much_stays_until_every_sink_has_it() {
    let folder = Folder::new();
    let (shop, other) = (folder.tenant("shop", &[]), folder.tenant("other", &[]));
    let path = shop.folder.join("lines.ndjson");
    let file = File::create(&path).expect("made");
    file.lock().expect("locked");
    shop.add_sink("kind = 'ndjson'\nname = 'lines'");
    let mut server = folder.serve_with(&["--retention-bytes", "128KiB"]);
    send(&server, &shop, &[300; 40]);
    shop.settle();
    // The one beside it has nobody to wait for: once more of its own is gone, retention has looked at both.
    for _ in 0..2 {
        let before = removed(&other);
        send(&server, &other, &[300; 40]);
        until("the other's are removed", || removed(&other) > before);
    }
    assert_eq!(removed(&shop), 0, "the sink has yet to get all of it");
    drop(file);
    until("it has all", || fs::read_to_string(&path).expect("UTF-8").lines().count() == 40 * 300 + 1);
    until("and then the oldest go", || removed(&shop) > 0);
    server.stop();
    folder.ok(&["verify"]);
}
