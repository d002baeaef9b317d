//! A request in steps: as far as it gets without waiting, then again when what it waits for is there.
//!
//! ```text
//!  worker.js  begin ──► poll ──► Pending: the number of the task ──► await ──► resume ──► poll ──► …
//!                        └─────► Ready: the answer
//! ```
//!
//! `wasm-bindgen` can await promises from within Rust, at the price of two closures, two finalisers and a microtask for each. Here
//! JavaScript awaits the promise, which costs nothing more, and calls again. Whatever else a request waits for (a timer, several things at once) has a
//! waker that works: to wake the task fulfils a promise that JavaScript awaits meanwhile.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use wasm_bindgen::JsValue;
use worker::{
    js_sys::{Promise, futures::JsFuture},
    web_sys::Response,
};

use crate::{glue, platform::now, tasks::Tasks};

/// A request under way.
type Task = Pin<Box<dyn Future<Output = Result<Response, JsValue>>>>;

thread_local! {
    static TASKS: RefCell<Tasks<Task>> = const { RefCell::new(Tasks::new()) };
    static STEP: Cell<Step> = const { Cell::new(Step::None) };
}

/// What the step that is being taken knows of its wait.
enum Step {
    /// No step is being taken: whoever waits has a waker that works.
    None,
    /// Nothing was asked for yet.
    Free,
    /// Something was asked for.
    Asked,
    /// What was asked for before the step is there.
    Given(Result<JsValue, JsValue>),
}

/// Wakes a task. Most tasks never make a copy of it: they wait for nothing but what JavaScript awaits for them.
struct Alarm {
    task: u32,
    rang: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::Relaxed);
        glue::wake(self.task);
    }
}

/// Says which instance of the isolate this is.
pub(crate) fn start(instance: u32) {
    TASKS.with_borrow_mut(|tasks| tasks.start(instance));
}

/// Begins with a request. Returns the answer, or the number of the task that waits.
pub(crate) fn begin(task: impl Future<Output = Result<Response, JsValue>> + 'static) -> JsValue {
    let now = now().as_millis();
    while let Some((number, given_up)) = TASKS.with_borrow_mut(|tasks| tasks.given_up(now)) {
        // What may wake it is forgotten with it.
        glue::wake(number);
        drop(given_up);
    }
    let number = TASKS.with_borrow_mut(|tasks| tasks.begin(now));
    step(number, Box::pin(task), Step::Free)
}

/// Goes on with a request. `value` is what came of what it waited for, and `because` says how: 0 fulfilled, 1 rejected, 2 woken.
pub(crate) fn resume(number: u32, value: JsValue, because: u32) -> JsValue {
    let Some(task) = TASKS.with_borrow_mut(|tasks| tasks.take(number)) else {
        // After a failure the Worker was started anew, and knows nothing of what was under way; or it took too long.
        return Promise::reject(&JsValue::from_str("no such task")).into();
    };
    let given = match because {
        0 => Step::Given(Ok(value)),
        1 => Step::Given(Err(value)),
        _ => Step::Free,
    };
    step(number, task, given)
}

fn step(number: u32, mut task: Task, given: Step) -> JsValue {
    let alarm = Arc::new(Alarm { task: number, rang: AtomicBool::new(false) });
    STEP.set(given);
    let polled = task.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&alarm))));
    STEP.set(Step::None);
    match polled {
        Poll::Ready(answer) => answer.map_or_else(|error| Promise::reject(&error).into(), JsValue::from),
        Poll::Pending => {
            if Arc::strong_count(&alarm) > 1 || alarm.rang.load(Ordering::Relaxed) {
                glue::sleep(number, alarm.rang.load(Ordering::Relaxed));
            }
            TASKS.with_borrow_mut(|tasks| tasks.leave(number, task));
            number.into()
        }
    }
}

/// What a promise is fulfilled with, or rejected.
pub(crate) fn settled(promise: Promise) -> Settled {
    Settled { promise, state: State::New }
}

/// A promise that is awaited.
pub(crate) struct Settled {
    promise: Promise,
    state: State,
}

enum State {
    New,
    /// JavaScript awaits it, and takes the next step with what comes of it.
    Stepped,
    Awaited(JsFuture),
}

impl Future for Settled {
    type Output = Result<JsValue, JsValue>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match (&self.state, STEP.replace(Step::None)) {
            (State::Stepped, Step::Given(result)) => {
                STEP.set(Step::Free);
                return Poll::Ready(result);
            }
            // Also if something else has woken the task, while this is not there yet.
            (State::New | State::Stepped, Step::Free) => {
                glue::wait(&self.promise);
                STEP.set(Step::Asked);
                self.state = State::Stepped;
                return Poll::Pending;
            }
            // The second thing that is waited for at a time, or no step at all.
            (_, step) => STEP.set(step),
        }
        if !matches!(self.state, State::Awaited(_)) {
            self.state = State::Awaited(JsFuture::from(self.promise.clone()));
        }
        let State::Awaited(future) = &mut self.state else { unreachable!("it was just set") };
        Pin::new(future).poll(cx)
    }
}
