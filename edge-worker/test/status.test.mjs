// What an edge says of itself to its operator, and in which jurisdiction it keeps what it keeps.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { isProblem, pair, refusal, serverOf } from './pair.mjs';
import { PolicyTenant } from './regions.mjs';
import { Tenant, json, newSource } from './server.mjs';
import { until } from './wait.mjs';
import { INSIDE, startWorker } from './worker.mjs';

const TOKEN = 'a-token-of-the-operator';
const authorization = `Bearer ${TOKEN}`;
const at = (it, path, headers = { authorization }) => fetch(`${it.edge.url}${path}`, { headers });

/** The samples of a text for Prometheus, by name and labels. */
function samples(text) {
  const lines = text.split('\n').filter((line) => line && !line.startsWith('#'));
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));
}

describe('status', { concurrency: 4 }, () => {
  test('is for whoever has the token, and where none is set, is not there', async () => {
    const closed = await pair();
    for (const path of ['/statusz', '/metrics']) await isProblem(await at(closed, path), 404, 'not-found');
    const open = await pair({ STATUS_TOKEN: TOKEN });
    for (const path of ['/statusz', '/metrics']) {
      for (const headers of [{}, { authorization: 'Bearer' }, { authorization: 'Bearer x' }, { authorization: `Bearer ${TOKEN}x` }, { authorization: `Basic ${TOKEN}` }, { authorization: TOKEN }]) {
        const answer = await at(open, path, headers);
        assert.equal(answer.headers.get('www-authenticate'), 'Bearer');
        assert.equal(answer.headers.get('access-control-allow-origin'), null);
        await isProblem(answer, 401, 'wrong-token');
      }
      const good = await at(open, path);
      assert.deepEqual([good.status, good.headers.get('cache-control')], [200, 'no-store']);
    }
  });

  test('says what waits, since when and until when, and what became of it', async () => {
    const it = await pair({ STATUS_TOKEN: TOKEN, SPOOL_RETRY_MS: '50' });
    const { server, send, tenant } = it;
    const began = Date.now();
    const frame = () => tenant.frame({ source: newSource(), events: [{ name: 'A' }, { name: 'B' }] });
    assert.equal((await send(frame())).status, 200);
    let status = await (await at(it, '/statusz')).json();
    assert.deepEqual([status.region, status.jurisdiction, status.tenants.length], ['EU', null, 1]);
    assert.deepEqual([status.tenants[0].tenant, status.tenants[0].spool.frames], [tenant.id, 0]);
    const { since, until: end } = status.tenants[0].leases;
    assert.ok(since >= began - 1_000 && end > since && end - Date.now() <= 7_200_000 && end % 3_600_000 === 0);
    assert.equal(status.tenants[0].policy, null);

    await server.stop();
    const frames = [frame(), frame(), frame()];
    for (const body of frames) assert.equal((await send(body)).status, 200);
    const { spool } = await until('an attempt to hand them over', async () => {
      [status.tenants[0]] = (await (await at(it, '/statusz')).json()).tenants;
      return status.tenants[0].spool.failures > 0 && status.tenants[0];
    });
    assert.deepEqual([spool.frames, spool.events, spool.takenEvents, spool.stored], [3, 6, 6, 0]);
    assert.ok(spool.bytes > frames.reduce((sum, { length }) => sum + length, 0));
    assert.ok(spool.oldest >= began - 1_000 && spool.oldest <= Date.now());
    let metrics = samples(await (await at(it, '/metrics')).text());
    const label = `{tenant="${tenant.id}"}`;
    assert.deepEqual([metrics.get(`firsthop_edge_spool_frames${label}`), metrics.get(`firsthop_edge_spool_events${label}`)], [3, 6]);
    assert.equal(metrics.get('firsthop_edge_isolate_frames_total{became="spooled"}'), 3);
    assert.equal(metrics.get('firsthop_edge_isolate_frames_total{became="forwarded"}'), 1);

    await server.restart();
    await until('all at the server', () => server.stored.length === 4);
    await refusal(await send(Buffer.from('hello, is anybody there?')), 400, 'bad-magic');
    metrics = await until('the spool to have done with them', async () => {
      const now = samples(await (await at(it, '/metrics')).text());
      return now.get(`firsthop_edge_spool_frames${label}`) === 0 && now;
    });
    assert.equal(metrics.get(`firsthop_edge_spool_delivered_events_total{tenant="${tenant.id}",outcome="stored"}`), 6);
    assert.equal(metrics.get('firsthop_edge_isolate_refused_total{code="bad-magic"}'), 1);
    assert.equal(metrics.get(`firsthop_edge_spool_silent_shards${label}`), 0);
    const all = JSON.stringify(await (await at(it, '/statusz')).json()) + (await (await at(it, '/metrics')).text());
    for (const secret of [tenant.enrolment, tenant.root, TOKEN, tenant.writeKey, ...tenant.lease().leases.map(({ key }) => key)]) assert.ok(!all.includes(secret));
  });
});

