// The spool: the server is away, slow or in trouble, and nothing is lost, doubled or overtaken.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { pair, refusal } from './pair.mjs';
import { Tenant, newSource, problem } from './server.mjs';
import { until } from './wait.mjs';

/** Pauses that a test can wait for. */
const QUICK = { SPOOL_RETRY_MS: '20' };
const tenant = () => new Tenant(0xc8);

/** What the server has stored: sources and first numbers of the frames inside, in their order. */
const stored = (server) => server.framesStored().map(({ source, firstSeq }) => `${source}/${firstSeq}`);

/** Of one source, in the order in which the server had them first. */
const order = (server, source) => [...new Set(stored(server))].filter((id) => id.startsWith(source)).map((id) => Number(id.split('/')[1]));

async function receipt(answer) {
  assert.equal(answer.status, 200, await answer.clone().text());
  const { stored, duplicate, conflict, spooled = 0, count, session } = await answer.json();
  assert.equal(stored + duplicate + conflict + spooled, count);
  return { sums: [stored, duplicate, conflict, spooled], session };
}

/** A page that has its session. */
async function page({ send, tenant }) {
  const source = newSource();
  const { session } = await receipt(await send(tenant.frame({ source })));
  return { source, session, frame: (first, more = {}) => tenant.frame({ source, session, first, batch: first, ...more }) };
}

/** Something to wait for, and what makes it happen. */
function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return [opened, open];
}

