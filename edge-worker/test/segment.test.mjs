// Segment's HTTP API through the built Worker: the published SDK, unmodified, and what it would never send.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { beforeEach, describe, test } from 'node:test';

import { Analytics } from '@segment/analytics-node';

import { pair, refusal as problemOf } from './pair.mjs';
import { Tenant, bytes, json, kit, problem } from './server.mjs';

const tenant = new Tenant(0xc8);
const { server, edge } = await pair({ tenants: [tenant], SPOOL_BYTES: '1' });

beforeEach(() => server.forget());

const post = (path, body, headers = {}) =>
  fetch(`${edge.url}${path}`, { method: 'POST', body: typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers } });
const track = (more = {}) => ({ writeKey: tenant.writeKey, event: 'Product Viewed', anonymousId: 'a-1', messageId: 'm-1', ...more });

/** All events that the server was sent, with the envelopes they came in. */
function events() {
  return server.opened().flatMap((envelope) => kit({ do: 'read', frame: envelope.frame }).events.map((event) => ({ ...event, envelope })));
}

/** Segment's SDKs look for `success`. */
async function refusal(answer, status, code) {
  const body = await problemOf(answer, status, code);
  assert.equal(body.success, false);
  return body;
}

describe('@segment/analytics-node', () => {
  test('sends all its calls, each exactly once', async () => {
    const analytics = new Analytics({ writeKey: tenant.writeKey, host: edge.url, flushAt: 7, maxRetries: 0 });
    const errors = [];
    analytics.on('error', (error) => errors.push(error));
    analytics.identify({ userId: 'u-1', traits: { plan: 'pro' } });
    analytics.group({ userId: 'u-1', groupId: 'g-1', traits: { seats: 5 } });
    analytics.page({ userId: 'u-1', name: 'Checkout', properties: { url: 'https://shop.example/checkout' } });
    analytics.screen({ userId: 'u-1', name: 'Basket' });
    analytics.alias({ userId: 'u-1', previousId: 'a-1' });
    analytics.track({ userId: 'u-1', event: 'Order Completed', messageId: 'order-1', properties: { total: 18.99, currency: 'CHF', items: 2 } });
    analytics.track({ anonymousId: 'a-2', event: 'Product Viewed' });
    await analytics.closeAndFlush({ timeout: 10_000 });
    assert.deepEqual(errors, []);
    const seen = events();
    assert.deepEqual(seen.map(({ kind, name }) => [kind, name]), [
      ['identify', ''],
      ['group', 'g-1'],
      ['page', 'Checkout'],
      ['screen', 'Basket'],
      ['alias', 'a-1'],
      ['track', 'Order Completed'],
      ['track', 'Product Viewed'],
    ]);
    assert.deepEqual(seen[5].properties, { total: 18.99, currency: 'CHF', items: 2 });
    assert.equal(seen[5].id, 'order-1');
    assert.equal(seen[5].context.userId, 'u-1');
    assert.equal(seen[6].context.anonymousId, 'a-2');
    assert.equal(new Set(seen.map(({ id }) => id)).size, 7);
    for (const { envelope } of seen) {
      assert.equal(envelope.annotation.trust, 'write-key');
      assert.equal(envelope.annotation.agent, 'library');
    }
  });

  test('is told of a refusal in its own terms', async () => {
    const analytics = new Analytics({ writeKey: `fh_${tenant.id}_${'x'.repeat(24)}`, host: edge.url, maxRetries: 0 });
    const refused = once(analytics, 'error');
    analytics.track({ userId: 'u-1', event: 'A' });
    await analytics.closeAndFlush({ timeout: 10_000 });
    const [error] = await refused;
    assert.equal(error.code, 'delivery_failure');
    assert.equal(server.opened()[0].annotation.refused, 'wrong-write-key');
  });
});

