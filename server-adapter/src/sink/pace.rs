//! How fast a sink goes: what gathers, and how long it waits after a failure. What it leaves to acknowledgements: [`way`](super::way).

use std::time::Duration;

use super::batch::Batch;
use crate::tenants::random_bytes;

/// After a batch with fewer events than this, which has all that there was, the next one begins no sooner than [`GATHER`] after it: a few
/// rows cost nearly as many pages as many do. The first event after a silence waits for nothing.
const SMALL: usize = 4096;
pub(super) const GATHER: Duration = Duration::from_millis(100);
/// The first pause after a failure, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether what comes after this batch may gather first. After one that is full there is more already, however few its events.
pub(super) fn gathers(batch: &Batch) -> bool {
    batch.len() < SMALL && !batch.is_full()
}

/// The journal keeps everything, so there is time: twice as long at every failure, up to half a minute, and as long as the other side
/// asked for. Shaken by a quarter, so that many sinks do not come back to one place in one moment.
pub(super) fn pause(failures: u32, after: Option<Duration>) -> Duration {
    let pause = (PAUSE * 2_u32.saturating_pow(failures.min(16))).min(LONGEST_PAUSE);
    let mut random = [0];
    random_bytes(&mut random);
    pause.mul_f64(0.75 + f64::from(random[0]) / 512.0).max(after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::{
        journal::Seals,
        sink::batch::{Limits, Position},
    };

    /// Frames whose events are erased are the fewest events for the most bytes.
    #[test]
    fn only_after_a_batch_that_has_all_there_is_more_gathers() {
        let journal = Connection::open_in_memory().unwrap();
        journal
            .execute_batch(
                "CREATE TABLE frames (id INTEGER PRIMARY KEY, received_ms, region, annotation, accepted, body, sum);
                 CREATE TABLE tombstones (frame INTEGER PRIMARY KEY, erased);
                 INSERT INTO frames SELECT column1, 0, 'eu', zeroblob(100), NULL, x'', 0 FROM (VALUES (1), (2), (3), (4), (5));",
            )
            .unwrap();
        let limits = Limits { events: 100, bytes: 300 };
        let mut batch = Batch::default();
        let mut read = |frame| {
            batch.read(&journal, Position { frame, ..Position::default() }, limits, &Seals::default()).unwrap();
            (batch.frames(), gathers(&batch))
        };
        assert_eq!(read(0), (3, false), "full by its bytes");
        assert_eq!(read(3), (2, true), "all that there is");
        assert_eq!(read(2), (3, false), "all that there is, and as much as it may hold");
    }
}
