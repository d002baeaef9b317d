//! Room on the disk: before there is none, events are refused, so that commits that began can end and an operator can still move.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
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
}

/// What is kept free where nobody said how much: this, or a twentieth of a small disk.
const RESERVE: u64 = 256 << 20;

impl Disk {
    pub(crate) fn new(data: PathBuf, reserve: Bytes) -> Self {
        let low = AtomicBool::new(false);
        let disk = Self { data, reserve: reserve.0, free: Gauge::default(), reserved: Gauge::default(), low };
        disk.look();
        disk
    }

    /// Looks how much is left. Where the system does not say, there is as much as one likes.
    pub(crate) fn look(&self) {
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

    /// Whether an event may come.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if !self.is_low() {
            return Ok(());
        }
        // Somebody has to make room, so there is no hurry.
        Err(Problem::new(Refusal::Unavailable).with_detail(FULL).with_retry_after(10))
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
            assert_eq!(disk.check().is_err(), low);
        }
        assert_eq!((disk.free(), disk.reserved()), (810, 800));
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
