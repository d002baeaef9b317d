//! A thread that does a little again and again, until it is told to end.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// The thread. Dropped, it ends: at once if it rests, otherwise once what it is at is done.
#[derive(Debug)]
pub(crate) struct Background {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// Whether the thread is to end: for who does much at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    pub(crate) fn is_asked_for(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rests for so long, or until the thread is to end. Says whether it is.
    fn is_asked_for_within(&self, rest: Duration) -> bool {
        let (flag, signal) = &*self.0;
        let asked = flag.lock().unwrap_or_else(PoisonError::into_inner);
        *signal.wait_timeout_while(asked, rest, |asked| !*asked).unwrap_or_else(PoisonError::into_inner).0
    }

    fn ask(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

impl Background {
    /// `begin` is called in the thread, and makes what is done again and again, first after `rest`. That says how long to rest until
    /// the next time, and is dropped in the thread at its end.
    pub(crate) fn start<W: FnMut(&Stop) -> Duration>(
        name: &str,
        rest: Duration,
        begin: impl FnOnce() -> W + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Stop::default();
        let thread = std::thread::Builder::new().name(name.into()).stack_size(512 << 10).spawn({
            let stop = stop.clone();
            move || {
                let (mut work, mut rest) = (begin(), rest);
                while !stop.is_asked_for_within(rest) {
                    rest = work(&stop);
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.ask();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook, and takes nothing with it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use super::Background;

    const NEVER: Duration = Duration::from_secs(100_000);

    #[test]
    fn it_works_until_it_is_dropped_and_lets_go_of_what_it_had() {
        let (had, count) = (Arc::new(()), Arc::new(AtomicU32::new(0)));
        let (told, heard) = mpsc::channel();
        let thread = Background::start("test", Duration::ZERO, {
            let (had, count) = (Arc::clone(&had), Arc::clone(&count));
            move || {
                move |_| {
                    let _ = &had;
                    let _ = told.send(count.fetch_add(1, Ordering::Relaxed));
                    Duration::from_millis(1)
                }
            }
        });
        for expected in 0..3 {
            assert_eq!(heard.recv(), Ok(expected));
        }
        drop(thread.expect("started"));
        assert_eq!(Arc::strong_count(&had), 1);
        let done = count.load(Ordering::Relaxed);
        assert_eq!(heard.iter().last().map_or(done, |last| last + 1), done, "nothing comes after its end");
    }

    #[test]
    fn neither_a_rest_nor_long_work_that_asks_holds_up_its_end() {
        let worked = Arc::new(AtomicU32::new(0));
        let rests = Background::start("test", NEVER, {
            let worked = Arc::clone(&worked);
            move || {
                move |_| {
                    worked.fetch_add(1, Ordering::Relaxed);
                    NEVER
                }
            }
        });
        drop(rests.expect("started"));
        assert_eq!(worked.load(Ordering::Relaxed), 0, "it rests");
        let (told, heard) = mpsc::channel();
        let works = Background::start("test", Duration::ZERO, || {
            move |stop| {
                let _ = told.send(());
                while !stop.is_asked_for() {
                    std::thread::yield_now();
                }
                NEVER
            }
        });
        heard.recv().expect("it works");
        // Or this lasts for ever.
        drop(works.expect("started"));
    }
}
