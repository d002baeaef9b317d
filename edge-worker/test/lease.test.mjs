// Leases: how the Worker comes by its keys, and what it does without them.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { pair, refusal, serverOf } from './pair.mjs';
import { Tenant, json, newSource, problem } from './server.mjs';
import { until } from './wait.mjs';

const logged = (edge, event) => edge.log.filter((line) => line.includes(`"${event}"`)).map((line) => JSON.parse(line));

/** Calls for keys; before them the documents are asked for. */
const forKeys = (server) => server.leaseCalls.filter(({ want }) => want !== 'documents');

async function code(answer) {
  return [answer.status, (await answer.json()).code];
}

describe('leases', { concurrency: 4 }, () => {
  test('are fetched once for many first requests, and then kept', async () => {
    const { server, send, tenant } = await pair();
    server.leasePlans.push(async (request, response) => {
      await sleep(300);
      json(response, 200, tenant.lease());
    });
    const frames = Array.from({ length: 20 }, () => tenant.frame({ source: newSource() }));
    const answers = await Promise.all(frames.map((frame) => send(frame)));
    assert.deepEqual(answers.map(({ status }) => status), frames.map(() => 200));
    assert.deepEqual(server.leaseCalls.map(({ want }) => want), ['documents', undefined]);
    for (const { authorization } of server.leaseCalls) assert.equal(authorization, `Bearer ${tenant.enrolment}`);
    assert.equal((await send(tenant.frame({ source: newSource() }))).status, 200);
    assert.equal(server.leaseCalls.length, 2);
    assert.equal(server.stored.length, 21);
  });

  test('come from LEASES where that is another address', async () => {
    const tenant = new Tenant(0xc8);
    const internal = await serverOf(tenant);
    const { server, send } = await pair({ tenants: [tenant], LEASES: `${internal.url}/` });
    assert.equal((await send(tenant.frame({ source: newSource() }))).status, 200);
    assert.deepEqual([server.leaseCalls.length, server.stored.length], [0, 1]);
    assert.deepEqual([forKeys(internal).length, internal.received.length], [1, 0]);
  });

  test('of several tenants do not mix', async () => {
    const { server, send, tenants } = await pair({ tenants: [new Tenant(1), new Tenant(2)] });
    for (const tenant of tenants) assert.equal((await send(tenant.frame({ source: newSource() }))).status, 200);
    const [one, two] = server.opened();
    assert.deepEqual([one.header.tenant, two.header.tenant], tenants.map(({ id }) => id));
    assert.notEqual(one.header.source, two.header.source);
    assert.deepEqual([one.header.batchSeq, two.header.batchSeq], [0, 0]);
    // A session of one is worth nothing with the other.
    const source = newSource();
    const { session } = await (await send(tenants[0].frame({ source }))).json();
    const forged = tenants[1].frame({ source, session });
    assert.deepEqual(await code(await send(forged)), [401, 'bad-signature']);
  });

  test('are asked for again when the server was away at first', async () => {
    const { server, send, tenant, clock } = await pair({ moved: true });
    await clock.stop();
    const frame = tenant.frame({ source: newSource() });
    await server.stop();
    const answer = await send(frame);
    assert.match(answer.headers.get('retry-after'), /^\d+$/);
    assert.deepEqual(await code(answer), [503, 'unavailable']);
    await server.restart();
    // Not for each request: the server has enough to do when it comes back.
    assert.equal((await send(frame)).status, 503);
    assert.equal(server.leaseCalls.length, 0);
    await clock.pass(1_000);
    assert.equal((await send(frame)).status, 200);
  });

  test('are not taken from an answer that is none, is for somebody else, or stands behind a redirect', async () => {
    const { server, edge, send, tenant, clock } = await pair({ moved: true });
    await clock.stop();
    const elsewhere = await serverOf(tenant);
    const bad = [
      (response) => response.writeHead(307, { location: `${elsewhere.url}/v1/leases` }).end(),
      (response) => json(response, 500, {}),
      (response) => problem(response, 404, 'not-found'),
      (response) => json(response, 200, { hello: 'world' }),
      (response) => response.writeHead(200).end('<html>'),
      (response) => json(response, 200, { ...tenant.lease(), tenant: new Tenant(5).id }),
      (response) => json(response, 200, { ...tenant.lease(), worker: 8 }),
      (response) => json(response, 200, { ...tenant.lease(), region: 'US' }),
      (response) => json(response, 200, { ...tenant.lease(), leases: [{ keyId: 1, epoch: 1, key: 'AAAA' }] }),
      (response) => json(response, 200, { ...tenant.lease(), leases: [] }),
      (response) => json(response, 200, { ...tenant.lease(), origins: ['nonsense'] }),
    ];
    const frame = tenant.frame({ source: newSource() });
    for (const plan of bad) {
      server.leaseAlways = plan;
      assert.equal((await send(frame)).status, 503, plan);
      await clock.pass(1_000);
    }
    assert.equal(elsewhere.leaseCalls.length, 0, 'a token went to a host that nobody named');
    assert.equal(server.received.length, 0);
    // An answer without a usable lease is an answer, so the next look is later; with one, all is well.
    for (const told of ['enrolled for another region than REGION', 'status 500', "status 404: does LEASES name the server's internal address?"]) {
      assert.ok(logged(edge, 'no-lease').some(({ why }) => why === told), told);
    }
  });

  test('end when the server no longer knows the enrolment, and not by the word of anybody else', async () => {
    const { server, edge, send, tenant } = await pair({ tenants: [new Tenant(0xc8, { refreshAfter: 10 })] });
    const frame = () => tenant.frame({ source: newSource() });
    assert.equal((await send(frame())).status, 200);
    // A proxy's refusal is not the server's.
    server.leasePlans.push((request, response) => response.writeHead(401, { 'content-type': 'text/html' }).end('who are you?'));
    await until('the store to have heard it', () => server.leasePlans.length === 0);
    assert.equal((await send(frame())).status, 200);
    server.leaseAlways = (response) => problem(response, 401, 'wrong-enrolment');
    await until('the edge to stop', async () => (await send(frame())).status === 503);
    await until('its line in the log', () => logged(edge, 'enrolment-refused').length >= 1);
    // Nothing of it is left, in memory or on disk.
    await until('the store to ask anew', async () => {
      const before = server.leaseCalls.length;
      await send(frame());
      return server.leaseCalls.length > before;
    });
  });

  test('are renewed ahead of time, which no request waits for, and which the server’s absence does not stop', async () => {
    // An id that reads like a number, because what keeps it knows numbers.
    const { server, send, tenant } = await pair({ tenants: [new Tenant(0x12e4, { refreshAfter: 10 })] });
    const frame = () => tenant.frame({ source: newSource() });
    assert.equal((await send(frame())).status, 200);
    let asked = 0;
    let release;
    const held = new Promise((resolve) => (release = resolve));
    server.leasePlans.push(async (request, response) => {
      asked += 1;
      await held;
      response.destroy();
    });
    await until('a renewal', () => asked === 1);
    for (let i = 0; i < 5; i += 1) assert.equal((await send(frame())).status, 200, 'while it is under way');
    release();
    assert.equal((await send(frame())).status, 200);
    const before = server.leaseCalls.length;
    await until('another attempt', () => server.leaseCalls.length > before);
    assert.equal((await send(frame())).status, 200);
  });

  test('are looked at again for a write key or an origin that is new, but not for each request', async () => {
    const tenant = new Tenant(0xc8, { origins: ['https://a.example'] });
    const { server, send, clock } = await pair({ tenants: [tenant], moved: true });
    await clock.stop();
    const writeKey = `fh_${tenant.id}_${'n'.repeat(24)}`;
    const fresh = () => tenant.frame({ source: newSource(), writeKey });
    const origin = 'https://b.example';
    assert.equal((await send(tenant.frame({ source: newSource() }))).status, 200);
    for (let i = 0; i < 5; i += 1) {
      assert.deepEqual(await code(await send(fresh())), [401, 'wrong-write-key']);
      assert.deepEqual(await code(await send(tenant.frame({ source: newSource() }), { origin })), [403, 'wrong-origin']);
    }
    assert.equal(forKeys(server).length, 1, 'within ten seconds of the last look');
    tenant.writeKeys.push(writeKey);
    tenant.origins.push(origin);
    await clock.pass(10_000);
    assert.equal((await send(fresh())).status, 200);
    assert.equal((await send(tenant.frame({ source: newSource() }), { origin })).status, 200);
    assert.equal(forKeys(server).length, 2);
  });

  test('end a write key that was taken away with the next renewal', async () => {
    const tenant = new Tenant(0xc8, { refreshAfter: 10 });
    const { server, send } = await pair({ tenants: [tenant] });
    const writeKey = tenant.writeKey;
    const frame = () => tenant.frame({ source: newSource(), writeKey });
    assert.equal((await send(frame())).status, 200);
    tenant.writeKeys = [`fh_${tenant.id}_${'n'.repeat(24)}`];
    const last = await until('the edge to know', async () => {
      const answer = await send(frame());
      return answer.status !== 200 && answer;
    });
    await refusal(last, 401, 'wrong-write-key');
    assert.equal((await send(tenant.frame({ source: newSource() }))).status, 200, 'the new one');
    assert.equal(server.opened().at(-2).annotation.refused, 'wrong-write-key', 'set aside, not lost');
  });

  test('outlive a restart of workerd while the server is away', async () => {
    const tenant = new Tenant(0xc8);
    const internal = await serverOf(tenant);
    const it = await pair({ tenants: [tenant], LEASES: internal.url, persist: true });
    const frame = () => it.tenant.frame({ source: newSource() });
    assert.equal((await it.send(frame())).status, 200);
    await internal.stop();
    await it.restartEdge();
    assert.equal((await it.send(frame())).status, 200, 'by what is on disk');
    assert.equal(forKeys(internal).length, 1);
    assert.equal(it.server.stored.length, 2);
    await internal.restart();
  });

  test('that ended are not signed with, also where they are all that there is', async () => {
    const { server, send, tenant } = await pair();
    const { leases, ...rest } = tenant.lease();
    server.leaseAlways = (response) => json(response, 200, { ...rest, leases: leases.slice(0, 1) });
    await refusal(await send(tenant.frame({ source: newSource() })), 503, 'unavailable');
    assert.equal(server.received.length, 0);
    server.leaseAlways = undefined;
    await until('the new ones', async () => (await send(tenant.frame({ source: newSource() }))).status === 200);
  });

  test('of a root that ended at once are replaced when the server refuses what they signed', async () => {
    const { server, send, tenant } = await pair();
    const source = newSource();
    const { session } = await (await send(tenant.frame({ source }))).json();
    assert.ok(session);
    tenant.rotate();
    // The server knows the old key no longer; so this is not stored, and not lost: the page keeps it.
    server.always = (request, response, body) => {
      if (body.readUInt32LE(32) === tenant.keyId) return false;
      problem(response, 401, 'unknown-key');
      return true;
    };
    await until('the new key', async () => (await send(tenant.frame({ source: newSource() }))).status === 200);
    assert.equal(server.stored.at(-1).readUInt32LE(32), tenant.keyId);
    assert.ok(tenant.open(server.stored.at(-1)).frame, 'signed with it');
  });
});