describe('status of what was signed', () => {
  test('says which policy is in force since when, and how old the leases are', async () => {
    const tenant = new PolicyTenant(0xc9, { regions: [{ code: 'EU' }] });
    tenant.version = 1_700_000_000_123;
    const it = await pair({ tenants: [tenant], STATUS_TOKEN: TOKEN });
    const began = Date.now();
    const label = `{tenant="${tenant.id}"}`;
    const figures = async () => {
      const found = samples(await (await at(it, '/metrics')).text());
      return ['policy_version', 'documents_age_seconds', 'leases_age_seconds', 'leases_until_timestamp_seconds'].map((name) => found.get(`firsthop_edge_${name}${label}`));
    };
    // Before anything was read here: no keys, and to look at this brings none.
    let [status] = (await (await at(it, '/statusz')).json()).tenants;
    assert.deepEqual([status.policy.version, status.leases], [tenant.version, null]);
    assert.ok(status.policy.since >= began - 1_000 && status.policy.since <= Date.now());
    assert.deepEqual((await figures()).slice(2), [0, 0]);
    assert.deepEqual(it.server.leaseCalls.map(({ want }) => want), ['documents']);
    assert.equal((await it.send(tenant.frame({ source: newSource() }), { 'mf-cf-blob': JSON.stringify({ colo: 'FRA' }) })).status, 200);
    [status] = (await (await at(it, '/statusz')).json()).tenants;
    assert.ok(status.leases.since >= began - 1_000 && status.leases.until > Date.now());
    const [version, documents, leases, end] = await figures();
    assert.deepEqual([version, end], [tenant.version, status.leases.until / 1000]);
    assert.ok(documents <= (Date.now() - began) / 1000 + 1 && leases <= (Date.now() - began) / 1000 + 1);
  });
});

describe('status, where nobody can say', () => {
  test('a document that was refused confirms nothing: what is in force grows old', async () => {
    const tenant = new PolicyTenant(0xca, { regions: [{ code: 'EU' }] });
    const it = await pair({ tenants: [tenant], STATUS_TOKEN: TOKEN, moved: true });
    const label = `{tenant="${tenant.id}"}`;
    const status = async () => (await (await at(it, '/statusz')).json()).tenants[0];
    const age = async () => samples(await (await at(it, '/metrics')).text()).get(`firsthop_edge_documents_age_seconds${label}`);
    await it.clock.stop();
    const began = it.clock.now();
    assert.deepEqual((await status()).policy, { version: 1, since: began });
    // Newer, and not by the tenant's key.
    it.server.leaseAlways = (response) => json(response, 200, { ...tenant.told(), documents: [{ ...tenant.document({ version: 2 }), signature: tenant.document().signature }] });
    for (let minutes = 10; minutes <= 30; minutes += 10) {
      const calls = it.server.leaseCalls.length;
      await it.clock.pass(10 * 60_000);
      assert.deepEqual((await status()).policy, { version: 1, since: began });
      assert.ok(it.server.leaseCalls.length > calls, 'the server was asked');
      assert.equal(await age(), minutes * 60);
    }
    // What is refused is asked for again in its own time, not with each request.
    const calls = it.server.leaseCalls.length;
    for (let i = 0; i < 3; i += 1) await status();
    assert.equal(it.server.leaseCalls.length, calls);
    it.server.leaseAlways = undefined;
    tenant.version = 3;
    await it.clock.pass(10 * 60_000);
    assert.deepEqual((await status()).policy, { version: 3, since: it.clock.now() });
    assert.equal(await age(), 0);
  });

  test('a store that does not answer is said to be silent, and nothing is made up for it', async () => {
    const tenant = new PolicyTenant(0xcb, { regions: [{ code: 'EU' }] });
    const server = await serverOf(tenant);
    const entry = `
      import * as built from './index.js';
      let silent = false;
      export default {
        fetch(request, env, context) {
          if (new URL(request.url).pathname !== '/silent') return built.default.fetch(request, env, context);
          silent = !silent;
          return new Response();
        },
      };
      export class Leases extends built.Leases { fetch(request) { return silent ? new Response(null, { status: 500 }) : super.fetch(request); } }
      export { Spool } from './index.js';`;
    const edge = await startWorker({ UPSTREAM: server.url, REGION: 'EU', ENROLMENTS: tenant.enrolment, STATUS_TOKEN: TOKEN }, { entry });
    try {
      const label = `{tenant="${tenant.id}"}`;
      const says = async () => {
        const [status] = (await (await at({ edge }, '/statusz')).json()).tenants;
        const found = samples(await (await at({ edge }, '/metrics')).text());
        return [status, (name) => found.get(`firsthop_edge_${name}${label}`)];
      };
      assert.equal((await fetch(`${edge.url}/v1/f`, { method: 'POST', body: tenant.frame({ source: newSource() }), headers: { 'mf-cf-blob': JSON.stringify({ colo: 'FRA' }) } })).status, 200);
      const [before, sample] = await says();
      assert.deepEqual([before.silentStore, before.policy.version, before.leases.until / 1000], [false, 1, sample('leases_until_timestamp_seconds')]);
      assert.deepEqual([sample('lease_store_silent'), sample('policy_version'), typeof sample('documents_age_seconds'), typeof sample('leases_age_seconds')], [0, 1, 'number', 'number']);
      await fetch(`${edge.url}/silent`);
      const [silent, now] = await says();
      // What this isolate goes by it knows itself; since when, and what the store has, it does not.
      assert.deepEqual([silent.silentStore, silent.policy, silent.leases], [true, { version: 1, since: null }, null]);
      assert.deepEqual([now('lease_store_silent'), now('policy_version')], [1, 1]);
      for (const name of ['documents_age_seconds', 'leases_age_seconds', 'leases_until_timestamp_seconds']) assert.equal(now(name), undefined, name);
      await fetch(`${edge.url}/silent`);
      assert.deepEqual((await says())[0].leases, before.leases);
    } finally {
      await edge.dispose();
    }
  });
});

