//! Durable Objects: which one, in which jurisdiction, and one bounded request to it.
//!
//! What this Worker keeps on disk, it keeps in them and nowhere else. So where they are made decides where data rests.

use std::time::Duration;

use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use worker::{Env, js_sys::Reflect};

use crate::upstream::{self, Answer};

/// How long an object may take to answer: it may have to be woken up, and it may have to write.
const TIMEOUT: Duration = Duration::from_secs(5);

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