describe('the spool', { concurrency: 4 }, () => {
  test('takes frames while the server is away, and hands them over in order when it is back', async () => {
    const it = await pair({ tenants: [tenant()], ...QUICK });
    const { server, send } = it;
    const one = await page(it);
    const two = await page(it);
    await server.stop();
    for (let first = 1; first <= 5; first += 1) {
      for (const { frame } of [one, two]) assert.deepEqual((await receipt(await send(frame(first)))).sums, [0, 0, 0, 1]);
    }
    await server.restart();
    await until('all of them at the server', () => server.stored.length === 12);
    for (const { source } of [one, two]) {
      assert.deepEqual(order(server, source), [0, 1, 2, 3, 4, 5]);
    }
    // Each once, and every envelope's signature held: `framesStored` opens them.
    assert.equal(new Set(stored(server)).size, 12);
  });

  for (const [what, plan] of [
    ['500', (request, response) => problem(response, 500, 'internal')],
    ['503 with a pause', (request, response) => problem(response, 503, 'unavailable', { 'retry-after': '1' })],
    ['502 of a proxy', (request, response) => response.writeHead(502, { 'content-type': 'text/html' }).end('<h1>Bad gateway')],
    ['a broken connection', (request, response) => response.destroy()],
    ['an answer that breaks off', (request, response) => {
      response.writeHead(200, { 'content-length': 500 });
      response.write('{"source":"');
      setTimeout(() => response.destroy(), 20);
    }],
    ['a 2xx without a receipt', (request, response) => response.writeHead(200).end('<html>welcome')],
  ]) {
    test(`takes a frame on ${what}`, async () => {
      const it = await pair({ tenants: [tenant()], ...QUICK });
      const { server, send } = it;
      const { source, frame } = await page(it);
      // Twice: the spool meets with it, too.
      server.plans.push(plan, plan);
      const first = frame(1);
      assert.deepEqual((await receipt(await send(first))).sums, [0, 0, 0, 1]);
      assert.deepEqual((await receipt(await send(first))).sums, [0, 1, 0, 0], 'a retry is known');
      await until('it at the server', () => server.stored.length === 2);
      assert.deepEqual(stored(server), [`${source}/0`, `${source}/1`]);
    });
  }

  test('keeps what comes later of a source behind what waits', async () => {
    const it = await pair({ tenants: [tenant()], ...QUICK });
    const { server, send } = it;
    const { source, frame } = await page(it);
    const [both, bothAreThere] = gate();
    server.plans.push(
      (request, response) => problem(response, 503, 'unavailable'),
      async (request, response, body) => {
        await both;
        server.store(response, body);
      },
    );
    assert.deepEqual((await receipt(await send(frame(1)))).sums, [0, 0, 0, 1]);
    // The server is back, and nobody knows yet: known to be away, it is not tried by every frame.
    assert.deepEqual((await receipt(await send(frame(2)))).sums, [0, 0, 0, 1]);
    bothAreThere();
    await until('both at the server', () => server.stored.length === 3);
    assert.deepEqual(order(server, source), [0, 1, 2]);
    await until('a frame to go to the server by itself', async () => (await receipt(await send(tenant().frame({ source: newSource() })))).sums[0] === 1);
    assert.deepEqual((await receipt(await send(frame(3)))).sums, [1, 0, 0, 0]);
  });

  test('of one source waits for what is under way, while another source passes', async () => {
    // One shard, so that both are in it.
    const it = await pair({ tenants: [tenant()], ...QUICK, SPOOL_SHARDS: '1' });
    const { server, send } = it;
    const one = await page(it);
    const two = await page(it);
    const [both, bothAreThere] = gate();
    const [held, release] = gate();
    const reached = new Promise((resolve) => {
      server.plans.push(
        (request, response) => problem(response, 503, 'unavailable'),
        // The first of the two that the spool hands over is not through before the second one is there, which stays under way.
        async (request, response, body) => {
          await both;
          server.store(response, body);
        },
        async (request, response, body) => {
          resolve();
          await held;
          server.store(response, body);
        },
      );
    });
    assert.deepEqual((await receipt(await send(one.frame(1)))).sums, [0, 0, 0, 1]);
    assert.deepEqual((await receipt(await send(one.frame(2)))).sums, [0, 0, 0, 1]);
    bothAreThere();
    await reached;
    // The server takes what comes, but this source is not through.
    assert.deepEqual((await receipt(await send(one.frame(3)))).sums, [0, 0, 0, 1]);
    assert.deepEqual((await receipt(await send(two.frame(1)))).sums, [1, 0, 0, 0]);
    release();
    await until('all at the server', () => server.stored.length === 6);
    assert.deepEqual(order(server, one.source), [0, 1, 2, 3]);
  });

  test('does not make every page wait for a server that does not answer', async () => {
    const it = await pair({ tenants: [tenant()], SPOOL_RETRY_MS: '60000', SPOOL_SHARDS: '1' });
    const { server, send } = it;
    const { frame } = await page(it);
    server.plans.push((request, response) => void response);
    const began = Date.now();
    assert.deepEqual((await receipt(await send(frame(1)))).sums, [0, 0, 0, 1]);
    const first = Date.now() - began;
    assert.ok(first > 9_500, `the server was given its time: ${first} ms`);
    for (let i = 2; i < 20; i += 1) assert.deepEqual((await receipt(await send(frame(i)))).sums, [0, 0, 0, 1]);
    assert.ok(Date.now() - began - first < first, 'eighteen frames took less than one patience');
    assert.equal(server.received.length, 2, 'the server was asked once, besides the first frame');
  });

  test('is bounded: when it is full, the sender keeps its events', async () => {
    // Of which one source may have half.
    const it = await pair({ tenants: [tenant()], SPOOL_RETRY_MS: '300', SPOOL_SHARDS: '1', SPOOL_FRAMES: '6' });
    const { server, send } = it;
    const { source, frame } = await page(it);
    await server.stop();
    const frames = [1, 2, 3].map((first) => frame(first));
    for (const body of frames) assert.deepEqual((await receipt(await send(body))).sums, [0, 0, 0, 1]);
    const fourth = frame(4);
    const answer = await send(fourth);
    assert.match(answer.headers.get('retry-after'), /^[1-9]\d*$/);
    assert.equal((await refusal(answer, 503, 'unavailable')).detail, 'the spool is full');
    assert.deepEqual((await receipt(await send(frames[2]))).sums, [0, 1, 0, 0], 'what it has, it knows');
    await server.restart();
    await until('three of them at the server', () => server.stored.length === 4);
    await until('room again', async () => (await send(fourth)).status === 200);
    await until('the fourth at the server', () => stored(server).includes(`${source}/4`));
    assert.deepEqual(order(server, source), [0, 1, 2, 3, 4]);
  });

  test('is bounded for each tenant by itself: where one is full, another is not', async () => {
    const it = await pair({ tenants: [new Tenant(1), new Tenant(2)], ...QUICK, SPOOL_SHARDS: '1', SPOOL_FRAMES: '3' });
    const { server, send, tenants } = it;
    const [one, two] = tenants.map((tenant) => () => tenant.frame({ source: newSource() }));
    for (const frame of [one, two]) assert.deepEqual((await receipt(await send(frame()))).sums, [1, 0, 0, 0]);
    await server.stop();
    for (let i = 0; i < 3; i += 1) assert.deepEqual((await receipt(await send(one()))).sums, [0, 0, 0, 1]);
    await refusal(await send(one()), 503, 'unavailable');
    for (let i = 0; i < 3; i += 1) assert.deepEqual((await receipt(await send(two()))).sums, [0, 0, 0, 1]);
    await refusal(await send(two()), 503, 'unavailable');
    await server.restart();
    await until('all of both at the server', () => server.stored.length === 8);
  });

  test('a frame that the server sets aside is done, and blocks nothing', async () => {
    const it = await pair({ tenants: [tenant()], ...QUICK, SPOOL_SHARDS: '1' });
    const { server, send } = it;
    const { source, frame } = await page(it);
    server.plans.push(
      (request, response) => problem(response, 503, 'unavailable'),
      (request, response) => problem(response, 400, 'malformed-payload', { 'firsthop-receipt': 'stored=0, duplicate=0, conflict=0, quarantined=1' }),
    );
    assert.deepEqual((await receipt(await send(frame(1)))).sums, [0, 0, 0, 1]);
    // Behind it, or past it when it is done.
    await receipt(await send(frame(2)));
    await until('the second at the server', () => stored(server).includes(`${source}/2`));
    assert.deepEqual(stored(server), [`${source}/0`, `${source}/2`]);
    assert.equal(server.received.length, 4, 'it was not sent again');
  });

  test('a frame that only a proxy refuses is kept, tried seldom, and holds up its own source for a while and no other', async () => {
    const it = await pair({ tenants: [tenant()], SPOOL_RETRY_MS: '10', SPOOL_SHARDS: '1' });
    const { server, send } = it;
    const { source, frame } = await page(it);
    const large = frame(1, { events: [{ name: 'Too Large For A Proxy' }] });
    let refused = 0;
    server.always = (request, response, body) => {
      if (!body.includes('Too Large For A Proxy')) return false;
      refused += 1;
      response.writeHead(413, { 'content-type': 'text/html' }).end('<h1>Request Entity Too Large');
      return true;
    };
    server.plans.push((request, response) => problem(response, 503, 'unavailable'));
    assert.deepEqual((await receipt(await send(large))).sums, [0, 0, 0, 1]);
    // Others get through all the while, and the next one of its own source does once it need wait no longer.
    assert.ok((await receipt(await send(frame(2)))).sums.some((count) => count === 1));
    const others = [];
    await until('the next one of its source at the server', async () => {
      const { source: other } = await page(it);
      others.push(other);
      return stored(server).includes(`${source}/2`);
    });
    await until('all others at the server', () => others.every((other) => stored(server).includes(`${other}/0`)));
    assert.ok(refused > 0);
    assert.ok(!stored(server).includes(`${source}/1`));
    server.always = undefined;
    await until('it at the server', () => stored(server).includes(`${source}/1`));
    assert.equal(stored(server).length, new Set(stored(server)).size);
  });

  test('a server that wants less of a tenant is asked for less: the page keeps its events, and the spool waits as long as it is told', async () => {
    const it = await pair({ tenants: [tenant()], ...QUICK, SPOOL_SHARDS: '1' });
    const { server, send } = it;
    const { frame } = await page(it);
    server.plans.push((request, response) => problem(response, 429, 'rate-limited', { 'retry-after': '7' }));
    const limited = await send(frame(1));
    await refusal(limited, 429, 'rate-limited');
    assert.equal(limited.headers.get('retry-after'), '7');
    server.plans.push(
      (request, response) => problem(response, 503, 'unavailable'),
      (request, response) => problem(response, 429, 'rate-limited', { 'retry-after': '2' }),
    );
    assert.deepEqual((await receipt(await send(frame(1)))).sums, [0, 0, 0, 1]);
    await until('the spool to be told', () => server.plans.length === 0);
    const told = Date.now();
    await until('it at the server', () => server.stored.length === 2);
    assert.ok(Date.now() - told >= 1_900, `after ${Date.now() - told} ms`);
  });

  test('what the server has already is a duplicate there, and done here', async () => {
    const it = await pair({ tenants: [tenant()], ...QUICK });
    const { server, send } = it;
    const { source, frame } = await page(it);
    // It stores, and its answer is lost.
    server.plans.push((request, response, body) => {
      server.stored.push(body);
      response.destroy();
    });
    assert.deepEqual((await receipt(await send(frame(1)))).sums, [0, 0, 0, 1]);
    await until('it at the server once more', () => server.stored.length === 3);
    assert.deepEqual(stored(server), [`${source}/0`, `${source}/1`, `${source}/1`], 'the same bytes, which the server knows');
    const [, one, two] = server.framesStored();
    assert.deepEqual(one.bytes, two.bytes);
    assert.deepEqual(one.annotation, two.annotation, 'noted is what was noted when it came');
  });

  test('what nobody answers for does not fill it', async () => {
    const it = await pair({ tenants: [tenant()], ...QUICK });
    const { server, send, tenant: shop } = it;
    await page(it);
    await server.stop();
    const writeKey = `fh_${shop.id}_${'x'.repeat(24)}`;
    await refusal(await send(shop.frame({ source: newSource(), writeKey })), 503, 'unavailable');
    await server.restart();
  });

  test("a call of Segment's is answered as Segment does, and says in its receipt what became of it", async () => {
    const it = await pair({ tenants: [tenant()], ...QUICK, SPOOL_SHARDS: '1' });
    const { server, edge, tenant: shop } = it;
    const post = (batch) =>
      fetch(`${edge.url}/v1/batch`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ writeKey: shop.writeKey, batch }) });
    const message = (messageId, more = {}) => ({ type: 'track', event: 'Order', userId: 'u', messageId, timestamp: '2026-01-01T00:00:00Z', ...more });
    assert.equal((await post([message('a')])).headers.get('firsthop-receipt'), 'stored=1, duplicate=0, conflict=0, quarantined=0');
    await server.stop();
    // One that is bad spoils no other, here neither.
    const answer = await post([message('b'), message('c', { type: 'nonsense' }), message('d')]);
    assert.deepEqual([answer.status, await answer.json()], [200, { success: true }]);
    assert.equal(answer.headers.get('firsthop-receipt'), 'stored=0, duplicate=0, conflict=0, quarantined=1, spooled=2');
    await server.restart();
    await until('all at the server', () => server.stored.length === 3);
    assert.deepEqual(server.opened().map(({ annotation }) => annotation.refused).sort(), ['', '', 'malformed-json']);
  });
});