describe('jurisdiction', () => {
  /** The Worker as it is built, with a namespace around the real one that notes what it is asked, and can do what Cloudflare's can. */
  const asked = () => `
    const asked = [];
    const around = (env) => ({ ...env, ${['SPOOL', 'LEASE_STORE'].map((name) => `${name}: namespace('${name}', env.${name})`)} });
    const namespace = (name, real) => ({
      jurisdiction(place) {
        asked.push([name, place]);
        return { idFromName: (id) => real.idFromName(id), get: (id) => real.get(id) };
      },
      idFromName() { throw new Error('outside of the jurisdiction'); },
      get() { throw new Error('outside of the jurisdiction'); },
    });
    import * as built from './index.js';
    export default {
      fetch(request, env, context) {
        if (new URL(request.url).pathname === '/asked') return Response.json(asked);
        return built.default.fetch(request, around(env), context);
      },
    };
    export class Spool extends built.Spool { constructor(state, env) { super(state, around(env)); } }
    export class Leases extends built.Leases { constructor(state, env) { super(state, around(env)); } }`;

  test('is asked of both namespaces, and nothing is kept outside of it', async () => {
    for (const JURISDICTION of ['eu', 'fedramp']) {
      const tenant = new Tenant(0xc8);
      const server = await serverOf(tenant);
      const bindings = { UPSTREAM: server.url, REGION: 'EU', ENROLMENTS: tenant.enrolment, JURISDICTION, STATUS_TOKEN: TOKEN, SPOOL_RETRY_MS: '50' };
      const edge = await startWorker(bindings, { entry: asked() });
      try {
        const send = (body) => fetch(`${edge.url}/v1/f`, { method: 'POST', body });
        assert.equal((await send(tenant.frame({ source: newSource() }))).status, 200);
        await server.stop();
        assert.equal((await (await send(tenant.frame({ source: newSource() }))).json()).spooled, 1);
        await server.restart();
        await until('it at the server', () => server.stored.length === 2);
        const calls = await (await fetch(`${edge.url}/asked`)).json();
        assert.deepEqual(new Set(calls.map(String)), new Set([`SPOOL,${JURISDICTION}`, `LEASE_STORE,${JURISDICTION}`]));
        assert.equal((await (await fetch(`${edge.url}/statusz`, { headers: { authorization } })).json()).jurisdiction, JURISDICTION);
      } finally {
        await edge.dispose();
      }
    }
  });

  test('means Cloudflare, where a request that tells no point of presence stands nowhere', async () => {
    for (const [process, more, status] of [
      [['EU'], { JURISDICTION: 'eu' }, 421],
      [['*'], { JURISDICTION: 'eu' }, 200],
      [['EU'], { JURISDICTION: 'eu', CONFINED: 'true' }, 200],
      [['EU'], { JURISDICTION: '' }, 200],
    ]) {
      const tenant = new PolicyTenant(0xc8, { regions: [{ code: 'EU', process }] });
      const server = await serverOf(tenant);
      const bindings = { UPSTREAM: server.url, REGION: 'EU', ENROLMENTS: tenant.enrolment, ...more };
      const edge = await startWorker(bindings, { more: [INSIDE], ...(more.JURISDICTION && { entry: asked() }) });
      try {
        const answer = await edge.miniflare.dispatchFetch('http://inside.test/', { method: 'POST', body: tenant.frame({ source: newSource() }) });
        assert.deepEqual([answer.status, server.stored.length], [status, status === 200 ? 1 : 0], JSON.stringify([process, more]));
      } finally {
        await edge.dispose();
      }
    }
  });

  test('that is not to be had is no reason to keep things elsewhere', async () => {
    for (const [JURISDICTION, why] of [['eu', 'off Cloudflare'], ['mars', 'neither eu nor fedramp']]) {
      const { server, edge, send, tenant } = await pair({ JURISDICTION });
      await refusal(await send(tenant.frame({ source: newSource() })), 503, 'unavailable');
      assert.deepEqual([server.received.length, server.leaseCalls.length], [0, 0]);
      await until('the log to say why', () => edge.log.some((line) => line.includes('not-set-up') && line.includes(why)));
    }
  });
});
