//! Who is served when several tenants send at once, also where nobody has set a limit.
//!
//! What tenants share are processors and a disk. A request waits for these behind all that is under way, so whoever has hundreds of requests
//! under way has the others wait for hundreds. So while several tenants send, the work under way is divided evenly among them: each has
//! its part from the body's last byte to the answer, and what is more waits, in the order in which it came, before anything is done for it.
//! A tenant waits for itself alone: one whose journal is slow holds up nobody else. One that sends alone has no bound.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use crate::settings::Bytes;

/// What one request is counted as besides its bytes: it has a head and an answer, and a part in a commit.
const REQUEST: usize = 16 << 10;
/// Work under way of all tenants for each processor, while several send: with two tenants and two processors fifteen small requests of each,
/// or three large ones. Less of it, and one that sends much has smaller commits; more, and the others stand behind it for longer.
const WORK: u64 = 256 << 10;
/// Looks without a request after which a tenant no longer sends. One look is a second.
const SILENT: usize = 10;

/// Among how many tenants the work under way is divided.
#[derive(Debug)]
pub(crate) struct Sharing {
    senders: AtomicUsize,
    /// Bytes under way, of all together, while several send.
    work: usize,
}

impl Sharing {
    /// Of so much work; 0: as much as is best.
    pub(crate) fn new(work: Bytes) -> Arc<Self> {
        let processors = || std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let work = if work.0 == 0 { WORK * processors() } else { work.0 };
        Arc::new(Self { senders: AtomicUsize::new(0), work: usize::try_from(work).unwrap_or(usize::MAX) })
    }

    /// Among how many tenants the work is divided.
    pub(crate) fn senders(&self) -> usize {
        self.senders.load(Relaxed)
    }

    /// What each may have under way; strangers have a part like any tenant's, also beside one alone.
    fn share(&self, of_strangers: bool) -> usize {
        match self.senders() {
            senders if of_strangers => self.work / (senders + 1),
            0 | 1 => usize::MAX,
            senders => self.work / senders,
        }
    }
}

/// One tenant's requests under way, and those that wait for their turn.
#[derive(Debug)]
pub(crate) struct Turns {
    sharing: Arc<Sharing>,
    of_strangers: bool,
    /// Whether it is one of those among whom the work is divided.
    sends: AtomicBool,
    /// Whether it has sent anything since the last look.
    sent: AtomicBool,
    line: Mutex<Line<oneshot::Sender<Turn>>>,
    /// Looks since it sent something.
    silent: AtomicUsize,
}

/// A request's turn, until dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    cost: usize,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.cost > 0 {
            self.turns.line().leave(self.cost);
            self.turns.call();
        }
    }
}

/// There was no turn in time, or no room to wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoTurn;

impl Turns {
    /// A tenant's.
    pub(crate) fn new(sharing: &Arc<Sharing>) -> Arc<Self> {
        Self::of(sharing, false)
    }

    /// Those of requests that are likely to prove nothing. They take nothing away from what a tenant may have under way: or anybody could.
    pub(crate) fn of_strangers(sharing: &Arc<Sharing>) -> Arc<Self> {
        Self::of(sharing, true)
    }

    fn of(sharing: &Arc<Sharing>, of_strangers: bool) -> Arc<Self> {
        Arc::new(Self {
            sharing: Arc::clone(sharing),
            of_strangers,
            sends: AtomicBool::new(false),
            sent: AtomicBool::new(false),
            line: Mutex::new(Line::default()),
            silent: AtomicUsize::new(0),
        })
    }

    /// Waits until a request of so many bytes has its turn: for so long at most, and with no more than so many bytes that wait.
    pub(crate) async fn take(self: &Arc<Self>, bytes: usize, time: Duration, most: usize) -> Result<Turn, NoTurn> {
        let cost = bytes + REQUEST;
        self.note();
        let called = {
            let mut line = self.line();
            if line.enter(cost, self.share()) {
                return Ok(Turn { turns: Arc::clone(self), cost });
            }
            // What waits takes memory for its body alone.
            let most = most.saturating_add(REQUEST * (line.waiting.len() + 1));
            let (turn, called) = oneshot::channel();
            line.wait(cost, turn, most).ok_or(NoTurn)?;
            called
        };
        // Nobody drops the other end without a word.
        tokio::time::timeout(time, called).await.ok().and_then(Result::ok).ok_or(NoTurn)
    }

