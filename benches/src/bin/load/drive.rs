//! All connections by one thread that asks the kernel who has an answer: one write and one read for each request, and nothing else that
//! could be somebody else's processor time.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::{
    Options,
    bodies::Requests,
    http::{Answer, Connection},
};

/// What became of the requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Microseconds from the first byte out to the last byte in, of what was acknowledged.
    pub(crate) latencies: Vec<u32>,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) broken: u64,
    pub(crate) stored: u64,
    pub(crate) duplicate: u64,
}

impl Tally {
    fn count(&mut self, answer: &Answer<'_>, took: Duration) {
        *self.statuses.entry(answer.status).or_default() += 1;
        if (200..300).contains(&answer.status) {
            self.latencies.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
            let (stored, duplicate) = answer.stored_and_duplicate();
            self.stored += stored;
            self.duplicate += duplicate;
        }
    }
}

/// One connection and its request.
struct Driven<'a> {
    connection: Connection<TcpStream>,
    /// The one under way, and when it began.
    request: Option<(&'a [u8], Instant)>,
    /// Some of it is not sent yet.
    is_sending: bool,
}

/// Requests on their way over all connections, each once the one before was answered.
pub(crate) struct Load<'a> {
    requests: &'a Requests,
    poll: Poll,
    driven: Vec<Driven<'a>>,
    /// Those that have no request under way.
    idle: VecDeque<usize>,
    /// Those that are not broken.
    open: usize,
    next: usize,
    length: Duration,
    /// From one request to the next; zero: none waits.
    interval: Duration,
    tally: Tally,
}

impl<'a> Load<'a> {
    pub(crate) fn new(options: &Options, requests: &'a Requests) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut driven = Vec::with_capacity(options.connections);
        for number in 0..options.connections {
            let connection = Connection::open(&options.address)?;
            connection.stream.set_nonblocking(true)?;
            let mut connection = connection.by(TcpStream::from_std);
            // To be told of room costs nothing while there is always some.
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut connection.stream, Token(number), interest)?;
            driven.push(Driven { connection, request: None, is_sending: false });
        }
        Ok(Self {
            requests,
            poll,
            idle: (0..driven.len()).collect(),
            open: driven.len(),
            driven,
            next: 0,
            length: Duration::from_secs_f64(options.seconds),
            interval: Duration::from_secs_f64(if options.rate > 0.0 { options.rate.recip() } else { 0.0 }),
            tally: Tally::default(),
        })
    }

    /// Until the time is over, or the requests are. Returns what became of them, how many there were, and how long it took.
    pub(crate) fn drive(mut self) -> io::Result<(Tally, usize, Duration)> {
        let start = Instant::now();
        let deadline = start + self.length;
        let mut events = Events::with_capacity(1024);
        loop {
            let wait = self.begin_those_due(start, deadline);
            if self.idle.len() == self.open && wait.is_none() {
                return Ok((self.tally, self.next, start.elapsed()));
            }
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                self.go_on(event.token().0, deadline);
            }
        }
    }

    /// Begins the requests whose time has come, and returns how long the next one has; none if it waits for an answer or for nothing.
    fn begin_those_due(&mut self, start: Instant, deadline: Instant) -> Option<Duration> {
        while let Some(&number) = self.idle.front() {
            let now = Instant::now();
            let due = start + self.interval.mul_f64(self.next as f64);
            if now.max(due) >= deadline || self.requests.get(self.next).is_none() {
                return None;
            } else if due > now {
                return Some(due - now);
            }
            self.idle.pop_front();
            self.begin(number, now);
        }
        None
    }

    /// Begins the next request, if there is one.
    fn begin(&mut self, number: usize, now: Instant) {
        let driven = &mut self.driven[number];
        driven.request = self.requests.get(self.next).map(|request| (request, now));
        let Some((request, _)) = driven.request else { return self.idle.push_back(number) };
        self.next += 1;
        match driven.connection.begin(request) {
            Ok(is_sent) => driven.is_sending = !is_sent,
            Err(_) => self.give_up(number),
        }
    }

    fn give_up(&mut self, number: usize) {
        self.driven[number].request = None;
        self.open -= 1;
        self.tally.broken += 1;
    }

    /// A connection has something to say: room, or an answer.
    fn go_on(&mut self, number: usize, deadline: Instant) {
        let driven = &mut self.driven[number];
        let Some((request, began)) = driven.request else { return };
        match driven.go_on(request) {
            Ok(None) => {}
            Ok(Some(answer)) => {
                let now = Instant::now();
                self.tally.count(&answer, now - began);
                driven.request = None;
                if self.interval.is_zero() && now < deadline {
                    self.begin(number, now);
                } else {
                    self.idle.push_back(number);
                }
            }
            Err(_) => self.give_up(number),
        }
    }
}

impl Driven<'_> {
    fn go_on(&mut self, request: &[u8]) -> io::Result<Option<Answer<'_>>> {
        if self.is_sending {
            self.is_sending = !self.connection.send(request)?;
        }
        if self.connection.read()? { self.connection.answer() } else { Ok(None) }
    }
}
