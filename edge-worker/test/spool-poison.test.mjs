// Frames that will not pass, and sources that have many: they wait by themselves, and nobody waits for them.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { pair, refusal } from './pair.mjs';
import { Tenant, json, kit, newSource, problem } from './server.mjs';
import { until as wait } from './wait.mjs';

/** What fails by itself is tried seldom, and a busy machine does the rest. */
const until = (what, probe) => wait(what, probe, { within: 300_000 });

const STATUS_TOKEN = 'operators';
/** One shard, so that all are in it, and pauses that a test can wait for. */
const ONE = { SPOOL_RETRY_MS: '20', SPOOL_SHARDS: '1', STATUS_TOKEN };
/** Longer ones, where a frame must not have had its eight attempts before a busy machine comes to what the test does next. */
const PATIENT = { ...ONE, SPOOL_RETRY_MS: '100' };
const tenant = () => new Tenant(0xc8);

/** The sources of the frames that the server has stored, in their order. */
const sources = (server) => server.framesStored().map(({ source }) => source);

/** Of one source, in the order in which the server had them. */
const order = (server, source) => server.framesStored().filter((frame) => frame.source === source).map(({ firstSeq }) => firstSeq);

async function sums(answer) {
  assert.equal(answer.status, 200, await answer.clone().text());
  const { stored, duplicate, conflict, spooled = 0, count } = await answer.json();
  assert.equal(stored + duplicate + conflict + spooled, count);
  return [stored, duplicate, conflict, spooled];
}

const STORED = [1, 0, 0, 0];
const SPOOLED = [0, 0, 0, 1];

/** What the spool says of itself. */
async function spool({ edge }) {
  const answer = await fetch(`${edge.url}/statusz`, { headers: { authorization: `Bearer ${STATUS_TOKEN}` } });
  return (await answer.json()).tenants[0].spool;
}

const POISON = [{ name: 'Poison' }];
const good = (shop, more) => shop.frame({ source: newSource(), ...more });

/** Has the server answer so to whatever has the poison in it. */
const poisoned = (server, answer) => {
  server.always = (request, response, body) => {
    if (!body.includes('Poison')) return false;
    answer(request, response, body);
    return true;
  };
};

const html = (status) => (request, response) => response.writeHead(status, { 'content-type': 'text/html' }).end('<h1>Go away');
const says = (status, code, headers) => (request, response) => problem(response, status, code, headers);

describe('a frame that will not pass', { concurrency: 4 }, () => {
  for (const [what, answer] of [
    ['503 and a time', says(503, 'unavailable', { 'retry-after': '60' })],
    ['that quarantine is full', says(503, 'quarantine-full', { 'retry-after': '60' })],
    ["a firewall's 403", html(403)],
    ['500', says(500, 'internal')],
  ]) {
    test(`stops no other when it is answered with ${what}`, async () => {
      const it = await pair({ tenants: [tenant()], ...ONE });
      const { server, send, tenant: shop } = it;
      poisoned(server, answer);
      const source = newSource();
      assert.deepEqual(await sums(await send(shop.frame({ source, events: POISON }))), SPOOLED);
      const others = Array.from({ length: 20 }, newSource);
      for (const other of others) assert.ok((await sums(await send(shop.frame({ source: other })))).includes(1));
      await until('all others at the server', () => others.every((other) => sources(server).includes(other)));
      await until('frames to go to the server by themselves', async () => `${await sums(await send(good(shop)))}` === `${STORED}`);
      // What the server has, the spool lets go of once it has heard so.
      await until('it alone to wait', async () => (await spool(it)).frames === 1);
      assert.equal(sources(server).length, new Set(sources(server)).size, 'each once');
    });
  }

  for (const [what, answer] of [
    ['500', says(500, 'internal')],
    ['503 and a time', says(503, 'unavailable', { 'retry-after': '60' })],
    ["a firewall's 403", html(403)],
    ['a broken connection', (request, response) => response.destroy()],
  ]) {
    test(`and thirteen others like it stand before what is good, and it gets through: ${what}`, async () => {
      const it = await pair({ tenants: [tenant()], ...ONE });
      const { server, send, tenant: shop } = it;
      await sums(await send(good(shop)));
      await server.stop();
      // First in any order: by when they came, and by their ids.
      const bad = Array.from({ length: 14 }, (_, i) => `00000000-0000-7000-8000-${`${i}`.padStart(12, '0')}`);
      for (const source of bad) assert.deepEqual(await sums(await send(shop.frame({ source, events: POISON }))), SPOOLED);
      const fine = Array.from({ length: 3 }, newSource);
      for (const source of fine) for (const first of [0, 1]) assert.deepEqual(await sums(await send(shop.frame({ source, first, batch: first }))), SPOOLED);
      poisoned(server, answer);
      await server.restart();
      await until('the good ones at the server', () => fine.every((source) => order(server, source).length === 2));
      for (const source of fine) assert.deepEqual(order(server, source), [0, 1]);
      await until('the spool to hear of it, and throw nothing away', async () => (await spool(it)).frames === bad.length);
      server.always = undefined;
      if (what !== '503 and a time') await until('the bad ones, which are not bad any more', () => bad.every((source) => sources(server).includes(source)));
      assert.equal(server.stored.length, new Set(server.framesStored().map(({ source, firstSeq }) => `${source}/${firstSeq}`)).size, 'each once');
    });
  }

  test('and has a long queue behind it of its own source, holds up no other source', async () => {
    const it = await pair({ tenants: [tenant()], ...PATIENT });
    const { server, send, tenant: shop } = it;
    await sums(await send(good(shop)));
    await server.stop();
    const source = '00000000-0000-7000-8000-000000000000';
    assert.deepEqual(await sums(await send(shop.frame({ source, events: POISON }))), SPOOLED);
    for (let first = 1; first < 100; first += 1) assert.deepEqual(await sums(await send(shop.frame({ source, first, batch: first }))), SPOOLED);
    const other = newSource();
    assert.deepEqual(await sums(await send(shop.frame({ source: other }))), SPOOLED);
    poisoned(server, says(500, 'internal'));
    await server.restart();
    await until('the other at the server', () => sources(server).includes(other));
    server.always = undefined;
    await until('all of it', () => server.stored.length === 102);
    assert.deepEqual(order(server, source), Array.from({ length: 100 }, (_, first) => first));
  });
});

