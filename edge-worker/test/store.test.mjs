// The region's store of leases, a Durable Object: what lies in it, for how long, and how much.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';

import { pair, refusal, serverOf, stopAfter } from './pair.mjs';
import { PolicyTenant, RegionHost } from './regions.mjs';
import { newSource, signed } from './server.mjs';
import { until } from './wait.mjs';
import { startWorker } from './worker.mjs';

const MINUTE = 60_000;
const TOKEN = 'operators';
const FAR = { 'mf-cf-blob': JSON.stringify({ colo: 'IAD', country: 'DE' }) };
const NEAR = { 'mf-cf-blob': JSON.stringify({ colo: 'FRA', country: 'DE' }) };
/** What the server may sign: `MAX_TEXT` and `MAX_ALL` in `intake/src/document.rs`. */
const [MAX_TEXT, MAX_ALL] = [128 * 1024, 192 * 1024];

async function regionHost() {
  const host = await RegionHost.start();
  stopAfter(host);
  return host;
}

const policyOf = (host, more = {}) => ({ regions: [{ code: 'EU', host: host.url, forward: ['*'], ...more }] });
const statusOf = async ({ edge }) => (await (await fetch(`${edge.url}/statusz`, { headers: { authorization: `Bearer ${TOKEN}` } })).json()).tenants[0];
/** The store has the server's word of now. */
const renewed = (it) => until('the store to have asked', async () => (await statusOf(it)).policy.since === it.clock.now());
/** What the server was asked for, in turn. */
const wants = (server) => server.leaseCalls.map(({ want = 'keys' }) => want);

