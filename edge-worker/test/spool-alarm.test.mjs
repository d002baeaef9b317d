// When the spool wakes up: it asks for no more than one wake-up may, and what waits is not forgotten, whatever becomes of an alarm.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { serverOf } from './pair.mjs';
import { Tenant, newSource } from './server.mjs';
import { until as wait } from './wait.mjs';
import { startWorker } from './worker.mjs';

const until = (what, probe) => wait(what, probe, { within: 120_000 });

const STATUS_TOKEN = 'operators';
/** What Cloudflare lets one invocation ask for on its free plan. */
const SUBREQUESTS = 50;

/** A module that stands before the Worker's: it counts what a wake-up asks for, and does to alarms what it is told at `/alarms?…`. */
const entry = `
  import * as built from './index.js';
  const told = {};
  const seen = { alarms: 0, most: 0, lost: 0, trapped: 0 };
  const ask = globalThis.fetch;
  let asked;
  globalThis.fetch = (...what) => {
    if (asked === undefined) return ask(...what);
    asked += 1;
    seen.most = Math.max(seen.most, asked);
    if (asked > ${SUBREQUESTS}) throw new Error('Too many subrequests.');
    return ask(...what);
  };
  const Bytes = globalThis.Uint8Array;
  /** Longer than any memory: whoever reads it ends in a panic. */
  class Endless extends Bytes {
    get length() {
      globalThis.Uint8Array = Bytes;
      seen.trapped += 1;
      return 2 ** 31;
    }
  }
  export default {
    async fetch(request, env, context) {
      const { pathname, search } = new URL(request.url);
      if (pathname !== '/alarms') return built.default.fetch(request, env, context);
      Object.assign(told, JSON.parse(decodeURIComponent(search.slice(1))));
      return Response.json(seen);
    },
  };
  export const Leases = built.Leases;
  export class Spool extends built.Spool {
    constructor(state, env) {
      const { storage } = state;
      const exec = (...what) => {
        if (asked !== undefined && told.fail) throw new Error(told.fail);
        return storage.sql.exec(...what);
      };
      const around = { sql: { exec }, setAlarm: (...what) => storage.setAlarm(...what), deleteAlarm: (...what) => storage.deleteAlarm(...what) };
      super({ storage: around, abort: (why) => state.abort(why) }, env);
    }
    async alarm() {
      seen.alarms += 1;
      if (told.lose) {
        seen.lost += 1;
        return;
      }
      if (told.trap) {
        told.trap = false;
        globalThis.Uint8Array = Endless;
      }
      asked = 0;
      try {
        return await super.alarm();
      } finally {
        asked = undefined;
      }
    }
  }`;

async function parts(more = {}) {
  const tenant = new Tenant(0xc8);
  const server = await serverOf(tenant);
  const variables = { UPSTREAM: server.url, REGION: 'EU', ENROLMENTS: tenant.enrolment, SPOOL_RETRY_MS: '20', SPOOL_SHARDS: '1', STATUS_TOKEN, ...more };
  const edge = await startWorker(variables, { entry });
  after(() => edge.dispose());
  const send = async (frame) => {
    const answer = await fetch(`${edge.url}/v1/f`, { method: 'POST', body: frame });
    assert.equal(answer.status, 200, await answer.clone().text());
    return answer.json();
  };
  return {
    tenant,
    server,
    edge,
    send,
    alarms: async (told = {}) => (await fetch(`${edge.url}/alarms?${encodeURIComponent(JSON.stringify(told))}`)).json(),
    spool: async () => {
      const answer = await fetch(`${edge.url}/statusz`, { headers: { authorization: `Bearer ${STATUS_TOKEN}` } });
      return (await answer.json()).tenants[0].spool;
    },
    frame: (source, first = 0) => tenant.frame({ source, first, batch: first }),
  };
}

test('no wake-up asks for more than the platform allows, and a long queue is worked off all the same', async () => {
  const { server, send, frame, alarms, spool } = await parts();
  await send(frame(newSource()));
  await server.stop();
  const sources = Array.from({ length: 4 }, newSource);
  const EACH = 40;
  for (let first = 0; first < EACH; first += 1) for (const source of sources) assert.equal((await send(frame(source, first))).spooled, 1);
  const before = await alarms();
  await server.restart();
  await until('all at the server', () => server.stored.length === 1 + EACH * sources.length);
  await until('the last receipt', async () => (await spool()).frames === 0);
  for (const source of sources) {
    const order = server.framesStored().filter((stored) => stored.source === source).map(({ firstSeq }) => firstSeq);
    assert.deepEqual(order, Array.from({ length: EACH }, (_, first) => first));
  }
  const { most, alarms: woken } = await alarms();
  assert.ok(most > 1 && most <= SUBREQUESTS, `${most} at most, in ${woken - before.alarms} wake-ups`);
});

/** A frame waits, the server is back, and the alarm that should deliver it is gone. */
async function lostAlarm() {
  const all = await parts();
  const { server, send, frame, alarms } = all;
  await send(frame(newSource()));
  await server.stop();
  await alarms({ lose: true });
  assert.equal((await send(frame(newSource()))).spooled, 1);
  await until('the alarm to be lost', async () => (await alarms()).lost >= 1);
  await alarms({ lose: false });
  await server.restart();
  return all;
}

test('an alarm that is gone is set again by whoever asks how things stand', async () => {
  const { server, spool } = await lostAlarm();
  assert.equal(server.stored.length, 1);
  assert.equal((await spool()).takenFrames, 1);
  await until('it at the server', () => server.stored.length === 2);
});

test('and by the next frame of another source', async () => {
  const { server, send, frame } = await lostAlarm();
  await send(frame(newSource()));
  await until('both at the server', () => server.stored.length === 3);
});

test('a panic in the middle of a delivery: the object begins anew with what it has on disk', async () => {
  const { server, send, frame, alarms, spool } = await parts();
  await send(frame(newSource()));
  await server.stop();
  const source = newSource();
  assert.equal((await send(frame(source))).spooled, 1);
  await alarms({ trap: true });
  await until('the panic', async () => (await alarms()).trapped === 1);
  await server.restart();
  await until('it to be there still, and at the server', async () => {
    const { frames } = await spool();
    return frames === 0 && server.stored.length === 2;
  });
  assert.equal(server.framesStored()[1].source, source);
  // And it goes on as before.
  assert.ok((await send(frame(source, 1))).count === 1);
  await until('the next one', () => server.stored.length === 3);
});

test('a delivery that the platform ends leaves a line of JSON, whatever it says, and what waits waits on', async () => {
  const { server, edge, send, frame, alarms, spool } = await parts();
  await send(frame(newSource()));
  await server.stop();
  const fail = 'a "disk"\\ of\nwhat\u0007 \u{1f4a5}\u2028 \u200b{it} has';
  await alarms({ fail });
  assert.equal((await send(frame(newSource()))).spooled, 1);
  const lines = await until('the line', () => {
    const found = edge.log.filter((line) => line.includes('spool-failed'));
    return found.length > 0 && found;
  });
  for (const line of lines) assert.deepEqual(JSON.parse(line), { event: 'spool-failed', why: fail });
  await alarms({ fail: '' });
  await server.restart();
  assert.equal((await spool()).frames, 1);
  await until('it at the server', () => server.stored.length === 2);
});
