//! Threads that serve connections, each with a runtime of its own.
//!
//! A connection stays where it is: what it has in a processor's cache, who waits for it and its timers are one thread's. One runtime with
//! several threads shares all of that: it polls what is ready wherever there is time, and small requests cost more to hand over than to answer.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

use crate::journal::Lane;

/// The threads that serve.
#[derive(Debug)]
pub(crate) struct Lanes {
    first: Thread,
    others: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    runtime: Handle,
    /// Its connections.
    open: Arc<AtomicUsize>,
    /// The thread ends with this.
    _stop: oneshot::Sender<()>,
}

/// One connection of a thread's.
struct One(Arc<AtomicUsize>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Lanes {
    /// So many; 0: one for each processor.
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let threads = if threads > 0 { threads } else { std::thread::available_parallelism().map_or(1, usize::from) };
        Ok(Self {
            first: Thread::start()?,
            others: (1..threads).map(|_| Thread::start()).collect::<std::io::Result<_>>()?,
        })
    }

    /// The one that has the fewest connections.
    fn idlest(&self) -> &Thread {
        let open = |thread: &Thread| thread.open.load(Relaxed);
        self.others.iter().fold(&self.first, |least, thread| if open(thread) < open(least) { thread } else { least })
    }

    /// Serves a connection on the thread that has the fewest.
    pub(super) fn spawn<F>(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(std::io::Result<tokio::net::TcpStream>) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let thread = self.idlest();
        thread.open.fetch_add(1, Relaxed);
        let one = One(Arc::clone(&thread.open));
        thread.runtime.spawn(async move {
            let _one = one;
            serve(tokio::net::TcpStream::from_std(stream)).await;
        });
    }
}

impl Thread {
    fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name("serve".into()).spawn(move || {
            Lane::enter();
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, open: Arc::default(), _stop: stop })
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, sync::mpsc, thread::ThreadId};

    use super::*;

    /// A connection that is open until the sender is dropped, and the thread that serves it.
    fn serve(lanes: &Lanes) -> (ThreadId, oneshot::Sender<()>, mpsc::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let ((told, where_to), (open, until), (ended, end)) = (mpsc::channel(), oneshot::channel(), mpsc::channel());
        lanes.spawn(stream, move |stream| async move {
            let _ended = ended;
            stream.unwrap().writable().await.unwrap();
            told.send(std::thread::current().id()).unwrap();
            let _ = until.await;
        });
        (where_to.recv().unwrap(), open, end)
    }

    #[test]
    fn a_connection_goes_where_there_are_fewest() {
        let lanes = Lanes::start(3).unwrap();
        let of = |lanes: &Lanes| {
            let threads = std::iter::once(&lanes.first).chain(&lanes.others);
            threads.map(|thread| thread.open.load(Relaxed)).collect::<Vec<_>>()
        };
        let connections: Vec<_> = (0..6).map(|_| serve(&lanes)).collect();
        assert_eq!(of(&lanes), [2, 2, 2]);
        let (busy, others): (Vec<_>, Vec<_>) = {
            let first = connections[0].0;
            connections.into_iter().partition(|(thread, ..)| *thread == first)
        };
        let left = busy[0].0;
        for (_, open, end) in busy {
            drop(open);
            assert!(end.recv().is_err(), "it has ended");
        }
        while of(&lanes).iter().sum::<usize>() > 4 {
            std::thread::yield_now();
        }
        assert_eq!(serve(&lanes).0, left);
        drop(others);
    }
}
