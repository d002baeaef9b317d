// Nothing that a page does, and nothing that it lacks, makes the SDK throw; and one bad call spoils no other.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ENDPOINT, WRITE_KEY, open } from './support/page.mjs';

const METHODS = ['load', 'track', 'page', 'identify', 'group', 'alias', 'consent', 'reset', 'on', 'off', 'flush'];

const thrower = () => {
  throw new Error('not ours');
};
const hostile = () => {
  const revoked = Proxy.revocable({}, {});
  revoked.revoke();
  const cyclic = {};
  cyclic.self = cyclic;
  return [
    undefined, null, true, 0, -1, NaN, '', 'text', '\ud800', 10n, 2n ** 70n, Symbol('s'), thrower, class {}, /x/g,
    [], [[]], {}, cyclic, new Date(NaN), new Map(), new Proxy({}, {}), revoked.proxy, globalThis, Object.create(null),
    new Proxy({ a: 1 }, { get: thrower }),
    new Proxy({ a: 1 }, { ownKeys: thrower }),
    new Proxy({ a: 1 }, { getOwnPropertyDescriptor: thrower }),
    new Proxy([1], { get: thrower }),
    { get a() { return thrower(); } },
    { toJSON: thrower },
    { toString: thrower, valueOf: thrower },
    { toJSON: () => cyclic },
    { a: { get b() { return thrower(); } } },
    { event: 'x', get properties() { return thrower(); } },
    { get context() { return thrower(); } },
    { context: cyclic, timestamp: {}, userId: Symbol('s'), anonymousId: {} },
    { timestamp: Symbol('s') },
    { timestamp: 10n },
    { userId: { toString: thrower } },
    { analytics: thrower, get marketing() { return thrower(); } },
    { get endpoint() { return thrower(); }, writeKey: WRITE_KEY },
    { endpoint: { toString: thrower }, writeKey: WRITE_KEY },
    { deep: Array.from({ length: 50 }).reduce((inner) => ({ inner }), {}) },
    Array.from({ length: 5000 }, (_, i) => i),
    Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`k${i}`, i])),
    'x'.repeat(100_000),
    new Proxy(function () {}, { get: thrower, apply: thrower }),
  ];
};

/** Fails if anything reaches the page. */
function watch(t) {
  const escaped = [];
  const note = (error) => escaped.push(error);
  process.on('unhandledRejection', note);
  process.on('uncaughtException', note);
  t.after(() => {
    process.off('unhandledRejection', note);
    process.off('uncaughtException', note);
    assert.deepEqual(escaped, []);
  });
}

for (const when of ['before load', 'while loading', 'loaded']) {
  test(`any method takes anything, ${when}`, async (t) => {
    watch(t);
    const page = await open(t);
    if (when === 'loaded') await page.load();
    const loading = when === 'while loading' && page.load();
    const values = hostile();
    for (const method of METHODS) {
      page.firsthop[method]();
      for (const [i, value] of values.entries()) {
        const other = values[(i * 7 + 3) % values.length];
        for (const args of [[value], ['Name', value], ['Name', value, other], [value, other, value, other], ['a', 'b', value, other]]) {
          if (method === 'load' && when !== 'loaded') continue;
          const result = page.firsthop[method](...args);
          if (method === 'flush') assert.ok(result instanceof Promise);
        }
      }
    }
    for (const name of ['delivered', 'error', 'retry', 'dropped']) for (const value of values) if (typeof value !== 'symbol') page.firsthop.off(name, value);
    await loading;
    if (when === 'before load') await page.load();
    await page.pass(5000);
    const before = page.events().length;
    assert.ok(before > 100, `${before} events came of it`);
    page.firsthop.reset();
    page.firsthop.track('and still', { it: 'works' });
    await page.firsthop.flush();
    assert.deepEqual(page.events().at(-1).properties, { it: 'works' });
    let next = 0;
    for (const { firstSeq, count, dropped } of page.frames()) {
      assert.equal(firstSeq, next + dropped, 'no gap but for what was given up');
      next = firstSeq + count;
    }
  });
}