describe('the store of leases', { concurrency: 4 }, () => {
  test('renews no key where nobody may read any longer, and gives none out', async () => {
    const host = await regionHost();
    const tenant = new PolicyTenant(1, policyOf(host));
    const it = await pair({ tenants: [tenant], moved: true, STATUS_TOKEN: TOKEN });
    const { server, clock, send } = it;
    await clock.stop();
    const set = (more) => Object.assign(tenant, { version: tenant.version + 1, policy: policyOf(host, more) });
    /** What becomes of a frame where it may be read by the policy of before. */
    const near = async () => {
      const before = [host.requests.length, server.stored.length];
      assert.equal((await send(tenant.frame({ source: newSource() }), NEAR)).status, 200);
      return host.requests.length > before[0] ? 'passed on' : server.stored.length > before[1] && 'read';
    };
    assert.equal(await near(), 'read');
    assert.ok((await statusOf(it)).leases);
    set({ process: [] });
    // By its own alarm, ahead of time: nobody asks it.
    let asked = server.leaseCalls.length;
    await clock.pass(5 * MINUTE);
    await until('the store to hear it', () => server.leaseCalls.length > asked);
    await until('the keys to be gone', async () => (await statusOf(it)).leases === null);
    assert.equal(wants(server)[asked], 'keys', 'until it hears it, it asks for them');
    asked += 1;
    // This isolate still has the keys and the policy of before, and learns better when it comes for newer keys: it is given none.
    await until('what comes to be passed on', async () => (await near()) === 'passed on');
    for (let hours = 1; hours <= 30; hours += 1) {
      await clock.pass(60 * MINUTE);
      // What somebody has asked for within a day is kept alive: the documents are.
      await send(tenant.frame({ source: newSource() }), NEAR);
      await renewed(it);
    }
    assert.deepEqual([...new Set(wants(server).slice(asked))], ['documents']);
    assert.equal((await statusOf(it)).leases, null);
    set({});
    await clock.pass(10 * MINUTE);
    await until('what comes to be read', async () => (await near()) === 'read');
    assert.ok((await statusOf(it)).leases);
  });

  test('gives keys for what waits in the spool, also where nobody may read any longer', async () => {
    const host = await regionHost();
    const tenant = new PolicyTenant(2, policyOf(host));
    const keys = await serverOf(tenant);
    const it = await pair({ tenants: [tenant], moved: true, LEASES: keys.url, STATUS_TOKEN: TOKEN, SPOOL_RETRY_MS: '50' });
    const { server, clock, send } = it;
    keys.now = clock.now;
    await clock.stop();
    await server.stop();
    const source = newSource();
    assert.equal((await (await send(tenant.frame({ source }), NEAR)).json()).spooled, 1);
    Object.assign(tenant, { version: 2, policy: policyOf(host, { process: [] }) });
    // Longer than the lease lasts that it was signed with.
    for (let hours = 1; hours <= 4; hours += 1) {
      await clock.pass(60 * MINUTE);
      await renewed(it);
    }
    assert.ok(wants(keys).slice(2).includes('documents'), 'it has heard that nobody may read');
    const minutes = (what, probe) => until(what, async () => (await clock.pass(MINUTE)) || probe());
    await minutes('keys', async () => (await statusOf(it)).leases !== null);
    await server.restart();
    await minutes('it at the server', () => server.stored.length > 0);
    const [{ header }] = server.opened().slice(-1);
    assert.ok(header.epoch >= Math.floor(clock.now() / (60 * MINUTE)) - 1, 'signed anew');
    assert.deepEqual(server.framesStored().map((frame) => frame.source), [source]);
    // And they are gone again.
    await clock.pass(10 * MINUTE);
    await until('no keys', async () => (await statusOf(it)).leases === null);
  });

  test('holds and hands out the largest policy that a server may sign, with the keys', async () => {
    const host = await regionHost();
    const tenant = new PolicyTenant(3, largest(host.url));
    const it = await pair({ tenants: [tenant], persist: true, STATUS_TOKEN: TOKEN });
    const { server } = it;
    const policy = tenant.document();
    assert.equal(Buffer.byteLength(policy.text), MAX_TEXT);
    // What else is signed for the tenant takes the rest.
    const other = (length) => signed(tenant.key, 'region-keys', `{"keys":[]}${' '.repeat(length)}`);
    const size = (length) => Buffer.byteLength(JSON.stringify([policy, other(length)]));
    const documents = [policy, other(MAX_ALL - size(0))];
    assert.equal(Buffer.byteLength(JSON.stringify(documents)), MAX_ALL);
    tenant.document = () => policy;
    const lease = tenant.lease.bind(tenant);
    tenant.lease = (now) => ({ ...lease(now), documents });
    for (let start = 0; start < 2; start += 1) {
      assert.equal((await it.send(tenant.frame({ source: newSource() }), NEAR)).status, 200);
      assert.equal((await it.send(tenant.frame({ source: newSource() }), FAR)).status, 200);
      assert.deepEqual([server.stored.length, host.requests.length], [start + 1, start + 1]);
      const status = await statusOf(it);
      assert.deepEqual([status.policy.version, status.silentStore, status.leases !== null], [1, false, true]);
      // By what is on disk alone.
      if (start === 0) {
        server.leaseAlways = (response) => response.destroy();
        await it.restartEdge();
      }
    }
    assert.deepEqual(wants(server).slice(0, 2), ['documents', 'keys']);
  });

  test('does not go by what a version before wrote where it could check nothing', async () => {
    const host = await regionHost();
    const tenant = new PolicyTenant(4, policyOf(host));
    const server = await serverOf(tenant);
    const folder = await mkdtemp(path.join(tmpdir(), 'firsthop-edge-'));
    /** The Worker, and a way to write into its object what that version left there. */
    const entry = `
      import * as built from './index.js';
      export default {
        fetch(request, env, context) {
          if (new URL(request.url).pathname !== '/older') return built.default.fetch(request, env, context);
          return env.LEASE_STORE.get(env.LEASE_STORE.idFromName('${tenant.id}/EU')).fetch('http://object/older');
        },
      };
      export class Leases extends built.Leases {
        #sql;
        constructor(state, env) { super(state, env); this.#sql = state.storage.sql; }
        fetch(request) {
          if (!request.url.endsWith('/older')) return super.fetch(request);
          this.#sql.exec('CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID');
          const rows = [['documents', '[]'], ['told', Date.now()], ['refresh', 300_000], ['looked', Date.now()], ['tenant', '${tenant.id}']];
          for (const row of rows) this.#sql.exec('INSERT OR REPLACE INTO kept VALUES (?, ?)', ...row);
          return new Response();
        }
      }
      export { Spool } from './index.js';`;
    const start = () => startWorker({ UPSTREAM: server.url, REGION: 'EU', ENROLMENTS: tenant.enrolment }, { folder, entry });
    let edge = await start();
    const send = () => fetch(`${edge.url}/v1/f`, { method: 'POST', body: tenant.frame({ source: newSource() }), headers: FAR });
    try {
      assert.ok((await fetch(`${edge.url}/older`)).ok);
      await server.stop();
      await refusal(await send(), 503, 'unavailable');
      await server.restart();
      await until('the edge to know', async () => (await send()).status === 200);
      assert.deepEqual([host.requests.length, server.received.length], [1, 0]);
      // That there is none is kept, where it was said to somebody who can check.
      const without = await pair({ tenants: [new PolicyTenant(5, undefined)], persist: true });
      const own = () => without.send(without.tenant.frame({ source: newSource() }), FAR);
      assert.equal((await own()).status, 200);
      without.server.leaseAlways = (response) => response.destroy();
      await without.restartEdge();
      assert.equal((await own()).status, 200);
      assert.equal(without.server.stored.length, 2);
    } finally {
      await edge.dispose();
      await rm(folder, { recursive: true, force: true });
    }
  });
});

/** A policy whose document's text is as long as one may be: regions with lists of 256 places, and rules that fill it up. */
function largest(host) {
  const places = Array.from({ length: 256 }, () => 'DE');
  const codes = ['EU', ...Array.from({ length: 31 }, (_, i) => `${i < 26 ? 'X' : 'Q'}${String.fromCharCode(65 + (i % 26))}`)];
  const regions = codes.map((code) => ({ code, host, countries: places, process: places, forward: code === 'EU' ? ['*'] : places }));
  const deny = [];
  const room = () => MAX_TEXT - Buffer.byteLength(JSON.stringify({ kind: 'policy', tenant: '0'.repeat(16), version: 1, issued: Date.now(), body: { regions, rules: { properties: { deny } } } }));
  // Each is at most 128 bytes, and comes with quotes and a comma.
  for (let left = room(); left > 0; left = room()) deny.push('n'.repeat(left > 150 ? 128 : left - (deny.length > 0 ? 3 : 2)));
  assert.ok(deny.length <= 64, `${deny.length}`);
  return { regions, rules: { properties: { deny } } };
}