// Natively: `intake/src/json.rs`. In here a double is read by the platform.
describe('numbers', () => {
  const send = (number) => post('/v1/track', JSON.stringify(track({ messageId: `n ${number}`, properties: {} })).replace('"properties":{}', `"properties":{"it":${number}}`));

  test('are what they were', async () => {
    const exact = ['0', '-1', '9007199254740991', '0.1', '1e2', '1E-7', '5e-324', '2.2250738585072011e-308', '1.7976931348623157e308', '0.30000000000000004', '-0.0', '1.7976931348623158e308'];
    for (const number of exact) assert.equal((await send(number)).status, 200, number);
    assert.deepEqual(events().map(({ properties }) => properties.it), exact.map(Number));
  });

  test('that no double is near are refused', async () => {
    for (const number of ['1e400', '-1e400']) await refusal(await send(number), 400, 'malformed-json');
    assert.deepEqual(server.opened().map(({ annotation }) => annotation.refused), ['malformed-json', 'malformed-json']);
  });
});

describe('a call', () => {
  test('takes its write key from the body, by Basic and by Bearer; as JSON and as text', async () => {
    const { writeKey, ...keyless } = track();
    const basic = `Basic ${Buffer.from(`${writeKey}:`).toString('base64')}`;
    for (const [body, headers] of [[track(), {}], [keyless, { authorization: basic }], [keyless, { authorization: `Bearer ${writeKey}` }], [track(), { 'content-type': 'text/plain' }]]) {
      const answer = await post('/v1/track', body, headers);
      assert.equal(answer.status, 200);
      assert.deepEqual(await answer.json(), { success: true });
      assert.equal(answer.headers.get('firsthop-receipt'), 'stored=1, duplicate=0, conflict=0, quarantined=0');
      assert.equal(answer.headers.get('access-control-allow-origin'), '*');
      assert.match(answer.headers.get('access-control-expose-headers'), /Firsthop-Receipt/);
    }
    assert.equal(events().length, 4);
  });

  test('has a short path for the browser SDK', async () => {
    for (const [path, kind] of [['t', 'track'], ['i', 'identify'], ['p', 'page'], ['s', 'screen'], ['g', 'group'], ['a', 'alias']]) {
      const answer = await post(`/v1/${path}`, track({ userId: 'u', previousId: 'p', groupId: 'g', name: 'n' }));
      assert.equal(answer.status, 200, path);
      assert.equal(events().at(-1).kind, kind);
    }
    assert.equal((await post('/v1/b', { writeKey: tenant.writeKey, batch: [{ type: 'track', event: 'A', userId: 'u' }] })).status, 200);
  });

  test('loses its address here', async () => {
    await post('/v1/track', track({ context: { ip: '203.0.113.77' } }), { 'cf-connecting-ip': '198.51.100.99' });
    const [{ body }] = server.received;
    assert.equal(events()[0].envelope.annotation.network, '198.51.100.0/24');
    const text = body.toString('latin1');
    assert.ok(!text.includes('203.0.113.77') && !text.includes('198.51.100.99'));
  });

  test('is stored when the server says so, and says what became of it', async () => {
    server.plans.push((request, response, body) => {
      const { header } = kit({ do: 'read', frame: tenant.open(body).frame });
      json(response, 200, { source: header.source, batch: 0, first: 0, count: 1, stored: 0, duplicate: 1, conflict: 0 });
    });
    const answer = await post('/v1/track', track());
    assert.equal(answer.headers.get('firsthop-receipt'), 'stored=0, duplicate=1, conflict=0, quarantined=0');
    assert.deepEqual(await answer.json(), { success: true });
    server.plans.push((request, response) => problem(response, 500, 'internal'));
    const failed = await post('/v1/track', track());
    assert.match(failed.headers.get('retry-after'), /^\d+$/);
    await refusal(failed, 503, 'unavailable');
  });
});

