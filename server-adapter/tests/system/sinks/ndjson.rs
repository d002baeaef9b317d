//! Files with an event a line.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime},
};

use serde_json::Value as Json;

use super::{ids, kill_in_delivery, listed, send, table_ids};
use crate::common::{Folder, Server, Tenant, clean, served, until};

const SINK: &str = "kind = 'ndjson'\nname = 'lines'";

/// A sink's files: those put aside, and the one being written.
fn files(tenant: &Tenant) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(&tenant.folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"))
        .collect();
    files.sort_unstable();
    files
}

/// How many whole lines there are, at most: the sink may be in the middle of a line, or of putting a file aside.
fn count(tenant: &Tenant) -> usize {
    let in_file = |file: PathBuf| fs::read(file).unwrap_or_default().iter().filter(|&&byte| byte == b'\n').count();
    files(tenant).into_iter().map(in_file).sum()
}

/// All lines of a sink that has nothing more to write. Each must be whole.
fn lines(tenant: &Tenant) -> Vec<Json> {
    let mut events = Vec::new();
    for file in files(tenant) {
        let text = fs::read_to_string(&file).expect("UTF-8");
        assert!(text.is_empty() || text.ends_with('\n'), "{}: a torn line", file.display());
        events.extend(text.lines().map(|line| serde_json::from_str::<Json>(line).expect("JSON")));
    }
    events
}

/// A sink that is added to a running server gets everything that the journal has, and then what comes: in the shape that
/// `firsthop events --json` prints.
#[test]
fn a_sink_that_is_added_gets_all_of_it() {
    let (folder, mut server, tenant) = served();
    send(&server, &tenant, &[3, 300]);
    tenant.add_sink(SINK);
    until("the first are there", || count(&tenant) == 304);
    send(&server, &tenant, &[2]);
    until("the last are there", || count(&tenant) == 307);
    assert_eq!(ids(&lines(&tenant)), table_ids(&tenant));
    let printed = folder.ok(&["events", "--json", "-n", "1000"]);
    let printed: Vec<Json> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines(&tenant), printed);
    until("the cursor is noted", || listed(&folder, "lines")[4] == "0");
    until("it is counted", || tenant.sink(&server, "rows_total", "lines") == 307.0);

    // Taken away and put back, it goes on where it was; and one that begins now has nothing of before.
    tenant.end_sinks(&server, "lines");
    send(&server, &tenant, &[4]);
    tenant.settle();
    tenant.add_sink(SINK);
    tenant.add_sink("kind = 'ndjson'\nname = 'new'\nfrom = 'now'\npath = 'new/now.jsonl'");
    until("it went on", || count(&tenant) == 312);
    until("the other began", || server.internal_get("/metrics").text().contains("sink=\"new\""));
    until("the other is open", || tenant.folder.join("new/now.jsonl").exists());
    send(&server, &tenant, &[1]);
    until("both have the last", || {
        let new = fs::read_to_string(tenant.folder.join("new/now.jsonl")).unwrap_or_default();
        count(&tenant) == 314 && new.lines().count() == 2
    });

    // And a replay delivers again, with the same ids.
    let said = folder.ok(&["replay", "--sink", "lines", "--from", "2"]);
    assert!(said.contains("again, from frame 2 on"), "{said}");
    until("it has them twice", || count(&tenant) == 314 + 313);
    assert_eq!(table_ids(&tenant).len(), 314);
    assert!(folder.fails(&["replay", "--sink", "line", "--from", "1h"]).contains("there are: events, lines, new"));
    server.stop();
    // Nobody serves the folder now, and it works as well.
    folder.ok(&["replay", "--sink", "lines", "--from", "1h"]);
    let mut server = folder.serve();
    until("it has them three times", || count(&tenant) == 314 + 313 + 314);
    server.stop();
    folder.ok(&["verify"]);
}

/// A sink that hangs while its settings change goes on by the new ones once it hangs no longer.
#[test]
fn one_that_hung_goes_on_by_its_new_settings() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &[]);
    let out = "kind = 'ndjson'\nname = 'out'\npath = '-'";
    tenant.add_sink(out);
    let path = folder.path.with_extension("out");
    assert!(Command::new("mkfifo").arg(&path).status().expect("runs").success());
    // For both ways, so that it is open before somebody writes; and nobody reads yet.
    let pipe = fs::OpenOptions::new().read(true).write(true).open(&path).expect("opens");
    let server = serve_onto(&folder, &path);
    // More than a pipe holds.
    send(&server, &tenant, &[600]);
    until("it hangs", || rustix::io::ioctl_fionread(&pipe).expect("a pipe") > 48 << 10);
    let runs = || server.internal_get("/metrics").text().contains("sink=\"out\"");
    let settings = tenant.folder.join("tenant.toml");
    let text = fs::read_to_string(&settings).expect("UTF-8");
    fs::write(&settings, text.replace(out, &format!("{out}\nfrom = 'now'"))).expect("written");
    until("it is left behind", || !runs());
    let lines = Arc::new(Mutex::new(Vec::new()));
    let read = Arc::clone(&lines);
    // Of a pipe that it may write to itself it sees no end: it ends with the process.
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            read.lock().expect("not poisoned").push(serde_json::from_str::<Json>(&line).expect("JSON"));
        }
    });
    until("the next runs", runs);
    send(&server, &tenant, &[1]);
    until("it goes on", || lines.lock().expect("not poisoned").len() >= 603);
    assert_eq!(ids(&lines.lock().expect("not poisoned")), table_ids(&tenant));
}

