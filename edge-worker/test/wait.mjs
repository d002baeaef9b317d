// Waiting for what is to happen, instead of for a time.

import { setTimeout as sleep } from 'node:timers/promises';

/** Waits until `probe` returns something true and returns that, or throws with what it was waiting for. */
export async function until(what, probe, { within = 60_000, every = 25 } = {}) {
  const deadline = Date.now() + within;
  let last;
  for (;;) {
    try {
      const value = await probe();
      if (value) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`waited ${within} ms for ${what}; last: ${last?.stack ?? last}`);
    await sleep(every);
  }
}