describe('a batch', () => {
  const message = (more) => ({ type: 'track', event: 'A', userId: 'u-1', ...more });

  test('of many events is taken whole', async () => {
    const batch = Array.from({ length: 500 }, (_, i) => message({ messageId: `m-${i}`, properties: { i } }));
    const answer = await post('/v1/batch', { writeKey: tenant.writeKey, batch });
    assert.equal(answer.headers.get('firsthop-receipt'), 'stored=500, duplicate=0, conflict=0, quarantined=0');
    const seen = events();
    assert.deepEqual(seen.map(({ id }) => id), batch.map(({ messageId }) => messageId));
  });

  test('with one bad message loses that one only, and keeps it aside', async () => {
    const batch = [message(), message({ properties: { deep: nested(40) } }), message({ event: 'C' })];
    const answer = await post('/v1/batch', { writeKey: tenant.writeKey, batch });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('firsthop-receipt'), 'stored=2, duplicate=0, conflict=0, quarantined=1');
    const opened = server.opened();
    const [aside] = opened.filter(({ annotation }) => annotation.refused);
    assert.equal(aside.annotation.refused, 'json-too-deep');
    assert.equal(JSON.parse(bytes(aside.frame)).batch.length, 1);
    assert.equal(opened.length, 2);
  });

  test('whose bad message cannot be set aside is not taken', async () => {
    const batch = [message(), message({ properties: { deep: nested(40) } })];
    server.plans.push((request, response) => problem(response, 503, 'unavailable'));
    await refusal(await post('/v1/batch', { writeKey: tenant.writeKey, batch }), 503, 'unavailable');
  });
});

function nested(depth) {
  return depth === 0 ? 1 : { a: nested(depth - 1) };
}

describe('bad input', () => {
  const many = Array.from({ length: 2_501 }, () => ({ type: 'track', event: 'A', userId: 'u' }));
  const rows = [
    // What, path, body, headers, status, code, whether the tenant gets to see it.
    ['no JSON', '/v1/track', `{"writeKey":"${tenant.writeKey}",`, {}, 400, 'malformed-json', true],
    ['JSON that is no object', '/v1/track', '[1,2]', { authorization: `Bearer ${tenant.writeKey}` }, 400, 'malformed-json', true],
    ['a batch without messages', '/v1/batch', { writeKey: tenant.writeKey, batch: 7 }, {}, 400, 'malformed-json', true],
    ['too deep', '/v1/track', track({ properties: nested(40) }), {}, 400, 'json-too-deep', true],
    ['an event too large', '/v1/track', track({ properties: { text: 'x'.repeat(33_000) } }), {}, 413, 'json-too-large', true],
    ['too many events', '/v1/batch', { writeKey: tenant.writeKey, batch: many }, {}, 413, 'json-too-large', true],
    ['a body too large', '/v1/batch', 'x'.repeat(512_001), {}, 413, 'body-too-large', false],
    ['no write key', '/v1/track', { event: 'A', userId: 'u' }, {}, 401, 'wrong-write-key', false],
    ['a write key that is none', '/v1/track', track({ writeKey: 'abc' }), {}, 401, 'wrong-write-key', false],
    ["another tenant's write key", '/v1/track', track({ writeKey: new Tenant(0xdead).writeKey }), {}, 401, 'wrong-write-key', false],
    ['a wrong write key', '/v1/track', track({ writeKey: `fh_${tenant.id}_${'x'.repeat(24)}` }), {}, 401, 'wrong-write-key', true],
    ['a form', '/v1/track', 'event=A', { 'content-type': 'application/x-www-form-urlencoded' }, 415, 'unsupported-media-type', false],
    ['compressed', '/v1/track', track(), { 'content-encoding': 'gzip' }, 415, 'unsupported-encoding', false],
  ];
  for (const [what, path, body, headers, status, code, kept] of rows) {
    test(what, async () => {
      const answer = await post(path, body, headers);
      await refusal(answer, status, code);
      const opened = server.opened();
      assert.equal(opened.length, kept ? 1 : 0, 'what the server was told');
      if (kept) assert.equal(opened[0].annotation.refused, code);
    });
  }
});
