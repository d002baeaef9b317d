// What workerd starts. Rust decides (src/), the glue does (glue.js); here is only how a request goes from one to the other.

// worker-build has made a module of src/, whose entry point has all that Rust exports as methods. That entry point itself would put two proxies and
// a promise of Rust's around each request: it is not used.
import Entrypoint, * as made from 'worker-build';

const rust = Entrypoint.prototype;
const { WOKEN, takeAwaited } = rust.glue();

/** Why a step is taken: the numbers stand in steps.rs as well. */
const [FULFILLED, REJECTED, WOKE] = [0, 1, 2];

/** Takes one step after the other, each as far as it gets without waiting (src/steps.rs). */
async function answer(request, env, ctx) {
  try {
    let step = rust.begin(request, env, ctx);
    while (typeof step === 'number') {
      let value;
      let because = FULFILLED;
      try {
        value = await takeAwaited();
      } catch (error) {
        [value, because] = [error, REJECTED];
      }
      step = value === WOKEN ? rust.resume(step, undefined, WOKE) : rust.resume(step, value, because);
    }
    // What failed is a promise that says why.
    return step instanceof Response ? step : await step;
  } catch (error) {
    return failed(error);
  }
}

/** If the Worker itself fails, the page keeps what it sent, and the next request finds the Worker started anew. */
function failed(error) {
  console.error('Critical', error);
  return new Response(null, { status: 503, headers: { 'retry-after': '1', 'access-control-allow-origin': '*', 'cache-control': 'no-store' } });
}

export default {
  fetch(request, env, ctx) {
    const answered = answer(request, env, ctx);
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
