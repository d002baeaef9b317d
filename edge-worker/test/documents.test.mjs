// The policy document: what an edge takes, what it does not, and what it does until it has one.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { pair, refusal, stopAfter } from './pair.mjs';
import { PolicyTenant, RegionHost } from './regions.mjs';
import { documentKey, json, newSource, problem, signed } from './server.mjs';
import { until } from './wait.mjs';

const hosts = [await RegionHost.start(), await RegionHost.start()];
hosts.forEach(stopAfter);
const policy = (host) => ({ regions: [{ code: 'EU', host: host.url, forward: ['*'] }] });
const FAR = { 'mf-cf-blob': JSON.stringify({ colo: 'IAD', country: 'DE' }) };
const NEAR = { 'mf-cf-blob': JSON.stringify({ colo: 'FRA', country: 'DE' }) };
const refused = (edge) => edge.log.filter((line) => line.includes('"document-refused"')).map((line) => JSON.parse(line));

describe('a policy document', { concurrency: 4 }, () => {
  test('is waited for: until it is there, nothing is read and nothing passed on', async () => {
    const { server, edge, send, tenant } = await pair({ tenants: [new PolicyTenant(1, policy(hosts[0]))] });
    const frame = tenant.frame({ source: newSource() });
    await server.stop();
    for (const from of [NEAR, FAR]) await refusal(await send(frame, from), 503, 'unavailable');
    await server.restart();
    await until('the edge to ask again', async () => (await send(frame, FAR)).status === 200);
    assert.equal(server.received.length, 0);
    assert.deepEqual(refused(edge), []);
  });

  for (const [what, code, forge] of [
    ['with somebody else’s signature', 'document-signature', (tenant) => signed(documentKey(), 'policy', tenant.document().text)],
    ['that was changed', 'document-signature', (tenant) => ({ ...tenant.document(), text: tenant.document().text.replace('"*"', '"EU"') })],
    ['that was signed as another kind', 'document-signature', (tenant) => ({ ...signed(tenant.key, 'region-keys', tenant.document().text), kind: 'policy' })],
    ['that is of another kind inside', 'document-of-another-kind', (tenant) => tenant.document({ kind: 'region-keys' })],
    ['that is another tenant’s', 'document-of-another-tenant', (tenant) => tenant.document({ tenant: '00000000000000ff' })],
    ['that is no JSON', 'document-malformed', (tenant) => signed(tenant.key, 'policy', '{"kind":')],
    ['with members that this edge does not know', 'document-malformed', (tenant) => tenant.document({ policy: { ...policy(hosts[0]), later: 1 } })],
    ['that cannot be', 'document-unsound', (tenant) => tenant.document({ policy: { regions: [{ code: 'EU', process: [] }] } })],
    ['whose host is not https', 'document-unsound', (tenant) => tenant.document({ policy: policy({ url: 'http://eu.example' }) })],
    ['that is too large', 'document-too-large', (tenant) => signed(tenant.key, 'policy', tenant.document().text + ' '.repeat(140_000))],
  ]) {
    test(`${what} is not taken, and nothing is read without one`, async () => {
      const { server, edge, send, tenant } = await pair({ tenants: [new PolicyTenant(2, policy(hosts[0]))] });
      server.leaseAlways = (response) => json(response, 200, { ...tenant.lease(), documents: [forge(tenant)] });
      for (const from of [NEAR, FAR]) await refusal(await send(tenant.frame({ source: newSource() }), from), 503, 'unavailable');
      await until('its line in the log', () => refused(edge).length > 0);
      for (const line of refused(edge)) assert.deepEqual(line, { event: 'document-refused', kind: 'policy', tenant: tenant.id, code });
      assert.equal(server.received.length, 0);
    });
  }

  test('only rises, stays when one does not verify, and stays when none is sent', async () => {
    const [first, second] = await Promise.all([RegionHost.start(), RegionHost.start()]);
    [first, second].forEach(stopAfter);
    const { server, edge, send, tenant } = await pair({ tenants: [new PolicyTenant(3, policy(first))] });
    const where = async () => {
      first.requests.length = second.requests.length = 0;
      assert.equal((await send(tenant.frame({ source: newSource() }), FAR)).status, 200);
      return first.requests.length === 1 ? 'first' : 'second';
    };
    /** Answers so when the edge asks for news, which a write key that it does not know makes it do; then says where a frame goes. */
    const told = async (documents, code) => {
      const [calls, lines] = [server.leaseCalls.length, refused(edge).length];
      server.leasePlans.push((request, response) => json(response, 200, { ...tenant.lease(), documents }));
      const strange = () => tenant.frame({ source: newSource(), writeKey: `fh_${tenant.id}_${'n'.repeat(24)}` });
      await until('a look for news', async () => (await send(strange(), NEAR)) && server.leaseCalls.length > calls, { every: 500 });
      if (code) {
        await until('its line in the log', () => refused(edge).length > lines);
        assert.equal(refused(edge).at(-1).code, code);
      }
      return where();
    };
    assert.equal(await told([tenant.document({ version: 5 })]), 'first');
    const newer = tenant.document({ version: 7, policy: policy(second) });
    assert.equal(await told([newer]), 'second');
    assert.equal(await told([tenant.document({ version: 6 })], 'document-too-old'), 'second');
    assert.equal(await told([{ ...tenant.document({ version: 9 }), signature: newer.signature }], 'document-signature'), 'second');
    // What is not sent is not taken back.
    assert.equal(await told([]), 'second');
    assert.deepEqual(server.opened().filter(({ annotation }) => !annotation.refused), []);
  });

  test('is kept in the region: an isolate that has just started takes no older one, whoever sends it', async () => {
    const [old, current] = await Promise.all([RegionHost.start(), RegionHost.start()]);
    [old, current].forEach(stopAfter);
    const it = await pair({ tenants: [new PolicyTenant(7, policy(current))], persist: true });
    const { server, tenant } = it;
    tenant.version = 7;
    const from = async (edge) => {
      old.requests.length = current.requests.length = 0;
      assert.equal((await edge.send(tenant.frame({ source: newSource() }), FAR)).status, 200);
      return old.requests.length === 1 ? 'old' : 'current';
    };
    assert.equal(await from(it), 'current');
    // Somebody goes back to what was signed before: the signature holds.
    Object.assign(tenant, { version: 5, policy: policy(old) });
    await it.restartEdge();
    assert.equal(await from(it), 'current', 'by what is on disk');
    const asked = server.leaseCalls.length;
    // One that reads here asks for keys, and the older document comes with them.
    assert.equal((await it.send(tenant.frame({ source: newSource() }), NEAR)).status, 200);
    assert.equal(server.leaseCalls.length, asked + 1);
    await until('its line in the log', () => refused(it.edge).length === 1);
    assert.equal(refused(it.edge)[0].code, 'document-too-old');
    assert.equal(await from(it), 'current');
    await it.restartEdge();
    assert.equal(await from(it), 'current', 'nor has it replaced what is on disk');
    // Where the region has never seen a later one, it is as good as any.
    const fresh = await pair({ tenants: [tenant], server });
    assert.equal(await from(fresh), 'old');
  });

  test('is asked for by itself, and keys only by who reads', async () => {
    const { server, send, tenant } = await pair({ tenants: [new PolicyTenant(8, policy(hosts[0]))] });
    const wanted = () => server.leaseCalls.map(({ want = 'keys' }) => want);
    for (let i = 0; i < 3; i += 1) assert.equal((await send(tenant.frame({ source: newSource() }), FAR)).status, 200);
    assert.deepEqual(wanted(), ['documents']);
    for (let i = 0; i < 3; i += 1) assert.equal((await send(tenant.frame({ source: newSource() }), NEAR)).status, 200);
    assert.deepEqual(wanted(), ['documents', 'keys']);
  });

  test('ends with the enrolment: what may only be passed on is not passed on any longer', async () => {
    const region = await RegionHost.start();
    stopAfter(region);
    const tenant = new PolicyTenant(9, policy(region), { refreshAfter: 10 });
    const { server, send } = await pair({ tenants: [tenant] });
    const frame = () => tenant.frame({ source: newSource() });
    assert.equal((await send(frame(), FAR)).status, 200);
    server.leaseAlways = (response) => problem(response, 401, 'wrong-enrolment');
    const last = await until('the edge to stop', async () => {
      const answer = await send(frame(), FAR);
      return answer.status !== 200 && answer;
    });
    await refusal(last, 503, 'unavailable');
    const before = region.requests.length;
    await refusal(await send(frame(), FAR), 503, 'unavailable');
    assert.equal(region.requests.length, before);
    // Enrolled again, with what was in force.
    server.leaseAlways = undefined;
    await until('the edge to go on', async () => (await send(frame(), FAR)).status === 200);
  });

  test('may be taken back: an edge that had it serves its region, and so does one that comes new', async () => {
    const region = await RegionHost.start();
    stopAfter(region);
    const { server, send, tenant } = await pair({ tenants: [new PolicyTenant(6, policy(region))] });
    assert.equal((await send(tenant.frame({ source: newSource() }), FAR)).status, 200);
    assert.deepEqual([server.stored.length, region.requests.length], [0, 1]);
    server.leaseAlways = (response) => json(response, 200, { ...tenant.lease(), documents: [tenant.document({ version: 8, policy: null })] });
    const strange = () => tenant.frame({ source: newSource(), writeKey: `fh_${tenant.id}_${'n'.repeat(24)}` });
    await until('it is taken back', async () => (await send(strange(), NEAR)) && (await send(tenant.frame({ source: newSource() }), FAR)) && server.stored.length > 0, { every: 500 });
    const before = region.requests.length;
    const fresh = await pair({ tenants: [tenant], server });
    assert.equal((await fresh.send(tenant.frame({ source: newSource() }), FAR)).status, 200);
    assert.equal(region.requests.length, before);
  });

  test('may be none: the edge serves its region', async () => {
    const { server, send, tenant } = await pair({ tenants: [new PolicyTenant(5, undefined)] });
    assert.equal((await send(tenant.frame({ source: newSource() }), FAR)).status, 200);
    assert.equal(server.stored.length, 1);
  });
});