test('listeners that throw are told of once, and do not keep others from hearing', async (t) => {
  watch(t);
  const page = await open(t);
  for (const name of ['delivered', 'error', 'dropped', 'retry']) page.firsthop.on(name, thrower);
  const heard = [];
  page.firsthop.on('delivered', (event) => heard.push(event));
  page.firsthop.on('error', (event) => heard.push(event));
  await page.load();
  page.firsthop.track('x');
  page.firsthop.track();
  page.firsthop.track('y', thrower);
  await page.firsthop.flush();
  await page.pass(400);
  assert.deepEqual(heard.map(({ code, count }) => code ?? count), ['invalid', 2, 'callback']);
  assert.equal(page.warnings.length, 1);
});

test('off takes a listener away, and only that', async (t) => {
  const page = await open(t);
  const heard = [];
  const one = () => heard.push('one');
  const two = () => heard.push('two');
  page.firsthop.on('delivered', one);
  page.firsthop.on('delivered', one);
  page.firsthop.on('delivered', two);
  page.firsthop.off('delivered', one);
  page.firsthop.off('retry', two);
  await page.load();
  page.firsthop.track('x');
  await page.firsthop.flush();
  assert.deepEqual(heard, ['two']);
});

test('without a listener, the console hears of each kind of trouble once', async (t) => {
  const page = await open(t);
  await page.load();
  for (let i = 0; i < 3; i++) {
    page.firsthop.track();
    page.firsthop.track('x', { text: 'x'.repeat(40_000) });
  }
  assert.deepEqual(page.warnings, [['firsthop:', 'invalid', undefined], ['firsthop:', 'too-large', 'x']]);
});

test('a call from within a call comes after it', async (t) => {
  const page = await open(t);
  await page.load();
  page.firsthop.on('error', ({ code }) => page.firsthop.track('heard', { code }));
  const cyclic = { name: 'outer' };
  cyclic.self = cyclic;
  cyclic.getter = {
    get now() {
      page.firsthop.track('from a getter', { n: 1 });
      return 'got';
    },
    toJSON() {
      page.firsthop.identify('from-toJSON');
      return { now: this.now };
    },
  };
  page.firsthop.track('outer', cyclic);
  await page.firsthop.flush();
  assert.deepEqual(page.events().map(({ name, kind, properties, context }) => [name || kind, properties, context.user_id]), [
    ['outer', { name: 'outer', getter: { now: 'got' } }, undefined],
    ['heard', { code: 'cyclic' }, undefined],
    ['identify', {}, 'from-toJSON'],
    ['from a getter', { n: 1 }, 'from-toJSON'],
  ]);
});

test('a call that fails is counted', async (t) => {
  const page = await open(t);
  page.listen();
  await page.load();
  page.firsthop.track('x', {}, { get context() { return thrower(); } });
  page.firsthop.page('Category', 'Name', { get path() { return thrower(); } });
  page.firsthop.track('y');
  await page.firsthop.flush();
  assert.deepEqual(page.errors.map(({ code }) => code), ['internal', 'internal']);
  await page.pass(2);
  assert.deepEqual(page.dropped, Array(2).fill({ count: 1, reason: 'internal' }));
  assert.deepEqual(page.frames().map(({ dropped, events }) => [dropped, events.map(({ name }) => name)]), [[2, ['y']]]);
});

test('a listener that tracks what is dropped does not hold up the page', async (t) => {
  const page = await open(t, { answer: () => new TypeError('Failed to fetch') });
  await page.load({ maxQueueBytes: 500 });
  let heard = 0;
  page.firsthop.on('dropped', () => {
    heard++;
    page.firsthop.track('lost one');
  });
  for (let i = 0; i < 50; i++) page.firsthop.track('x', { text: 'y'.repeat(100) });
  assert.equal(heard, 0, 'the calls come back before any listener hears of them');
  await page.pass(20);
  assert.ok(heard > 0);
});

test('a callback is called in time, whatever becomes of the event', async (t) => {
  const page = await open(t, { answer: () => new TypeError('Failed to fetch') });
  const called = [];
  page.firsthop.track('before load', () => called.push('before load'));
  await page.pass(301);
  assert.deepEqual(called, ['before load']);
  await page.load();
  page.firsthop.track('', {}, () => called.push('invalid'));
  page.firsthop.track('unreachable', () => called.push('unreachable'));
  await page.pass(301);
  assert.deepEqual(called, ['before load', 'invalid', 'unreachable']);
});

