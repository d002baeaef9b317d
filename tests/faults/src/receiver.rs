//! Where an HTTP sink delivers to: a store that knows event ids, and that can be slow, away, silent after it has taken everything, or refuse
//! some events.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use crate::{Outcome, folder::Tenant, load::Log};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Well,
    /// Each request takes so long.
    Slow(Duration),
    /// Nobody listens, and connections end.
    Away,
    /// It takes everything, and then says nothing.
    Silent,
    /// A batch with an event whose number leaves 13 when divided by this is refused.
    Refuses(u64),
}

#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    mode: Mutex<Mode>,
    /// How often each event was delivered.
    taken: Mutex<HashMap<String, u32>>,
    wrong: Mutex<Option<String>>,
    ended: AtomicBool,
}

impl State {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self, what: impl FnOnce() -> String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(what);
    }

    fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
    }
}

impl Receiver {
    pub(crate) fn start() -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            mode: Mutex::new(Mode::Well),
            taken: Mutex::default(),
            wrong: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || accept(listener, address, &shared));
        Ok(Self { address, state })
    }

    /// Adds it to a tenant's sinks, as `hook`.
    pub(crate) fn add_to(&self, tenant: &Tenant, more: &str) -> Outcome<()> {
        let file = tenant.folder.join("tenant.toml");
        let sink = format!("\n[[sinks]]\nkind = 'http'\nname = 'hook'\nurl = 'http://{}/in'\n{more}\n", self.address);
        Ok(std::fs::write(&file, std::fs::read_to_string(&file)? + &sink)?)
    }

    pub(crate) fn be(&self, mode: Mode) {
        *self.state.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// Distinct events, and deliveries.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let taken = self.state.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (taken.len() as u64, taken.values().map(|&times| u64::from(times)).sum())
    }

    /// Waits until it has so many distinct events.
    pub(crate) fn await_events(&self, count: u64, most: Duration) -> Outcome<Duration> {
        let began = Instant::now();
        loop {
            if let Some(wrong) = &*self.state.wrong.lock().unwrap_or_else(PoisonError::into_inner) {
                return Err(wrong.clone().into());
            }
            let (distinct, _) = self.counts();
            if distinct >= count {
                return Ok(began.elapsed());
            }
            if began.elapsed() > most {
                return Err(format!("the sink has {distinct} of {count} events after {most:?}").into());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Of what was acknowledged, what it does not have.
    pub(crate) fn missing(&self, log: &Log) -> u64 {
        let taken = self.state.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = log.acknowledged().into_iter().flat_map(|(source, first, count)| {
            (first..first + u64::from(count)).map(move |seq| format!("{source}/{seq}"))
        });
        ids.filter(|id| !taken.contains_key(id)).count() as u64
    }
}

fn accept(listener: TcpListener, address: SocketAddr, state: &Arc<State>) {
    let mut listening = Some(listener);
    while !state.is_ended() {
        if state.mode() == Mode::Away {
            listening = None;
        } else if listening.is_none() {
            // Its connections may still be ending.
            listening = TcpListener::bind(address).ok();
        }
        if let Some(listener) = &listening
            && listener.set_nonblocking(true).is_ok()
            && let Ok((stream, _)) = listener.accept()
        {
            let state = Arc::clone(state);
            thread::spawn(move || serve(stream, &state));
        } else {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What a sink's request has.
const HEADERS: [&str; 6] = ["host", "content-type", "user-agent", "content-digest", "signature-input", "signature"];

/// Answers requests until the connection ends, or something wants it to.
fn serve(stream: TcpStream, state: &State) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok().filter(|&read| read > 0)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().ok()?
                }
                Some((name, _)) if !HEADERS.contains(&name.to_lowercase().as_str()) => {
                    state.wrong(|| format!("a header that no sink sends: {line}"))
                }
                _ if line == "\r\n" => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        let events: Vec<Json> = serde_json::from_slice(&body).unwrap_or_default();
        let mode = state.mode();
        let number = |event: &Json| event["data"]["properties"]["n"].as_u64().unwrap_or_default();
        let status = match mode {
            Mode::Away => return None,
            Mode::Refuses(modulus) if events.iter().any(|event| number(event) % modulus == 13) => 422,
            _ => {
                take(&events, state);
                200
            }
        };
        match mode {
            Mode::Slow(time) => thread::sleep(time),
            Mode::Silent => {
                // The other side gives up first.
                while !state.is_ended()
                    && matches!(stream.get_mut().set_read_timeout(Some(Duration::from_millis(100))), Ok(()))
                {
                    match stream.fill_buf() {
                        Ok([]) => return None,
                        Ok(_) => break,
                        Err(_) => {}
                    }
                }
                return None;
            }
            _ => {}
        }
        stream.get_mut().write_all(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").as_bytes()).ok()?;
    }
}

fn take(events: &[Json], state: &State) {
    let mut taken = state.taken.lock().unwrap_or_else(PoisonError::into_inner);
    for event in events {
        let (id, data) = (event["id"].as_str().unwrap_or_default(), &event["data"]);
        if data["event_id"] != id || data["seq"] != data["properties"]["n"] {
            state.wrong(|| format!("an event is not what was sent: {event}"));
        }
        *taken.entry(id.to_owned()).or_default() += 1;
    }
}