    fn share(&self) -> usize {
        self.sharing.share(self.of_strangers)
    }

    /// It is one of those who send.
    fn note(&self) {
        if self.of_strangers {
            return;
        }
        if !self.sent.load(Relaxed) {
            self.sent.store(true, Relaxed);
        }
        if !self.sends.load(Relaxed) && !self.sends.swap(true, Relaxed) {
            self.sharing.senders.fetch_add(1, Relaxed);
        }
    }

    /// Looks whether it still sends, and calls those who may go on because others have stopped. Once a second.
    pub(crate) fn look(self: &Arc<Self>) {
        let silent = if self.sent.swap(false, Relaxed) { 0 } else { self.silent.load(Relaxed) + 1 };
        self.silent.store(silent, Relaxed);
        if silent >= SILENT && self.sends.swap(false, Relaxed) {
            self.sharing.senders.fetch_sub(1, Relaxed);
        }
        self.call();
    }

    /// Requests that wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.line().waiting.len()
    }

    /// Calls those whose turn it is.
    fn call(self: &Arc<Self>) {
        loop {
            let next = self.line().next(self.share());
            let Some((cost, called)) = next else { return };
            // Who has gone meanwhile gives it back: here, and not by dropping it, which would call the next one from within.
            if let Err(mut turn) = called.send(Turn { turns: Arc::clone(self), cost }) {
                self.line().leave(std::mem::take(&mut turn.cost));
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Line<oneshot::Sender<Turn>>> {
        // A panic leaves it as it was between two statements; there is nothing in it to repair.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is under way and who waits. Knows no time and nobody.
#[derive(Debug)]
struct Line<T> {
    under_way: usize,
    waiting: VecDeque<(usize, T)>,
    waiting_cost: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { under_way: 0, waiting: VecDeque::new(), waiting_cost: 0 }
    }
}

impl<T> Line<T> {
    /// Whether it may go on at once.
    fn enter(&mut self, cost: usize, share: usize) -> bool {
        let may = self.waiting.is_empty() && self.has_room(cost, share);
        if may {
            self.under_way += cost;
        }
        may
    }

    /// Puts it at the end. None: there is no room for it.
    fn wait(&mut self, cost: usize, who: T, most: usize) -> Option<()> {
        if self.waiting_cost + cost > most {
            return None;
        }
        self.waiting_cost += cost;
        self.waiting.push_back((cost, who));
        Some(())
    }

    /// One has been answered.
    fn leave(&mut self, cost: usize) {
        self.under_way -= cost;
    }

    /// The one at the front, if it may go on.
    fn next(&mut self, share: usize) -> Option<(usize, T)> {
        let (cost, _) = self.waiting.front()?;
        if !self.has_room(*cost, share) {
            return None;
        }
        let (cost, who) = self.waiting.pop_front()?;
        self.waiting_cost -= cost;
        self.under_way += cost;
        Some((cost, who))
    }

    /// What is larger than a share goes alone.
    const fn has_room(&self, cost: usize, share: usize) -> bool {
        self.under_way == 0 || self.under_way.saturating_add(cost) <= share
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, future::Future, pin::pin, task::Poll};

    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const ANY: usize = usize::MAX;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Arrives(usize),
        /// One of those under way.
        Leaves(usize),
        Share(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (1_usize..200).prop_map(Step::Arrives),
            3 => (0_usize..64).prop_map(Step::Leaves),
            1 => prop_oneof![Just(usize::MAX), 1_usize..500].prop_map(Step::Share),
        ];
        proptest::collection::vec(step, 1..300)
    }

    proptest! {
        /// Against a model that keeps everything: turns come in the order of arrival; whoever gets one fits the share of that moment or
        /// goes alone; nobody waits who would fit; what was refused is what would not have fitted the room; and in the end nobody is left.
        #[test]
        fn turns_come_in_order_and_within_the_share(steps in steps(), most in 100_usize..2000) {
            let mut line = Line::default();
            let (mut share, mut arrived, mut next) = (usize::MAX, 0, 0);
            let mut costs = HashMap::new();
            let (mut under_way, mut waiting) = (Vec::new(), VecDeque::new());
            let sum = |who: &[usize], costs: &HashMap<usize, usize>| who.iter().map(|who| costs[who]).sum::<usize>();
            for step in steps {
                match step {
                    Step::Arrives(cost) => {
                        let number = arrived;
                        arrived += 1;
                        costs.insert(number, cost);
                        let held = sum(&under_way, &costs);
                        let fits = waiting.is_empty() && (held == 0 || held.saturating_add(cost) <= share);
                        prop_assert_eq!(line.enter(cost, share), fits);
                        if fits {
                            under_way.push(number);
                            next = number + 1;
                        } else {
                            let queued: usize = waiting.iter().map(|who| costs[who]).sum();
                            prop_assert_eq!(line.wait(cost, number, most).is_some(), queued + cost <= most);
                            if queued + cost <= most {
                                waiting.push_back(number);
                            }
                        }
                    }
                    Step::Leaves(which) if !under_way.is_empty() => {
                        let gone = under_way.swap_remove(which % under_way.len());
                        line.leave(costs[&gone]);
                    }
                    Step::Leaves(_) => {}
                    Step::Share(new) => share = new,
                }
                while let Some((cost, number)) = line.next(share) {
                    prop_assert_eq!((Some(number), cost), (waiting.pop_front(), costs[&number]));
                    prop_assert!(number >= next, "in the order in which they came");
                    next = number + 1;
                    under_way.push(number);
                    prop_assert!(under_way.len() == 1 || sum(&under_way, &costs) <= share);
                }
                prop_assert_eq!(line.under_way, sum(&under_way, &costs));
                if let Some(front) = waiting.front() {
                    prop_assert!(!under_way.is_empty() && line.under_way.saturating_add(costs[front]) > share);
                }
            }
            while let Some(gone) = under_way.pop() {
                line.leave(costs[&gone]);
                under_way.extend(std::iter::from_fn(|| line.next(share)).map(|(_, number)| number));
            }
            prop_assert_eq!((line.under_way, line.waiting_cost, line.waiting.len()), (0, 0, 0));
        }

        /// A processor that works off what is under way in the order in which it began: however many requests one tenant has, another's one
        /// stands behind a share of work and no more.
        #[test]
        fn what_a_quiet_one_stands_behind_is_a_share(
            costs in proptest::collection::vec(1_usize..300, 10..200),
            quiet in 1_usize..300,
            served in 0_usize..100,
        ) {
            const SHARE: usize = 1000;
            let mut line = Line::default();
            let mut processor: VecDeque<usize> = VecDeque::new();
            for &cost in &costs {
                if line.enter(cost, SHARE) {
                    processor.push_back(cost);
                } else {
                    line.wait(cost, (), ANY).expect("room");
                }
            }
            for _ in 0..served {
                let Some(done) = processor.pop_front() else { break };
                line.leave(done);
                processor.extend(std::iter::from_fn(|| line.next(SHARE)).map(|(cost, ())| cost));
            }
            let mut own: Line<()> = Line::default();
            prop_assert!(own.enter(quiet, SHARE), "it has a line of its own");
            prop_assert!(processor.iter().sum::<usize>() <= SHARE);
        }
    }

    /// What a future says when it is asked once.
    async fn now<F: Future>(future: F) -> Option<F::Output> {
        // Or what this task has done in its turn would count, too.
        tokio::task::yield_now().await;
        let mut future = pin!(future);
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    /// For so many requests.
    fn sharing(requests: usize) -> Arc<Sharing> {
        Sharing::new(Bytes((requests * REQUEST) as u64))
    }

    async fn take(turns: &Arc<Turns>, bytes: usize) -> Turn {
        turns.take(bytes, LONG, ANY).await.expect("a turn")
    }

    #[tokio::test]
    async fn one_that_sends_alone_is_never_held() {
        let sharing = sharing(10);
        let (alone, _idle) = (Turns::new(&sharing), Turns::new(&sharing));
        let mut turns = Vec::new();
        for _ in 0..1000 {
            turns.push(now(take(&alone, 1 << 20)).await.expect("at once"));
        }
        assert_eq!(alone.waiting(), 0);
    }

    #[tokio::test]
    async fn with_another_it_waits_for_its_own_and_not_for_the_other() {
        let sharing = sharing(10);
        let (loud, well) = (Turns::new(&sharing), Turns::new(&sharing));
        let mut under_way = Vec::new();
        for _ in 0..20 {
            under_way.push(take(&loud, 0).await);
        }
        // From the other's first request on: what is under way is answered, and until it is within the share nothing is added.
        drop(now(take(&well, 0)).await.expect("at once"));
        let late = loud.take(0, Duration::from_millis(5), ANY);
        assert_eq!(late.await.expect_err("no turn"), NoTurn);
        assert_eq!(loud.take(2, LONG, 1).await.expect_err("no room"), NoTurn);
        let mut waits = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let loud = Arc::clone(&loud);
            waits.spawn(async move { take(&loud, 0).await });
        }
        tokio::task::yield_now().await;
        assert_eq!(loud.waiting(), 4, "the three, and the place of the one that did not wait");
        under_way.truncate(5);
        assert!(waits.try_join_next().is_none(), "its share of ten is used up");
        drop(now(take(&well, 0)).await.expect("at once"));
        under_way.truncate(4);
        let first = waits.join_next().await.expect("one").expect("no panic");
        tokio::task::yield_now().await;
        assert_eq!((waits.try_join_next().is_none(), loud.waiting()), (true, 2));
        drop((first, under_way));
        while let Some(turn) = waits.join_next().await {
            drop(turn.expect("no panic"));
        }
        assert_eq!((loud.waiting(), loud.line().under_way), (0, 0));
    }

    #[tokio::test]
    async fn strangers_have_a_part_and_take_none_away() {
        let sharing = sharing(10);
        let (alone, strangers) = (Turns::new(&sharing), Turns::of_strangers(&sharing));
        let mut held = vec![take(&alone, 1 << 20).await];
        for _ in 0..5 {
            held.push(now(take(&strangers, 0)).await.expect("half of ten"));
        }
        let mut sixth = Box::pin(take(&strangers, 0));
        assert!(now(sixth.as_mut()).await.is_none());
        held.push(now(take(&alone, 1 << 20)).await.expect("it sends alone"));
        assert_eq!(sharing.senders(), 1);
        // Less beside two.
        let _other = take(&Turns::new(&sharing), 0).await;
        held.remove(1);
        strangers.look();
        assert!(now(sixth.as_mut()).await.is_none(), "a third of ten is used up");
        held.drain(1..3);
        assert!(now(sixth.as_mut()).await.is_some());
    }

    #[tokio::test]
    async fn who_goes_while_waiting_holds_nothing() {
        let sharing = sharing(2);
        let (loud, well) = (Turns::new(&sharing), Turns::new(&sharing));
        let (first, _other) = (take(&loud, 0).await, take(&well, 0).await);
        {
            // Thousands of them, one behind the other: none is called from within another.
            let mut waits = Vec::new();
            for _ in 0..10_000 {
                let mut wait = Box::pin(take(&loud, 0));
                assert!(now(wait.as_mut()).await.is_none());
                waits.push(wait);
            }
        }
        let mut last = Box::pin(take(&loud, 0));
        assert!(now(last.as_mut()).await.is_none());
        drop(first);
        let turn = now(last.as_mut()).await.expect("its turn");
        // Called, and gone before it looked.
        let mut called = Box::pin(take(&loud, 0));
        assert!(now(called.as_mut()).await.is_none());
        drop(turn);
        drop(called);
        assert_eq!((loud.waiting(), loud.line().under_way), (0, 0));
    }

    #[tokio::test]
    async fn once_the_others_are_silent_there_is_no_bound() {
        let sharing = sharing(2);
        let (loud, well) = (Turns::new(&sharing), Turns::new(&sharing));
        drop(take(&well, 0).await);
        let _held = take(&loud, 0).await;
        let mut wait = Box::pin(take(&loud, 0));
        assert!(now(wait.as_mut()).await.is_none());
        for _ in 0..=SILENT {
            assert!(now(wait.as_mut()).await.is_none());
            // It sends on, and what it sends waits.
            assert!(now(take(&loud, 0)).await.is_none());
            well.look();
            loud.look();
        }
        let _turn = now(wait.as_mut()).await.expect("its turn");
        let _more = now(take(&loud, 1 << 30)).await.expect("no bound");
        // The other is back, and has its share at once.
        let _other = now(take(&well, 0)).await.expect("at once");
        assert!(now(take(&loud, 0)).await.is_none());
    }
}