test('a listener that tracks what is delivered', async (t) => {
  const page = await open(t);
  let more = 3;
  page.firsthop.on('delivered', () => more-- > 0 && page.firsthop.track('again'));
  await page.load();
  page.firsthop.track('x');
  await page.pass(10_000);
  assert.deepEqual(page.events().map(({ name, seq }) => [name, seq]), [['x', 0], ['again', 1], ['again', 2], ['again', 3]]);
});

for (const [what, options] of [
  ['a fetch that throws', { globals: { fetch: thrower } }],
  ['no fetch', { globals: { fetch: undefined } }],
  ['no beacon', { navigator: { sendBeacon: undefined }, globals: { Request: class {} } }],
  ['a beacon that throws', { navigator: { sendBeacon: thrower }, globals: { Request: class {} } }],
  ['no location', { globals: { location: undefined } }],
  ['no document', { globals: { document: undefined } }],
  ['no navigator', { globals: { navigator: undefined } }],
  ['no crypto', { globals: { crypto: undefined } }],
  ['no screen', { globals: { screen: undefined } }],
  ['no events', { globals: { addEventListener: undefined } }],
  ['no Intl', { globals: { Intl: undefined } }],
  ['no TextEncoder', { globals: { TextEncoder: undefined } }],
  ['no Request', { globals: { Request: undefined } }],
  ['no AbortSignal.timeout', { globals: { AbortSignal: class {} } }],
]) {
  test(`${what}: nothing thrown`, async (t) => {
    watch(t);
    const page = await open(t, options);
    await page.load();
    page.firsthop.page('Name', () => {});
    page.firsthop.track('x', { n: 1 }, thrower);
    page.firsthop.consent({ analytics: true });
    page.firsthop.reset();
    page.fire('pagehide');
    page.fire('visibilitychange');
    page.fire('pageshow', { persisted: true });
    await page.pass(2000);
    await page.firsthop[page.requests.length ? 'flush' : 'track']('y');
  });
}

test('without AbortSignal.timeout, events arrive', async (t) => {
  const page = await open(t, { globals: { AbortSignal: class {} } });
  await page.load();
  page.firsthop.track('x');
  await page.firsthop.flush();
  assert.equal(page.events().length, 1);
});

test('a module that does not come is asked for again', async (t) => {
  const page = await open(t);
  page.listen();
  const { fetch } = globalThis;
  let tries = 0;
  page.module = () => (++tries < 3 ? Promise.reject(new TypeError('Failed to fetch')) : ((page.module = undefined), fetch('firsthop.wasm')));
  page.firsthop.load({ endpoint: ENDPOINT, writeKey: WRITE_KEY });
  page.firsthop.track('x');
  await page.passUntil(page.firsthop.flush());
  assert.deepEqual(page.events().map(({ name }) => name), ['x']);
  assert.deepEqual(page.errors.map(({ code }) => code), ['wasm', 'wasm']);
});

test('without WebAssembly, every event is given up and says so', async (t) => {
  watch(t);
  const page = await open(t);
  page.module = () => Promise.resolve(new Response('<html>not found</html>', { status: 404 }));
  page.listen();
  page.firsthop.load({ endpoint: ENDPOINT, writeKey: WRITE_KEY });
  page.firsthop.track('x');
  page.firsthop.track('y');
  await page.passUntil(page.firsthop.flush());
  let called = 0;
  page.firsthop.track('z', () => called++);
  await page.pass(1000);
  assert.deepEqual(page.dropped, Array(3).fill({ count: 1, reason: 'wasm' }));
  assert.deepEqual(page.errors.map(({ code }) => code), Array(5).fill('wasm'));
  assert.equal(called, 1, 'a visitor who follows a link is not kept');
});

test('a long visit without an endpoint does not grow', async (t) => {
  const page = await open(t, { answer: () => new TypeError('Failed to fetch') });
  await page.load({ maxQueueBytes: 200_000 });
  for (let i = 0; i < 20_000; i++) page.firsthop.track('x', { i, text: 'y'.repeat(100) });
  await page.pass(2);
  assert.ok(page.dropped.length > 15_000);
  assert.equal(page.dropped.length + new Set(page.events().map(({ seq }) => seq)).size < 20_000, true, 'the rest waits');
});
