//! Producers at work, and what they know themselves: what they have sent, and what was acknowledged.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use firsthop_core::SourceId;

use crate::{
    Outcome,
    folder::Tenant,
    http::{Answer, Client},
    producer::{Made, Producer},
    random::Random,
};

/// The producers' own log. Nothing in it comes from the server but its answers.
#[derive(Debug, Default)]
pub(crate) struct Log {
    frames: Mutex<HashMap<(SourceId, u64), Sent>>,
    acks: AtomicU64,
    duplicates: AtomicU64,
    retries: AtomicU64,
    nobody: AtomicU64,
    slowest: AtomicU64,
}

/// A frame that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) first: u64,
    pub(crate) count: u32,
    /// Of its bytes.
    pub(crate) sum: u64,
    pub(crate) state: State,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    /// Nobody knows. The bytes are kept, as a page keeps them.
    Open(Vec<u8>),
    /// Answered with 2xx.
    Acked,
    /// Refused for good, with this code.
    Refused(String),
}

/// What a log says, in events.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) refused: u64,
    pub(crate) duplicates: u64,
}

pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl Log {
    pub(crate) fn frames(&self) -> MutexGuard<'_, HashMap<(SourceId, u64), Sent>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sent(&self, made: &Made) {
        let state = State::Open(made.bytes.clone());
        let sent = Sent { first: made.first, count: made.count, sum: sum(&made.bytes), state };
        self.frames().entry((made.source, made.batch)).or_insert(sent);
    }

    pub(crate) fn acked(&self, made: &Made, duplicates: u32) {
        self.set(made, State::Acked);
        self.duplicates.fetch_add(duplicates.into(), Ordering::Relaxed);
        self.acks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, made: &Made, code: String) {
        self.set(made, State::Refused(code));
    }

    fn set(&self, made: &Made, state: State) {
        if let Some(sent) = self.frames().get_mut(&(made.source, made.batch)) {
            sent.state = state;
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals { duplicates: self.duplicates.load(Ordering::Relaxed), ..Totals::default() };
        for sent in self.frames().values() {
            let count = u64::from(sent.count);
            totals.sent += count;
            match sent.state {
                State::Acked => totals.acked += count,
                State::Refused(_) => totals.refused += count,
                State::Open(_) => {}
            }
        }
        totals
    }

    /// What was acknowledged up to now: source, first number, count.
    pub(crate) fn acknowledged(&self) -> Vec<(SourceId, u64, u32)> {
        let frames = self.frames();
        let acked = frames.iter().filter(|(_, sent)| sent.state == State::Acked);
        acked.map(|((source, _), sent)| (*source, sent.first, sent.count)).collect()
    }

    /// Of what nobody knows.
    pub(crate) fn open(&self) -> Vec<Made> {
        let frames = self.frames();
        let open = frames.iter().filter_map(|(&(source, batch), sent)| {
            let State::Open(bytes) = &sent.state else { return None };
            Some(Made { source, batch, first: sent.first, count: sent.count, bytes: bytes.clone() })
        });
        open.collect()
    }

    pub(crate) fn acks(&self) -> u64 {
        self.acks.load(Ordering::Relaxed)
    }

    /// How often something had to be sent again.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// How often nobody was there to connect to.
    pub(crate) fn nobody(&self) -> u64 {
        self.nobody.load(Ordering::Relaxed)
    }

    /// The longest that an answer took that said that everything is on disk.
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest.load(Ordering::Relaxed))
    }

    /// What was refused and set aside was sent through the checks again: from now on it counts as acknowledged.
    pub(crate) fn replayed(&self) {
        for sent in self.frames().values_mut().filter(|sent| matches!(sent.state, State::Refused(_))) {
            sent.state = State::Acked;
        }
    }

    /// Waits until so many frames more are acknowledged.
    pub(crate) fn await_acks(&self, more: u64, most: Duration) -> Outcome<Duration> {
        let (began, before) = (Instant::now(), self.acks());
        while self.acks() < before + more {
            if began.elapsed() > most {
                let got = self.acks() - before;
                return Err(format!("of {more} frames {got} were acknowledged within {most:?}").into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(began.elapsed())
    }

    /// Sends again what nobody knows of, as a page does when it comes back, until it is acknowledged.
    pub(crate) fn send_open(&self, address: SocketAddr) -> Outcome<()> {
        let mut client = Client::new(address);
        for made in self.open() {
            deliver(&mut client, &made, self, &|| false)?;
        }
        Ok(())
    }
}

/// What a producer does with the answers to one frame: sends the same bytes until they are acknowledged or refused for good. False: it
/// was told to give up before.
pub(crate) fn deliver(
    client: &mut Client,
    made: &Made,
    log: &Log,
    give_up: &dyn Fn() -> bool,
) -> Outcome<Option<Answer>> {
    deliver_to(client, "/v1/f", &|| Ok(made.bytes.clone()), made, log, give_up)
}

/// [`deliver`] by any way: `body` is made anew for each attempt.
pub(crate) fn deliver_to(
    client: &mut Client,
    path: &str,
    body: &dyn Fn() -> Outcome<Vec<u8>>,
    made: &Made,
    log: &Log,
    give_up: &dyn Fn() -> bool,
) -> Outcome<Option<Answer>> {
    const MOST: Duration = Duration::from_secs(90);
    log.sent(made);
    let began = Instant::now();
    loop {
        let (body, asked) = (body()?, Instant::now());
        let said = match client.post(path, &body) {
            Ok(answer) if answer.status == 200 => {
                log.slowest.fetch_max(asked.elapsed().as_micros() as u64, Ordering::Relaxed);
                let receipt = answer.receipt().ok_or_else(|| format!("200 without a receipt: {}", answer.text()))?;
                let whole = receipt.stored + receipt.duplicate == made.count && receipt.source == made.source;
                if !whole {
                    return Err(format!("a receipt that is not this frame's: {}", answer.text()).into());
                }
                log.acked(made, receipt.duplicate);
                return Ok(Some(answer));
            }
            Ok(answer) if answer.is_retryable() => {
                if matches!(answer.status, 429 | 503) && answer.header("retry-after").is_empty() {
                    return Err(format!("{} without Retry-After: {}", answer.status, answer.text()).into());
                }
                answer.text()
            }
            Ok(answer) => {
                log.refused(made, answer.code());
                return Ok(Some(answer));
            }
            Err(error) => {
                log.nobody.fetch_add(u64::from(error.kind() == ErrorKind::ConnectionRefused), Ordering::Relaxed);
                error.to_string()
            }
        };
        log.retries.fetch_add(1, Ordering::Relaxed);
        if give_up() {
            return Ok(None);
        }
        if began.elapsed() > MOST {
            return Err(format!("a frame is not acknowledged after {MOST:?}: {said}").into());
        }
        // A page would wait longer; here the time to recover is measured.
        thread::sleep(Duration::from_millis(10));
    }
}

/// Producers that send as fast as they are answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) tenant: &'a Tenant,
    pub(crate) log: &'a Log,
    pub(crate) producers: u32,
    /// Most events of a frame.
    pub(crate) events: u32,
    /// What each event says besides.
    pub(crate) text: Option<&'a str>,
    /// Between two frames of a producer.
    pub(crate) pause: Duration,
    /// Whether a refusal for good is expected here: the row judges it.
    pub(crate) may_refuse: bool,
}

impl<'a> Load<'a> {
    pub(crate) const fn new(address: SocketAddr, tenant: &'a Tenant, log: &'a Log) -> Self {
        Self { address, tenant, log, producers: 6, events: 60, text: None, pause: Duration::ZERO, may_refuse: false }
    }

    /// Lets them send while something happens, and then until all that is open is acknowledged.
    pub(crate) fn during<T>(self, random: &mut Random, happens: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        self.run(random, true, happens)
    }

    /// The same, but at the end they give up: what is open stays open.
    pub(crate) fn until<T>(self, random: &mut Random, happens: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        self.run(random, false, happens)
    }

    fn run<T>(self, random: &mut Random, finish: bool, happens: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.producers)
                .map(|_| {
                    let (stop, random) = (&stop, random.fork());
                    scope.spawn(move || self.work(random, stop, finish))
                })
                .collect();
            let result = happens();
            stop.store(true, Ordering::Relaxed);
            let mut worked = Ok(());
            for worker in workers {
                let ended = worker.join().unwrap_or_else(|_| Err("a producer panicked".into()));
                worked = worked.and(ended);
            }
            let value = result?;
            worked.map(|()| value)
        })
    }

    fn work(&self, mut random: Random, stop: &AtomicBool, finish: bool) -> Outcome<()> {
        let stopped = || stop.load(Ordering::Relaxed);
        let mut producer = Producer::new(self.tenant, &mut random);
        let mut client = Client::new(self.address);
        while !stopped() {
            if producer.next > 3000 {
                producer = Producer::new(self.tenant, &mut random);
            }
            let made = producer.frame_with(1 + random.below(self.events.into()) as u32, self.text)?;
            let Some(answer) = deliver(&mut client, &made, self.log, &|| !finish && stopped())? else { break };
            match answer.receipt() {
                Some(receipt) => producer.session = receipt.session.or(producer.session),
                None if self.may_refuse => {
                    // What a page does on a refusal: it begins again.
                    producer = Producer::new(self.tenant, &mut random);
                }
                None => return Err(format!("refused: {} {}", answer.status, answer.text()).into()),
            }
            if !self.pause.is_zero() {
                thread::sleep(self.pause);
            }
        }
        Ok(())
    }
}
