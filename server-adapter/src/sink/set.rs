//! The sinks of one tenant.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::AtomicBool},
    time::Instant,
};

use firsthop_core::TenantId;
use tokio::sync::watch;

use super::{
    plan::{Kind, Plan},
    records::ORDERED,
    runner::Runner,
    spec::SinkSpec,
};
use crate::{Error, disk::Disk, journal::Follower};

/// All sinks of a tenant, each on its own.
#[derive(Debug)]
pub(crate) struct Sinks {
    tenant: TenantId,
    folder: PathBuf,
    journal: PathBuf,
    follower: Follower,
    disk: Arc<Disk>,
    held: RwLock<Held>,
    /// Taken by who starts and ends them.
    applies: Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    /// What the settings ask for.
    wanted: Vec<SinkSpec>,
    runners: Vec<Arc<Runner>>,
    /// Who hangs since its settings changed: the next of its name begins once it has ended.
    left: Vec<Arc<Runner>>,
}

impl Held {
    /// The names of sinks that are asked for and do not run.
    fn missing(&self) -> impl Iterator<Item = &str> {
        let runs = |name: &str| self.runners.iter().any(|runner| runner.name() == name);
        self.wanted.iter().map(SinkSpec::name).filter(move |name| !runs(name))
    }

    /// The one of this name that hangs.
    fn hanging(&self, name: &str) -> Option<&Runner> {
        self.left.iter().find(|runner| runner.name() == name).map(|runner| &**runner)
    }

    /// One that does not run has had what the one before it had, if that is known, and nothing otherwise.
    fn confirmed(&self) -> i64 {
        let missing = self.missing().map(|name| self.hanging(name).map_or(0, Runner::confirmed));
        self.runners.iter().map(|runner| runner.confirmed()).chain(missing).min().unwrap_or(0)
    }
}

impl Sinks {
    /// Opens the events table and starts to deliver, there and to the others. That one of those cannot be opened is in the log, and no
    /// reason to take no events.
    pub(crate) fn open(
        tenant: TenantId,
        folder: &Path,
        journal: PathBuf,
        events: PathBuf,
        specs: &[SinkSpec],
        follower: Follower,
        disk: Arc<Disk>,
    ) -> Result<Self, Error> {
        let plan = Plan {
            tenant,
            folder: folder.to_owned(),
            journal: journal.clone(),
            kind: Kind::Events(events),
            disk: Arc::clone(&disk),
            was_open: AtomicBool::default(),
            doubt: Default::default(),
        };
        // Also where no sink writes to them any more: commands read them, and an erasure must find every column.
        if plan.has_records()
            && let Err(failure) = plan.records(ORDERED)
        {
            tracing::error!(%tenant, error = failure.what, "what sinks have noted cannot be opened");
        }
        let opened = plan.open(watch::Sender::new(false).subscribe()).map_err(|failure| Error::Fault(failure.what))?;
        let table = Runner::start(plan, follower.clone(), Some(opened))?;
        let sinks = Self {
            tenant,
            folder: folder.to_owned(),
            journal,
            follower,
            disk,
            held: RwLock::new(Held { runners: vec![table], ..Held::default() }),
            applies: Mutex::default(),
        };
        sinks.apply(specs);
        Ok(sinks)
    }

    /// Ends the sinks that are not asked for any more or were changed, and starts those that are new. A changed one goes on where it
    /// was. Blocks for a moment.
    pub(crate) fn apply(&self, specs: &[SinkSpec]) {
        let _alone = self.applies.lock().unwrap_or_else(PoisonError::into_inner);
        self.change(specs);
    }

