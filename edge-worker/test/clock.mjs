// A clock that a test moves: hours pass in no time, and a moment lasts as long as a slow machine needs.

import { startWorker } from './worker.mjs';

/** A module that stands before the Worker's: it moves `Date.now`, and lets alarms ring by it. */
const entry = (time) => `
  import * as built from './index.js';
  let { ahead, still } = ${JSON.stringify(time)};
  const real = Date.now.bind(Date);
  Date.now = () => still || real() + ahead;
  /** workerd's alarms know its own clock only, so they look often whether it is time. */
  const LOOK = 50;
  const moved = (Class) => class extends Class {
    #due; #storage;
    constructor(state, env) {
      const { storage } = state;
      const around = {
        sql: storage.sql,
        setAlarm: (at, options) => {
          this.#due = at.getTime();
          return storage.setAlarm(real() + LOOK, options);
        },
        deleteAlarm: (options) => storage.deleteAlarm(options),
      };
      super({ storage: around, abort: (why) => state.abort(why) }, env);
      this.#storage = storage;
    }
    alarm() {
      return Date.now() < this.#due ? this.#storage.setAlarm(real() + LOOK) : super.alarm();
    }
  };
  export default {
    fetch(request, env, context) {
      const { pathname, search } = new URL(request.url);
      if (pathname !== '/clock') return built.default.fetch(request, env, context);
      ({ ahead, still } = JSON.parse(decodeURIComponent(search.slice(1))));
      return new Response();
    },
  };
  export const Spool = moved(built.Spool);
  export const Leases = moved(built.Leases);`;

/** The clock of one edge, and of the stand-ins for servers that are to go by it. */
export class Clock {
  #ahead = 0;
  #still = 0;

  now = () => this.#still || Date.now() + this.#ahead;

  start = async (variables, options) => {
    const edge = await startWorker(variables, { ...options, entry: entry(this.#time) });
    this.#edge = edge;
    return edge;
  };

  #edge;

  get #time() {
    return { ahead: this.#ahead, still: this.#still };
  }

  /** Lets so many milliseconds pass. */
  async pass(ms) {
    this.#ahead += ms;
    if (this.#still) this.#still += ms;
    await this.#tell();
  }

  /** Stands still until it is told to `pass`, and then still. */
  async stop() {
    this.#still = this.now();
    await this.#tell();
  }

  async #tell() {
    if (!this.#edge) return;
    const answer = await fetch(`${this.#edge.url}/clock?${encodeURIComponent(JSON.stringify(this.#time))}`);
    if (!answer.ok) throw new Error(`the clock: ${answer.status}`);
    await answer.arrayBuffer();
  }
}
