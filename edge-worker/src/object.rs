//! Durable Objects: which one, in which jurisdiction, and one bounded request to it.
//!
//! What this Worker keeps on disk, it keeps in them and nowhere else. So where they are made decides where data rests.

use std::{rc::Rc, time::Duration};

use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use worker::{
    Env,
    js_sys::{Array, Date, Object, Reflect, futures::JsFuture},
    web_sys::{Response, ResponseInit},
    worker_sys::types::{DurableObjectState, DurableObjectStorage},
};

use crate::{
    edge::Edge,
    upstream::{self, Answer},
};

/// How long an object may take to answer: it may have to be woken up, to write, or to ask the server.
const TIMEOUT: Duration = Duration::from_secs(8);

#[wasm_bindgen]
extern "C" {
    /// A binding in `wrangler.toml`. The crate `worker` has no `jurisdiction` for names.
    #[derive(Debug)]
    pub(crate) type Namespace;

    #[wasm_bindgen(method, catch)]
    fn jurisdiction(this: &Namespace, name: &str) -> Result<Namespace, JsValue>;

    #[wasm_bindgen(method, catch, js_name = idFromName)]
    fn id_from_name(this: &Namespace, name: &str) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn get(this: &Namespace, id: &JsValue) -> Result<JsValue, JsValue>;
}

/// The objects of one class, in the jurisdiction that the operator has named.
#[derive(Debug)]
pub(crate) struct Objects(Namespace);

impl Objects {
    /// The namespace of a binding; what is wrong with it is for the operator's log.
    ///
    /// Where a jurisdiction is asked for and not to be had, there are no objects: to make them elsewhere is what it forbids.
    pub(crate) fn bound(env: &Env, binding: &str, jurisdiction: Option<&str>) -> Result<Self, String> {
        let namespace = Reflect::get(env, &binding.into()).ok().filter(JsValue::is_object);
        let namespace: Namespace = namespace
            .ok_or_else(|| format!("{binding} is not bound to a Durable Object: see wrangler.toml"))?
            .unchecked_into();
        let Some(name) = jurisdiction else { return Ok(Self(namespace)) };
        namespace.jurisdiction(name).map(Self).map_err(|_| {
            format!("there is no jurisdiction {name} here: off Cloudflare's network leave JURISDICTION empty")
        })
    }

    /// Posts to the object of this name. Nothing if it did not answer, or not in time.
    pub(crate) async fn post(&self, name: &str, path: &str, body: Option<&[u8]>) -> Option<Answer> {
        let stub = self.0.id_from_name(name).and_then(|id| self.0.get(&id)).ok()?;
        // No host is asked: an object's requests have a URL because requests have one.
        upstream::ask(&stub, &format!("http://object{path}"), &[], body, TIMEOUT).await
    }
}

/// A failure within an object is the platform's: the object then starts anew from what is on disk.
pub(crate) type Result<T, E = JsValue> = std::result::Result<T, E>;

/// What an object has of its own: a database and an alarm.
#[derive(Debug)]
pub(crate) struct Own {
    state: DurableObjectState,
    env: Env,
}

impl Own {
    pub(crate) const fn new(state: DurableObjectState, env: Env) -> Self {
        Self { state, env }
    }

    /// The edge that the object is part of.
    pub(crate) fn edge(&self) -> Option<Rc<Edge>> {
        Edge::get(&self.env)
    }

    fn storage(&self) -> Result<DurableObjectStorage> {
        self.state.storage()
    }

    pub(crate) fn run(&self, query: &str, values: &[JsValue]) -> Result<()> {
        self.storage()?.sql().exec(query, values.iter().collect()).map(drop)
    }

    pub(crate) fn rows(&self, query: &str, values: &[JsValue]) -> Result<Vec<Array>> {
        let rows = self.storage()?.sql().exec(query, values.iter().collect())?.raw();
        rows.into_iter().map(|row| row.map(JsCast::unchecked_into)).collect()
    }

    /// The only value of the first row.
    pub(crate) fn value(&self, query: &str, values: &[JsValue]) -> Result<Option<JsValue>> {
        Ok(self.rows(query, values)?.first().map(|row| row.get(0)).filter(|value| !value.is_null()))
    }

    /// Wakes the object up at this time, and at no other.
    pub(crate) async fn wake_at(&self, at: u64) -> Result<()> {
        let at = Date::new(&JsValue::from_f64(at as f64));
        JsFuture::from(self.storage()?.set_alarm(at, Object::new())?).await.map(drop)
    }

    /// Lets the object sleep until somebody asks it.
    pub(crate) async fn sleep(&self) -> Result<()> {
        JsFuture::from(self.storage()?.delete_alarm(Object::new())?).await.map(drop)
    }
}

/// An object's answer.
pub(crate) fn reply(status: u16, body: Option<&str>) -> Result<JsValue> {
    let init = ResponseInit::new();
    init.set_status(status);
    Response::new_with_opt_str_and_init(body, &init).map(JsValue::from)
}