    /// Starts those that are asked for and could not be started before.
    pub(crate) fn start_missing(&self) {
        let _alone = self.applies.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            if held.missing().all(|name| held.hanging(name).is_some_and(|runner| !runner.has_ended())) {
                return;
            }
            held.wanted.clone()
        };
        self.change(&wanted);
    }

    fn change(&self, specs: &[SinkSpec]) {
        let is_asked = |runner: &Arc<Runner>| match &runner.plan().kind {
            Kind::Events(_) => true,
            Kind::Asked(spec) => specs.contains(spec),
        };
        let (mut stay, go): (Vec<_>, Vec<_>) = self.all().into_iter().partition(is_asked);
        let mut left = self.held.read().unwrap_or_else(PoisonError::into_inner).left.clone();
        left.retain(|runner| !runner.has_ended());
        go.iter().for_each(|runner| runner.stop());
        left.extend(go.into_iter().filter(|runner| !runner.close(Instant::now())));
        for spec in specs {
            let name = spec.name();
            if stay.iter().any(|runner| runner.name() == name) {
                continue;
            }
            if left.iter().any(|runner| runner.name() == name) {
                tracing::error!(tenant = %self.tenant, sink = name, "a sink hangs; its new settings hold once it has ended");
                continue;
            }
            let plan = Plan {
                tenant: self.tenant,
                folder: self.folder.clone(),
                journal: self.journal.clone(),
                kind: Kind::Asked(Box::new(spec.clone())),
                disk: Arc::clone(&self.disk),
                was_open: AtomicBool::default(),
                doubt: Default::default(),
            };
            match Runner::start(plan, self.follower.clone(), None) {
                Ok(runner) => stay.push(runner),
                Err(error) => {
                    tracing::error!(tenant = %self.tenant, sink = name, %error, "a sink cannot be started; again in a moment");
                }
            }
        }
        *self.held.write().unwrap_or_else(PoisonError::into_inner) =
            Held { wanted: specs.to_vec(), runners: stay, left };
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Runner>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).runners.clone()
    }

    /// The last frame that no sink will ask for again: what comes after it must stay in the journal.
    pub(crate) fn confirmed(&self) -> i64 {
        self.held.read().unwrap_or_else(PoisonError::into_inner).confirmed()
    }

    /// Once the journal is closed: lets them catch up until `deadline`, and ends them. Blocks.
    pub(crate) fn close(&self, deadline: Instant) {
        for runner in self.all() {
            runner.close(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Settings,
        journal::{Journal, Seals},
        settings::Bytes,
    };

    fn runner(name: &str, confirmed: i64, follower: Follower) -> Arc<Runner> {
        let plan = Plan {
            tenant: TenantId::new(1),
            folder: PathBuf::new(),
            journal: PathBuf::new(),
            kind: Kind::Asked(Box::new(spec(name))),
            disk: Arc::new(Disk::new("/nowhere".into(), Bytes(0))),
            was_open: AtomicBool::default(),
            doubt: Default::default(),
        };
        Runner::at(plan, follower, confirmed)
    }

    fn spec(name: &str) -> SinkSpec {
        toml::from_str(&format!("kind = 'ndjson'\nname = '{name}'")).expect("a sink")
    }

    /// What retention may remove is what each sink has that is asked for: one that lags, one that hangs, one that could not be started.
    #[test]
    fn nobody_who_is_asked_for_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = folder.path().join("journal.db");
        let journal = Journal::open(TenantId::new(1), journal, &Settings::default(), Seals::default()).expect("opens");
        let held = |wanted: &[&str], runners: &[(&str, i64)], left: &[(&str, i64)]| {
            let one = |(name, at): &(&str, i64)| runner(name, *at, journal.follower());
            let made = |list: &[(&str, i64)]| list.iter().map(one).collect();
            let wanted = wanted.iter().map(|name| spec(name)).collect();
            Held { wanted, runners: made(runners), left: made(left) }.confirmed()
        };
        assert_eq!(held(&[], &[], &[]), 0, "nothing is known yet");
        assert_eq!(held(&[], &[("table", 9)], &[]), 9);
        assert_eq!(held(&["a", "b"], &[("table", 9), ("a", 5), ("b", 7)], &[]), 5, "the last of them");
        assert_eq!(
            held(&["a", "b"], &[("table", 9), ("a", 5)], &[]),
            0,
            "one that could not be started has had nothing"
        );
        assert_eq!(held(&["a", "b"], &[("table", 9), ("a", 5)], &[("b", 3)]), 3, "one that hangs has what it had");
        assert_eq!(held(&["a", "b"], &[("table", 9), ("a", 5)], &[("b", 8)]), 5);
        assert_eq!(
            held(&["a"], &[("table", 9), ("a", 5)], &[("b", 3)]),
            5,
            "one that is not asked for any more waits for nothing"
        );
        assert_eq!(
            held(&["a"], &[("table", 9), ("a", 5)], &[("a", 3)]),
            5,
            "the next of its name goes on where it was"
        );
    }
}