/// Who keeps what sinks note to himself is waited for, and not until the end: a sink that is to stop ends, and the next has its settings.
#[test]
fn one_that_waits_for_others_ends_when_it_is_to() {
    let (folder, server, tenant) = served();
    tenant.add_sink(SINK);
    send(&server, &tenant, &[2]);
    until("the first are there", || count(&tenant) == 3);
    until("the cursor is noted", || listed(&folder, "lines")[4] == "0");
    let other = rusqlite::Connection::open(tenant.folder.join("sinks.db")).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    send(&server, &tenant, &[4]);
    server.says("what a sink has delivered cannot be noted");
    let settings = tenant.folder.join("tenant.toml");
    let text = fs::read_to_string(&settings).expect("UTF-8");
    fs::write(&settings, text.replace(SINK, &format!("{SINK}\nrotate_bytes = '1MiB'"))).expect("written");
    // That is the next one's word.
    server.says("a sink waits for others");
    assert!(!server.log().contains("a sink hangs"), "{}", server.log());
    other.execute_batch("ROLLBACK").expect("released");
    send(&server, &tenant, &[1]);
    until("it goes on", || count(&tenant) == 10);
    assert_eq!(ids(&lines(&tenant)), table_ids(&tenant));
}

/// A server whose standard output goes to this file.
fn serve_onto(folder: &Folder, path: &Path) -> Server {
    let mut command = Command::new("bash");
    clean(&mut command).args(["-c", "exec \"$0\" serve >\"$1\"", env!("CARGO_BIN_EXE_firsthop")]).arg(path);
    command.env("FIRSTHOP_DATA", &folder.path);
    Server::start(command)
}

/// Files are put aside by size; each is complete, none is touched again.
#[test]
fn files_are_put_aside() {
    let (folder, mut server, tenant) = served();
    tenant.add_sink(&format!("{SINK}\nrotate_bytes = '1MiB'"));
    // About 600 bytes a line.
    for round in 1..=12 {
        send(&server, &tenant, &[600]);
        until("all are there", || count(&tenant) == round * 601);
    }
    for number in 1..=3 {
        let size = fs::metadata(tenant.folder.join(format!("lines-{number:08}.ndjson"))).expect("put aside").len();
        assert!((1 << 20..4 << 20).contains(&size), "{size}");
    }
    assert_eq!(ids(&lines(&tenant)), table_ids(&tenant));
    server.stop();
    // What was not confirmed is cut off at the start, and somebody else's file is none of it.
    let path = tenant.folder.join("lines.ndjson");
    let mut text = fs::read_to_string(&path).expect("UTF-8");
    text.push_str("{\"event_id\":\"torn");
    fs::write(&path, text).expect("written");
    fs::write(tenant.folder.join("lines-00000009.txt"), "mine").expect("written");
    let server = folder.serve();
    send(&server, &tenant, &[1]);
    until("all are there", || count(&tenant) == 12 * 601 + 2);
    assert_eq!(ids(&lines(&tenant)), table_ids(&tenant));
    let cut = tenant.folder.join("lines.ndjson.cut-00000001");
    assert_eq!(fs::read_to_string(cut).expect("kept"), "{\"event_id\":\"torn");
}

