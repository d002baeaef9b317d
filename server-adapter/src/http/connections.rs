//! Who is connected: how many at all, how many from one address, what each is doing, and whom to part with when there are too many.
//!
//! Slow clients cost a good one nothing: where a newcomer finds no place, the connections that have kept the server waiting for longest
//! make room. Nothing that was acknowledged is at stake, since none of them has sent a whole request.

#![cfg_attr(not(feature = "cli"), allow(dead_code, reason = "a mounted router has no connections of its own"))]

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::Notify;

/// Whom connections are counted for: an IPv4 address, or the /64 of an IPv6 address, which is what one customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer(IpAddr);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into()),
            v4 => Self(v4),
        }
    }
}

/// What is known of one peer while it has a connection: what its bodies hold while they are being read, and whether it sends what nobody
/// answers for.
#[derive(Debug, Default)]
pub(crate) struct Share {
    bytes: AtomicUsize,
    /// Requests that proved nothing, less those that did, from 0 to [`MOST_FORGED`].
    forged: AtomicU32,
    /// When the last of those came, of [the time](now).
    forged_at: AtomicU64,
}

/// With more than `FORGED` on its account, a peer is expected to send more of what nobody answers for; until it has sent nothing of that for
/// `SUSPECT` milliseconds, or as much else. A peer may be many, an edge or a proxy: one of them that forges is not to be the others' matter,
/// unless it is most of them.
const FORGED: u32 = 8;
const MOST_FORGED: u32 = 64;
const SUSPECT: u64 = 10_000;

impl Share {
    /// It has sent bytes that name a tenant: and prove nothing, or were taken.
    pub(super) fn note(&self, is_forged: bool) {
        if is_forged {
            self.forged_at.store(now(), Relaxed);
        } else if self.forged.load(Relaxed) == 0 {
            return;
        }
        let step = |count: u32| Some(if is_forged { MOST_FORGED.min(count + 1) } else { count.saturating_sub(1) });
        let _ = self.forged.fetch_update(Relaxed, Relaxed, step);
    }

    /// Whether it is likely to prove nothing this time either.
    pub(super) fn forges(&self) -> bool {
        self.forged.load(Relaxed) > FORGED && now() < self.forged_at.load(Relaxed) + SUSPECT
    }
}

/// A part of a peer's share, given back when dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    share: Arc<Share>,
    bytes: usize,
}

impl Taken {
    pub(crate) fn new(share: Arc<Share>) -> Self {
        Self { share, bytes: 0 }
    }

    /// Takes more of at most so much. None: there is no more.
    pub(crate) fn grow(&mut self, bytes: usize, most: usize) -> Option<()> {
        let add = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= most);
        self.share.bytes.fetch_update(Relaxed, Relaxed, add).ok()?;
        self.bytes += bytes;
        Some(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.share.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// One connection of our own listener's.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) share: Arc<Share>,
    pub(super) address: IpAddr,
    peer: Peer,
    /// What it is doing, and since when: the [time](now), shifted.
    phase: AtomicU64,
    /// When it came, in that time; and whether it has asked for something since.
    came: u64,
    asked: AtomicBool,
    /// Whether a byte of the next request has come.
    heard: AtomicBool,
    /// Whether hyper has answered for us: to what is no request.
    refused: AtomicBool,
    is_shed: AtomicBool,
    shed: Notify,
}

impl Connection {
    /// The body is here: from now on it is the server that is awaited.
    pub(crate) fn serving(&self) {
        self.set(Phase::Serving);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For the head of a request.
    Waiting,
    /// A body.
    Reading,
    /// A request that is here.
    Serving,
}

/// A body may take this long before its connection is one of those that make room, in milliseconds.
const READING: u64 = 2000;

impl Connection {
    /// The next request may come.
    pub(super) fn waiting(&self) {
        self.heard.store(false, Relaxed);
        self.set(Phase::Waiting);
    }

    /// A head has come, and perhaps a body will.
    pub(super) fn reading(&self) {
        self.asked.store(true, Relaxed);
        self.set(Phase::Reading);
    }

    /// Some bytes have come.
    pub(super) fn hear(&self) {
        self.heard.store(true, Relaxed);
    }

    pub(super) fn was_heard(&self) -> bool {
        self.heard.load(Relaxed)
    }