describe('what one has of the spool', { concurrency: 4 }, () => {
  test('frames that fail by themselves get a quarter, and those that come while the server is away the rest', async () => {
    const it = await pair({ tenants: [tenant()], ...ONE, SPOOL_FRAMES: '8' });
    const { server, send, tenant: shop } = it;
    poisoned(server, html(413));
    const frames = Array.from({ length: 3 }, () => good(shop, { events: POISON }));
    for (const frame of frames.slice(0, 2)) assert.deepEqual(await sums(await send(frame)), SPOOLED);
    assert.equal((await refusal(await send(frames[2]), 503, 'unavailable')).detail, 'the spool is full');
    assert.deepEqual(await sums(await send(good(shop))), STORED, 'others do not come near it');
    await server.stop();
    for (let i = 0; i < 6; i += 1) assert.deepEqual(await sums(await send(good(shop))), SPOOLED);
    assert.equal((await refusal(await send(good(shop)), 503, 'unavailable')).detail, 'the spool is full');
    server.always = undefined;
    await server.restart();
    await until('all of them at the server', () => server.stored.length === 9);
    assert.equal((await spool(it)).full, 2);
  });

  test('one source gets half', async () => {
    const it = await pair({ tenants: [tenant()], ...ONE, SPOOL_FRAMES: '6' });
    const { server, send, tenant: shop } = it;
    await sums(await send(good(shop)));
    await server.stop();
    const source = newSource();
    const frame = (first) => shop.frame({ source, first, batch: first });
    for (const first of [0, 1, 2]) assert.deepEqual(await sums(await send(frame(first))), SPOOLED);
    assert.equal((await refusal(await send(frame(3)), 503, 'unavailable')).detail, 'the spool is full');
    for (let i = 0; i < 3; i += 1) assert.deepEqual(await sums(await send(good(shop))), SPOOLED);
    await refusal(await send(good(shop)), 503, 'unavailable');
    await server.restart();
    await until('room again', async () => (await send(frame(3))).status === 200);
    await until('all at the server', () => server.stored.length === 8);
    assert.deepEqual(order(server, source), [0, 1, 2, 3]);
  });

  test('frames that nobody here can check get none: their sender keeps them', async () => {
    const it = await pair({ tenants: [tenant()], ...ONE });
    const { server, send, tenant: shop } = it;
    await sums(await send(good(shop)));
    const foreign = (source, more) => {
      // Granted by another edge, as anybody could say.
      const session = { ...shop.session({ source, origin: '', worker: 99 }), secret: Buffer.alloc(32).toString('base64') };
      return shop.frame({ source, session, ...more });
    };
    await server.stop();
    for (let i = 0; i < 3; i += 1) await refusal(await send(foreign(newSource())), 503, 'unavailable');
    assert.equal((await spool(it)).takenFrames, 0);
    // Nor where it is known that the server is away, and that something of their source waits.
    const source = newSource();
    assert.deepEqual(await sums(await send(shop.frame({ source }))), SPOOLED);
    const later = foreign(source, { first: 1, batch: 1 });
    await refusal(await send(later), 503, 'unavailable');
    assert.equal((await spool(it)).takenFrames, 1);
    await server.restart();
    await until('it at the server, when it is back', async () => (await send(later)).status === 200);
    assert.deepEqual(order(server, source), [0, 1]);
  });
});