/// What is cut off at a start is kept for a month, and no longer than a person who is erased.
#[test]
fn what_was_cut_off_holds_nobody_for_ever() {
    let (folder, mut server, tenant) = served();
    tenant.add_sink(SINK);
    send(&server, &tenant, &[1]);
    until("they are there", || count(&tenant) == 2);
    until("the cursor is noted", || listed(&folder, "lines")[4] == "0");
    server.stop();
    let path = tenant.folder.join("lines.ndjson");
    let copy = tenant.folder.join("lines.ndjson.cut-00000001");
    let cut = "{\"user_id\":\"ada\"}\n{\"user_id\":\"somebody\"}\n{\"name\":\"of som\\u0065body else's\"}\n{\"user_id\":\"someb";
    let whole = fs::read_to_string(&path).expect("UTF-8");
    fs::write(&path, whole + cut).expect("written");
    let mut server = folder.serve();
    until("it is cut off", || copy.exists());
    until("and whole", || fs::read_to_string(&copy).expect("UTF-8") == cut);
    folder.ok(&["erase", "-y", "--user", "somebody"]);
    let left = fs::read_to_string(&copy).expect("UTF-8");
    let lines: Vec<_> = left.lines().map(str::trim).collect();
    assert_eq!((left.len(), &lines[..]), (cut.len(), &["{\"user_id\":\"ada\"}", "", "", "{\"user_id\":\"someb"][..]));
    server.stop();

    let mine = tenant.folder.join("lines.ndjson.cut-mine");
    fs::write(&mine, "mine").expect("written");
    let old = SystemTime::now() - Duration::from_secs(31 * 24 * 3600);
    for path in [&copy, &mine] {
        fs::File::options().write(true).open(path).expect("there").set_modified(old).expect("set");
    }
    let mut server = folder.serve();
    until("it is removed", || !copy.exists());
    assert!(mine.exists(), "what has another name is somebody's");
    server.stop();
}

/// Lines on standard output, whole and in order; somebody who reads them has each at least once.
#[test]
fn standard_output_is_a_sink() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &[]);
    tenant.add_sink("kind = 'ndjson'\nname = 'out'\npath = '-'");
    let printed = folder.path.with_extension("out");
    let mut server = serve_onto(&folder, &printed);
    send(&server, &tenant, &[3, 700]);
    let text = || fs::read_to_string(&printed).expect("UTF-8");
    until("all are there", || text().lines().count() == 704);
    until("it is counted", || tenant.sink(&server, "lag_frames", "out") == 0.0);
    server.stop();
    let lines: Vec<Json> = text().lines().map(|line| serde_json::from_str(line).expect("nothing but JSON")).collect();
    assert_eq!(ids(&lines), table_ids(&tenant));
    let printed = folder.ok(&["events", "--json", "-n", "1000"]);
    let printed: Vec<Json> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines, printed, "in the journal's order");
}

/// An older state of the sink beside the file of today, and a file that has the name which the next one gets: no line goes.
#[test]
fn an_older_mark_takes_no_line_away() {
    let (folder, mut server, tenant) = served();
    tenant.add_sink(&format!("{SINK}\nrotate_bytes = '1MiB'"));
    send(&server, &tenant, &[2]);
    until("the first are there", || count(&tenant) == 3);
    server.stop();
    let records = tenant.folder.join("sinks.db");
    let older = fs::read(&records).expect("there");
    let mut server = folder.serve();
    send(&server, &tenant, &[3]);
    until("the next are there", || count(&tenant) == 7);
    server.stop();
    let path = tenant.folder.join("lines.ndjson");
    let before = fs::read_to_string(&path).expect("UTF-8");
    fs::write(&records, older).expect("written");

    // The file is whole when the server starts: only once the copy is there has the sink begun with it.
    let server = folder.serve();
    let copy = tenant.folder.join("lines.ndjson.cut-00000001");
    until("what is not confirmed has been cut off", || copy.exists());
    until("they are there again", || count(&tenant) == 7);
    let kept = fs::read_to_string(copy).expect("kept");
    assert!(before.ends_with(&kept) && kept.lines().count() == 4, "{kept}");
    let mine = tenant.folder.join("lines-00000001.ndjson");
    fs::write(&mine, "").expect("written");
    for round in 1..=4 {
        send(&server, &tenant, &[600]);
        until("all are there", || count(&tenant) == 7 + round * 601);
    }
    assert_eq!(fs::read(&mine).expect("there"), b"");
    assert!(tenant.folder.join("lines-00000002.ndjson").exists());
    assert_eq!(ids(&lines(&tenant)), table_ids(&tenant));
}

/// SIGKILL in the middle of delivery, twenty times: every event is there, none twice, no line is torn.
#[test]
fn a_kill_loses_and_doubles_no_line() {
    let (folder, server, tenant) = served();
    tenant.add_sink(&format!("{SINK}\nrotate_bytes = '1MiB'"));
    let delivered = || files(&tenant).iter().filter_map(|file| Some(fs::metadata(file).ok()?.len())).sum::<u64>();
    let mut server = kill_in_delivery(&folder, server, &tenant, 40, delivered);
    let expected = table_ids(&tenant);
    until("all are there", || tenant.sink(&server, "lag_frames", "lines") == 0.0);
    assert_eq!(ids(&lines(&tenant)), expected);
    server.stop();
    folder.ok(&["verify"]);
}
