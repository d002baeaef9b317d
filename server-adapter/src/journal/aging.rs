//! By which clock what is stored grows old.
//!
//! What retention removes is gone for good, and a clock can leap: a machine wakes up in another year, a time server is wrong. So age goes by a
//! clock of the journal's own, which a leap does not move: it follows the machine's, but never runs more than twice as fast as time goes by.
//! It knows where it was across restarts, by a mark in the journal. A day in which no server ran is taken as it is.

use std::time::{Duration, Instant};

use firsthop_core::Timestamp;

/// What may have gone by between the mark and a start.
const REST: u64 = 25 * 3600 * 1000;
/// How often the mark is moved: so much may be lost of what has gone by at a crash.
const MARK: Duration = Duration::from_secs(3600);
/// Less than that behind is no leap.
pub(super) const LEAP: u64 = 60 * 1000;

#[derive(Debug, Default)]
pub(super) struct Aging {
    at: Option<At>,
}

#[derive(Clone, Copy, Debug)]
struct At {
    /// The time by this clock, and when that was.
    time: u64,
    looked: Instant,
    /// When the mark was moved last.
    marked: Option<Instant>,
}

impl Aging {
    pub(super) const fn has_begun(&self) -> bool {
        self.at.is_some()
    }

    /// At a start. `known`: the mark; without one, when the last frame came; none in an empty journal.
    pub(super) fn begin(&mut self, known: Option<u64>, wall: Timestamp, now: Instant) {
        let wall = wall.as_millis();
        let time = known.filter(|known| wall.saturating_sub(*known) > REST).unwrap_or(wall);
        self.at = Some(At { time, looked: now, marked: None });
    }

    /// The time by which age is measured, and how much the machine's clock is ahead of it.
    pub(super) fn look(&mut self, wall: Timestamp, now: Instant) -> (Timestamp, u64) {
        let wall = wall.as_millis();
        let Some(at) = &mut self.at else { return (Timestamp::default(), wall) };
        let passed = now.saturating_duration_since(at.looked).as_millis() as u64;
        // A clock that is set back is believed: it keeps what there is.
        at.time = wall.min(at.time.saturating_add(2 * passed));
        at.looked = now;
        (Timestamp::from_millis(at.time), wall - at.time)
    }

    /// Whether the mark is to be moved, to this.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        let at = self.at.as_mut()?;
        let due = at.marked.is_none_or(|marked| now.saturating_duration_since(marked) >= MARK);
        due.then(|| {
            at.marked = Some(now);
            at.time
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;
    const THEN: u64 = 20_000 * DAY;

    fn wall(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn a_leap_is_made_up_at_twice_the_speed_of_time() {
        let began = Instant::now();
        let mut aging = Aging::default();
        aging.begin(Some(THEN), wall(THEN + DAY), began);
        assert_eq!(aging.look(wall(THEN + DAY), began), (wall(THEN + DAY), 0), "a day without a server is believed");
        // Ninety days in a second, and then an hour.
        let second = began + Duration::from_secs(1);
        let leapt = THEN + DAY + 1000 + 90 * DAY;
        assert_eq!(aging.look(wall(leapt), second), (wall(THEN + DAY + 2000), 90 * DAY - 1000));
        let hour = second + Duration::from_secs(3600);
        let (time, ahead) = aging.look(wall(leapt + 3_600_000), hour);
        assert_eq!((time, ahead), (wall(THEN + DAY + 2000 + 7_200_000), 90 * DAY - 1000 - 3_600_000));
        // Set right again.
        assert_eq!(aging.look(wall(THEN + DAY + 3_601_000), hour), (wall(THEN + DAY + 3_601_000), 0));
    }

    #[test]
    fn a_restart_does_not_make_a_leap_true() {
        let now = Instant::now();
        let mut aging = Aging::default();
        aging.begin(Some(THEN), wall(THEN + 90 * DAY), now);
        assert_eq!(aging.look(wall(THEN + 90 * DAY), now).0, wall(THEN));
        assert_eq!(aging.due(now), Some(THEN), "and says so to the next");
        assert_eq!(aging.due(now + MARK / 2), None);
        assert_eq!(aging.due(now + MARK), Some(THEN));
        // Nothing is known of an empty journal, and nothing in it can be removed.
        aging.begin(None, wall(THEN), now);
        assert_eq!(aging.look(wall(THEN), now), (wall(THEN), 0));
    }
}