describe('an answer that is not about the frame', { concurrency: 4 }, () => {
  const of = (shop, body) => kit({ do: 'read', frame: shop.open(body).frame }).header;
  for (const [what, wrong] of [
    ['of another source', { source: newSource() }],
    ['of another batch', { batch: 7 }],
    ['of other events', { first: 7 }],
    ['of none of its events', { count: 0, stored: 0 }],
    ['that does not account for them', { stored: 0 }],
    ['that says some wait somewhere else', { stored: 0, spooled: 1 }],
  ]) {
    test(`is no receipt: ${what}`, async () => {
      const it = await pair({ tenants: [tenant()], ...ONE });
      const { server, send, tenant: shop } = it;
      const plan = (request, response, body) => {
        const { source, batchSeq: batch, firstSeq: first, count } = of(shop, body);
        json(response, 200, { source, batch, first, count, stored: count, duplicate: 0, conflict: 0, ...wrong });
      };
      // Twice: the spool meets with it, too.
      server.plans.push(plan, plan);
      const source = newSource();
      assert.deepEqual(await sums(await send(shop.frame({ source }))), SPOOLED);
      await until('it at the server', () => sources(server).includes(source));
      assert.equal(server.received.length, 3);
    });
  }

  for (const [what, answer] of [
    ['a proxy will not have it', html(413)],
    ['a firewall will not have it', html(403)],
    ['an address leads elsewhere', html(404)],
    ['quarantine has no room for a conflict', says(503, 'quarantine-full', { 'retry-after': '1' })],
  ]) {
    test(`does not keep a page's queue for ever: ${what}`, async () => {
      const it = await pair({ tenants: [tenant()], ...PATIENT });
      const { server, send, tenant: shop } = it;
      poisoned(server, answer);
      const source = newSource();
      const frame = (first, more) => shop.frame({ source, first, batch: first, ...more });
      assert.deepEqual(await sums(await send(frame(0, { events: POISON }))), SPOOLED);
      // Behind it, and not before it.
      assert.deepEqual(await sums(await send(frame(1))), SPOOLED);
      assert.deepEqual(order(server, source), []);
      server.always = undefined;
      await until('both at the server', () => order(server, source).length === 2);
      assert.deepEqual(order(server, source), [0, 1]);
    });
  }

  test('what is refused is refused, also where nobody has room to keep it', async () => {
    const it = await pair({ tenants: [tenant()], ...ONE });
    const { server, send, tenant: shop } = it;
    const damaged = Buffer.from(good(shop));
    damaged[120] ^= 1;
    for (const plan of [says(503, 'quarantine-full', { 'retry-after': '60' }), html(413)]) {
      server.plans.push(plan);
      const answer = await send(damaged);
      assert.equal(answer.headers.get('firsthop-receipt'), null, 'nobody says that it is kept');
      await refusal(answer, 400, 'bad-crc');
    }
    // The server's own word on a frame that this edge could not check.
    server.plans.push(says(401, 'bad-signature', { 'firsthop-receipt': 'stored=0, duplicate=0, conflict=0, quarantined=0' }));
    const source = newSource();
    const session = { ...shop.session({ source, origin: '', worker: 99 }), secret: Buffer.alloc(32).toString('base64') };
    await refusal(await send(shop.frame({ source, session })), 401, 'bad-signature');
    assert.equal((await spool(it)).takenFrames, 0);
  });

  test('what waits is kept until there is room to set it aside', async () => {
    const it = await pair({ tenants: [tenant()], ...ONE });
    const { server, send, tenant: shop } = it;
    const receipt = (quarantined) => ({ 'firsthop-receipt': `stored=0, duplicate=0, conflict=0, quarantined=${quarantined}` });
    server.plans.push(says(503, 'unavailable'), says(400, 'malformed-payload', receipt(0)), says(400, 'malformed-payload', receipt(1)));
    assert.deepEqual(await sums(await send(good(shop))), SPOOLED);
    await until('it to be set aside', async () => (await spool(it)).quarantined === 1);
    assert.deepEqual([(await spool(it)).frames, server.received.length], [0, 3]);
  });
});
