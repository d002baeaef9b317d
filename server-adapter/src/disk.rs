//! Room on the disk: before there is none, events are refused, so that commits that began can end and an operator can still move.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use firsthop_intake::{Problem, Refusal};

use crate::{metrics::Gauge, settings::Bytes};

/// The file system that the data folder is on.
#[derive(Debug)]
pub(crate) struct Disk {
    data: PathBuf,
    /// As set; 0 leaves it to us.
    reserve: u64,
    free: Gauge,
    reserved: Gauge,
    low: AtomicBool,
    /// Bytes of bodies that were let in since the last look.
    taken: AtomicU64,
}

/// What is kept free where nobody said how much: this, or a twentieth of a small disk.
const RESERVE: u64 = 256 << 20;
/// What a byte of a body may take of the disk at most, about: in the journal and its log, and as text in the events table and its log.
const GROWS: u64 = 8;

impl Disk {
    pub(crate) fn new(data: PathBuf, reserve: Bytes) -> Self {
        let low = AtomicBool::new(false);
        let (free, reserved, taken) = (Gauge::default(), Gauge::default(), AtomicU64::new(0));
        let disk = Self { data, reserve: reserve.0, free, reserved, low, taken };
        disk.look();
        disk
    }

    /// Looks how much is left. Where the system does not say, there is as much as one likes.
    pub(crate) fn look(&self) {
        self.taken.store(0, Relaxed);
        #[cfg(target_os = "linux")]
        match rustix::fs::statvfs(&self.data) {
            Ok(disk) => {
                self.see(disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
            }
            Err(error) => tracing::debug!(%error, "the disk does not say how much is left"),
        }
    }

    fn see(&self, free: u64, whole: u64) {
        let reserve = if self.reserve > 0 { self.reserve } else { RESERVE.min(whole / 20) };
        self.free.set(free);
        self.reserved.set(reserve);
        // A little more than the reserve ends it: else it would come and go with every file that is tidied up.
        let most = if self.is_low() { reserve.saturating_add(reserve / 8) } else { reserve };
        let low = free < most;
        if low != self.low.swap(low, Relaxed) {
            if low {
                tracing::error!(free, reserve, "the disk is nearly full: no events are taken");
            } else {
                tracing::info!(free, reserve, "there is room on the disk again");
            }
        }
    }

    /// Whether what is left is the reserve.
    pub(crate) fn is_low(&self) -> bool {
        self.low.load(Relaxed)
    }

    /// Whether a body of so many bytes may come, while others hold so much memory. Between two looks of the clock's a fast disk could take all
    /// of the reserve: so what is let in looks as well, the sooner the less is left.
    pub(crate) fn check(&self, bytes: usize, under_way: usize) -> Result<(), Problem> {
        let full = |seconds| Err(Problem::new(Refusal::Unavailable).with_detail(FULL).with_retry_after(seconds));
        if self.is_due(bytes as u64) {
            self.look();
        }
        // Somebody has to make room, so there is no hurry.
        if self.is_low() {
            return full(10);
        }
        // What is under way is to be written yet: to the log, and to the file.
        let fits = self.reserved() == 0 || self.spare() >= 2 * under_way as u64;
        if fits { Ok(()) } else { full(1) }
    }

    /// Whether what was let in since the last look may have taken half of what is left.
    fn is_due(&self, bytes: u64) -> bool {
        let taken = self.taken.fetch_add(bytes, Relaxed).saturating_add(bytes);
        !self.is_low() && self.reserved() > 0 && taken.saturating_mul(2 * GROWS) > self.spare()
    }

    /// Without the reserve.
    fn spare(&self) -> u64 {
        self.free().saturating_sub(self.reserved())
    }

    /// How many bytes of the journal may be copied to this disk. A quarter of the reserve is not for copies: without any, no sink could note how
    /// far it is, and retention could remove nothing.
    pub(crate) fn room_for_copies(&self) -> u64 {
        self.look();
        if self.reserved() == 0 { u64::MAX } else { self.free().saturating_sub(self.reserved() / 4) / GROWS }
    }

    pub(crate) fn free(&self) -> u64 {
        self.free.get()
    }

    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.get()
    }
}

pub(crate) const FULL: &str = "the disk is nearly full";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_kept_and_more_than_it_ends_the_want() {
        let disk = Disk::new("/nowhere".into(), Bytes(800));
        for (free, low) in
            [(5000, false), (800, false), (799, true), (850, true), (899, true), (900, false), (810, false)]
        {
            disk.see(free, 10_000);
            assert_eq!(disk.is_low(), low, "{free}");
            assert_eq!(disk.check(0, 0).is_err(), low);
        }
        assert_eq!((disk.free(), disk.reserved()), (810, 800));
    }

    /// At the rate of a fast disk the reserve is written in less time than there is between two looks.
    #[test]
    fn the_less_is_left_the_sooner_it_looks_and_the_less_may_be_under_way() {
        let disk = Disk::new("/nowhere".into(), Bytes(1000));
        disk.see(1000 + 1600, 10_000);
        assert!(!disk.is_due(60) && !disk.is_due(40) && disk.is_due(1), "a hundred bytes may have taken half of it");
        disk.look();
        assert!(!disk.is_due(100), "it has looked");
        disk.see(1000 + 160, 10_000);
        disk.look();
        assert!(!disk.is_due(10) && disk.is_due(1));
        assert!(disk.check(0, 80).is_ok() && disk.check(0, 81).is_err(), "what is under way is to be written yet");
        assert!(!disk.is_low(), "and that alone is over in a moment");
        // Where the system says nothing, nothing is refused.
        let disk = Disk::new("/nowhere".into(), Bytes(1000));
        assert!(disk.check(1 << 20, 1 << 30).is_ok() && disk.room_for_copies() == u64::MAX);
    }

    #[test]
    fn the_last_of_the_reserve_is_for_cursors() {
        let disk = Disk::new("/nowhere".into(), Bytes(800));
        for (free, room) in [(5000, 600), (280, 10), (208, 1), (207, 0), (0, 0)] {
            disk.see(free, 10_000);
            assert_eq!(disk.room_for_copies(), room, "{free}");
        }
    }

    #[test]
    fn a_small_disk_is_not_all_reserve() {
        let disk = Disk::new("/nowhere".into(), Bytes(0));
        disk.see(60 << 20, 64 << 20);
        assert_eq!((disk.is_low(), disk.reserved()), (false, (64 << 20) / 20));
        disk.see(1 << 40, 1 << 41);
        assert_eq!(disk.reserved(), RESERVE);
    }
}