    /// Whether it waits for a request, be it one that has begun.
    pub(super) fn is_waiting(&self) -> bool {
        self.phase.load(Relaxed) & 3 == Phase::Waiting as u64
    }

    /// Whether it is between two requests.
    pub(super) fn is_idle(&self) -> bool {
        self.is_waiting() && !self.was_heard()
    }

    /// What came was no request, and was answered so.
    pub(super) fn refuse(&self) {
        self.refused.store(true, Relaxed);
    }

    pub(super) fn was_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    /// Until it is to make room.
    pub(super) async fn shed(&self) {
        self.shed.notified().await;
    }

    /// Whether that is so.
    pub(super) fn is_shed(&self) -> bool {
        self.is_shed.load(Relaxed)
    }

    fn set(&self, phase: Phase) {
        self.phase.store(now() << 2 | phase as u64, Relaxed);
    }

    /// How long it has waited for a request, if it does.
    pub(super) fn waited(&self) -> Option<Duration> {
        let since = self.phase.load(Relaxed) >> 2;
        self.is_waiting().then(|| Duration::from_millis(now().saturating_sub(since)))
    }

    /// Since when it has kept the server waiting, if it is the one that does.
    fn idle_since(&self, now: u64) -> Option<u64> {
        let phase = self.phase.load(Relaxed);
        let since = phase >> 2;
        let idle = match phase & 3 {
            // A first byte is no request: who came first has been awaited for longest, whenever that was read.
            phase if phase == Phase::Waiting as u64 && !self.asked.load(Relaxed) => return Some(self.came),
            phase if phase == Phase::Waiting as u64 => true,
            phase if phase == Phase::Reading as u64 => since + READING < now,
            _ => false,
        };
        idle.then_some(since)
    }
}

/// Milliseconds, from some moment on. Asked several times for each request: so it is the clock that costs nothing, which is a tick of the
/// kernel's late.
fn now() -> u64 {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
    }
    #[cfg(not(target_os = "linux"))]
    {
        static BEGAN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
        u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The connections of one listener.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    most_of_peer: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<u64, Arc<Connection>>,
    peers: HashMap<Peer, (usize, Arc<Share>)>,
    next: u64,
}

/// A place among the connections, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
    pub(super) connection: Arc<Connection>,
}

impl Connections {
    /// At most so many, and so many of one peer.
    pub(super) fn new(most: usize, most_of_peer: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_peer, state: Mutex::default() })
    }

    /// A place for a newcomer. None: all who are there are being served.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let peer = Peer::from(address);
        let mut state = self.lock();
        let of_peer = state.peers.get(&peer).map_or(0, |(count, _)| *count);
        if of_peer >= self.most_of_peer && !self.shed(&mut state, peer) {
            return None;
        }
        if state.open.len() >= self.most {
            let (&busiest, _) = state.peers.iter().max_by_key(|(_, (count, _))| *count)?;
            if !self.shed(&mut state, busiest) {
                return None;
            }
        }
        let entry = state.peers.entry(peer).or_default();
        entry.0 += 1;
        let connection = Arc::new(Connection {
            share: Arc::clone(&entry.1),
            address,
            peer,
            phase: AtomicU64::new(0),
            came: now(),
            asked: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            is_shed: AtomicBool::new(false),
            shed: Notify::new(),
        });
        connection.waiting();
        state.next += 1;
        let number = state.next;
        state.open.insert(number, Arc::clone(&connection));
        Some(Place { connections: Arc::clone(self), number, connection })
    }

    /// Parts with those of a peer's connections that have kept the server waiting for longest: several at once, so that looking for
    /// them costs little for each. Whether there were any.
    fn shed(&self, state: &mut State, peer: Peer) -> bool {
        let now = now();
        let of_peer = state.open.iter().filter(|(_, connection)| connection.peer == peer);
        let idle = of_peer.filter_map(|(&number, connection)| Some((connection.idle_since(now)?, number)));
        let mut idle: Vec<_> = idle.collect();
        let count = idle.len().div_ceil(64);
        if count == 0 {
            return false;
        }
        idle.select_nth_unstable(count - 1);
        for &(_, number) in &idle[..count] {
            if let Some(connection) = state.remove(number) {
                connection.is_shed.store(true, Relaxed);
                connection.shed.notify_one();
            }
        }
        true
    }

    /// Makes room in the process: there are no file descriptors left.
    pub(super) fn make_room(&self) -> bool {
        let mut state = self.lock();
        let busiest = state.peers.iter().max_by_key(|(_, (count, _))| *count).map(|(&peer, _)| peer);
        busiest.is_some_and(|busiest| self.shed(&mut state, busiest))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, number: u64) -> Option<Arc<Connection>> {
        let connection = self.open.remove(&number)?;
        if let Some(entry) = self.peers.get_mut(&connection.peer) {
            entry.0 -= 1;
            if entry.0 == 0 {
                self.peers.remove(&connection.peer);
            }
        }
        Some(connection)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    fn is_shed(place: &Place) -> bool {
        !place.connections.lock().open.contains_key(&place.number)
    }

    #[test]
    fn the_longest_idle_of_the_busiest_makes_room() {
        let connections = Connections::new(4, 3);
        let enter = |n| connections.enter(peer(n));
        let busy = enter(1).expect("room");
        busy.connection.serving();
        let places: Vec<_> = [1, 1, 2].into_iter().map(|n| enter(n).expect("room")).collect();
        std::thread::sleep(Duration::from_millis(30));
        // It has asked for something since; the other has not, though it has begun to.
        places[0].connection.reading();
        places[0].connection.waiting();
        places[1].connection.waiting();
        let newcomer = enter(3).expect("room is made");
        assert_eq!(
            [&busy, &places[0], &places[1], &places[2], &newcomer].map(is_shed),
            [false, false, true, false, false]
        );
        // One address over its own bound parts with one of its own.
        let (again, third) = (enter(1).expect("room"), enter(1).expect("room is made"));
        assert!(is_shed(&places[0]) && !is_shed(&places[2]) && !is_shed(&third));
        again.connection.serving();
        third.connection.serving();
        assert!(enter(1).is_none(), "all of them are being served");
    }

    #[test]
    fn a_peer_forges_if_it_does_so_more_than_anything_else() {
        let share = Share::default();
        let send = |forged: u32, other: u32| {
            (0..forged.max(other)).for_each(|i| {
                (i < forged).then(|| share.note(true));
                (i < other).then(|| share.note(false));
            })
        };
        send(FORGED, 0);
        assert!(!share.forges(), "anybody has an old key once");
        send(1, 0);
        assert!(share.forges());
        send(0, 1);
        assert!(!share.forges());
        // An edge, a tenth of whose pages forge: or half of them.
        (0..100).for_each(|_| send(1, 9));
        assert!(!share.forges());
        send(10_000, 10_000);
        assert!(!share.forges());
        // However many there were, it is soon over.
        send(10_000, 0);
        assert!(share.forges());
        send(0, MOST_FORGED - FORGED);
        assert!(!share.forges());
    }

    #[test]
    fn a_body_has_a_while() {
        let connections = Connections::new(1, 1);
        let reading = connections.enter(peer(1)).expect("room");
        reading.connection.reading();
        assert!(connections.enter(peer(2)).is_none());
        let since = reading.connection.phase.load(Relaxed) >> 2;
        assert_eq!(reading.connection.idle_since(since + READING), None);
        assert_eq!(reading.connection.idle_since(since + READING + 1), Some(since));
    }

    #[test]
    fn places_come_back_and_nothing_is_left() {
        let connections = Connections::new(100, 100);
        let places: Vec<_> = (0..100).map(|n| connections.enter(peer(n)).expect("room")).collect();
        drop(places);
        let state = connections.lock();
        assert!(state.open.is_empty() && state.peers.is_empty());
    }

    #[test]
    fn a_network_of_version_6_is_one() {
        let peer = |text: &str| Peer::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff::9"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
    }

    #[test]
    fn a_share_is_given_back() {
        let share = Arc::new(Share::default());
        let (mut a, mut b) = (Taken::new(Arc::clone(&share)), Taken::new(share));
        assert_eq!((a.grow(70, 100), b.grow(31, 100), b.grow(30, 100)), (Some(()), None, Some(())));
        drop(a);
        assert_eq!(b.grow(70, 100), Some(()));
    }
}
