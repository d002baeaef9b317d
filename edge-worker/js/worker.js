// What workerd starts. Rust decides (src/), the glue does (glue.js); here is only how a request goes from one to the other.

// worker-build has made a module of src/, whose entry point has all that Rust exports as methods. That entry point itself would put two proxies and
// a promise of Rust's around each request: it is not used.
import Entrypoint, * as made from 'worker-build';

const rust = Entrypoint.prototype;
const { WOKEN, headOf, takeAwaited } = rust.glue();

/** Takes one step after the other, each as far as it gets without waiting (src/steps.rs). Not an async function: that would be a promise more for each step. */
function answer(request, env, ctx) {
  return new Promise((resolve, reject) => {
    const go = (take) => {
      try {
        const step = take();
        if (typeof step !== 'number') return resolve(step);
        takeAwaited().then(
          (value) => go(() => (value === WOKEN ? rust.resume(step, undefined, 2) : rust.resume(step, value, 0))),
          (error) => go(() => rust.resume(step, error, 1)),
        );
      } catch (error) {
        reject(error);
      }
    };
    go(() => rust.begin(request, headOf(request), env, ctx));
  });
}

/** If the Worker itself fails, the page keeps what it sent, and the next request finds the Worker started anew. */
function failed(error) {
  console.error('Critical', error);
  return new Response(null, { status: 503, headers: { 'retry-after': '1', 'access-control-allow-origin': '*', 'cache-control': 'no-store' } });
}

export default {
  fetch(request, env, ctx) {
    const answered = answer(request, env, ctx).catch(failed);
    // To the end, even if the client has gone: a page that closes has often just sent its last events.
    ctx.waitUntil(answered);
    return answered;
  },
};

/** A Durable Object of Rust's. After a failure Rust does not know it any more; then the platform makes it anew, from what it has on disk. */
const durable = (Class) =>
  class {
    constructor(state, env) {
      this.state = state;
      this.object = new Class(state, env);
    }

    call(method, argument) {
      try {
        return this.object[method](argument);
      } catch (error) {
        this.state.abort(error.message);
        throw error;
      }
    }

    fetch(request) {
      return this.call('fetch', request);
    }

    alarm() {
      return this.call('alarm');
    }
  };

export const Spool = durable(made.Spool);
export const Leases = durable(made.Leases);
