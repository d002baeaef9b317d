//! Requests under way, each under a number that no other one has, and for a bounded time.
//!
//! JavaScript goes on with a request by its number. When it does not, because the platform has ended the request with all that it waited for, nobody
//! says so; and after a failure the Worker starts anew, while promises of before are still awaited. So a number says of which instance it is and is not
//! used again, and what is too old, or behind too many others, is given up.

use std::collections::VecDeque;

/// How long a request may be under way, in milliseconds. What one waits for at most (its body, leases, the server, the spool), one after the other,
/// takes half of that.
const LONGEST: u64 = 180_000;
/// How far the oldest may be behind the newest: so many places are a few MB.
const SPAN: usize = 1 << 17;
/// Bits of a number that count requests; those above say which instance. It begins from 0 again long after [`SPAN`].
const COUNT_BITS: u32 = 22;
const COUNT: u32 = (1 << COUNT_BITS) - 1;

/// Requests under way, oldest first.
pub(crate) struct Tasks<T> {
    instance: u32,
    /// The count of the first place.
    first: u32,
    places: VecDeque<Place<T>>,
}

struct Place<T> {
    began: u64,
    /// None: it is being gone on with, or done.
    task: Option<T>,
}

impl<T> Tasks<T> {
    pub(crate) const fn new() -> Self {
        Self { instance: 0, first: 0, places: VecDeque::new() }
    }

    /// Says which instance of the isolate this is.
    pub(crate) const fn start(&mut self, instance: u32) {
        self.instance = instance;
    }

    /// The number of a request that begins. Only when none is being gone on with.
    pub(crate) fn begin(&mut self, now: u64) -> u32 {
        self.places.push_back(Place { began: now, task: None });
        self.number(self.places.len() as u32 - 1)
    }

    /// A request that is given up, for its number: asked until there is none, before another one [begins](Self::begin).
    pub(crate) fn given_up(&mut self, now: u64) -> Option<(u32, T)> {
        loop {
            let is_over = self.places.len() >= SPAN;
            let Place { began, task } = self.places.front()?;
            if task.is_some() && !is_over && now.saturating_sub(*began) <= LONGEST {
                return None;
            }
            let number = self.number(0);
            self.first = self.first.wrapping_add(1) & COUNT;
            if let Some(task) = self.places.pop_front()?.task {
                return Some((number, task));
            }
        }
    }

    /// Takes a request out, to go on with it.
    pub(crate) fn take(&mut self, number: u32) -> Option<T> {
        self.place(number)?.task.take()
    }

    /// Leaves a request that waits.
    pub(crate) fn leave(&mut self, number: u32, task: T) {
        if let Some(place) = self.place(number) {
            place.task = Some(task);
        }
    }

    const fn number(&self, place: u32) -> u32 {
        self.instance << COUNT_BITS | (self.first.wrapping_add(place) & COUNT)
    }

    fn place(&mut self, number: u32) -> Option<&mut Place<T>> {
        let place = (number & COUNT).wrapping_sub(self.first) & COUNT;
        if number != self.number(place) {
            return None;
        }
        self.places.get_mut(place as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give_up(tasks: &mut Tasks<&'static str>, now: u64) -> Vec<&'static str> {
        std::iter::from_fn(|| tasks.given_up(now)).map(|(_, task)| task).collect()
    }

    fn wait(tasks: &mut Tasks<&'static str>, task: &'static str, now: u64) -> u32 {
        assert_eq!(give_up(tasks, now), [""; 0]);
        let number = tasks.begin(now);
        tasks.leave(number, task);
        number
    }

    #[test]
    fn each_goes_on_as_often_as_it_waits_and_under_its_own_number() {
        let mut tasks = Tasks::new();
        let [a, b, c] = ["a", "b", "c"].map(|task| wait(&mut tasks, task, 0));
        assert_eq!(tasks.take(b), Some("b"));
        assert_eq!(tasks.take(b), None, "it is being gone on with");
        tasks.leave(b, "b again");
        assert_eq!([a, b, c].map(|number| tasks.take(number)), [Some("a"), Some("b again"), Some("c")]);
        // All are done: their places go, and their numbers find nothing.
        let d = wait(&mut tasks, "d", 1);
        assert_eq!(tasks.places.len(), 1);
        assert_eq!([a, b, c, d].map(|number| tasks.take(number)), [None, None, None, Some("d")]);
    }

    #[test]
    fn what_nobody_goes_on_with_is_given_up_and_the_others_are_not() {
        let mut tasks = Tasks::new();
        let cancelled = wait(&mut tasks, "cancelled", 0);
        let slow = wait(&mut tasks, "slow", LONGEST / 2);
        assert_eq!(give_up(&mut tasks, LONGEST), [""; 0]);
        assert_eq!(tasks.given_up(LONGEST + 1), Some((cancelled, "cancelled")));
        assert_eq!(tasks.given_up(LONGEST + 1), None);
        assert_eq!(tasks.take(cancelled), None, "if somebody does after all, it is not found");
        assert_eq!(tasks.take(slow), Some("slow"));
    }

    #[test]
    fn however_many_are_cancelled_the_memory_is_bounded() {
        let mut tasks = Tasks::new();
        let first = wait(&mut tasks, "first", 0);
        let mut given_up = 0;
        for _ in 0..2 * SPAN {
            given_up += give_up(&mut tasks, 0).len();
            let number = tasks.begin(0);
            tasks.leave(number, "cancelled");
            assert!(tasks.places.len() <= SPAN);
        }
        assert_eq!(given_up, SPAN + 1);
        assert_eq!(tasks.take(first), None);
    }

    #[test]
    fn numbers_stay_apart_where_the_count_begins_again() {
        let mut tasks = Tasks { first: COUNT - 1, ..Tasks::new() };
        let numbers = ["a", "b", "c", "d"].map(|task| wait(&mut tasks, task, 0));
        assert_eq!(numbers, [COUNT - 1, COUNT, 0, 1]);
        assert_eq!(tasks.take(numbers[3]), Some("d"));
        assert_eq!(tasks.take(numbers[0]), Some("a"));
        assert_eq!(give_up(&mut tasks, 0), [""; 0]);
        assert_eq!((tasks.take(numbers[1]), tasks.take(numbers[2])), (Some("b"), Some("c")));
    }

    /// After a failure the Worker is started anew: what an answer of before was awaited for must not reach a request of now.
    #[test]
    fn what_another_instance_began_is_not_found() {
        let mut before = Tasks::new();
        before.start(3);
        let old = ["one", "another", "a third"].map(|task| wait(&mut before, task, 0));
        let mut now = Tasks::new();
        now.start(4);
        let new = ["mine", "yours", "theirs"].map(|task| wait(&mut now, task, 0));
        assert!(old.iter().all(|number| !new.contains(number)));
        assert_eq!(old.map(|number| now.take(number)), [None; 3]);
        assert_eq!(new.map(|number| now.take(number)), [Some("mine"), Some("yours"), Some("theirs")]);
    }
}
