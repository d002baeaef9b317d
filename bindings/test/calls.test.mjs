// The public methods: every form in which people who know analytics.js call them, who the visitor is, and what he agreed to.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ENDPOINT, WRITE_KEY, open, receipt } from './support/page.mjs';

const P = { a: 1 };
const O = { context: { o: 1 } };
const F = () => {};

/** Calls → kind, name, properties, and whether the options were found. */
const FORMS = [
  ['track', ['Name'], ['track', 'Name', {}, false]],
  ['track', ['Name', P], ['track', 'Name', P, false]],
  ['track', ['Name', P, O], ['track', 'Name', P, true]],
  ['track', ['Name', P, O, F], ['track', 'Name', P, true]],
  ['track', ['Name', P, F], ['track', 'Name', P, false]],
  ['track', ['Name', F], ['track', 'Name', {}, false]],
  ['track', ['Name', null, O], ['track', 'Name', {}, true]],
  ['track', ['Name', undefined, O, F], ['track', 'Name', {}, true]],
  ['track', ['Name', null, F], ['track', 'Name', {}, false]],
  ['track', ['Name', 'text'], ['track', 'Name', {}, false]],
  ['track', ['Name', [1]], ['track', 'Name', {}, false]],
  ['track', [{ event: 'Name', properties: P }], ['track', 'Name', P, false]],
  ['track', [{ event: 'Name', properties: P }, O, F], ['track', 'Name', P, true]],
  ['track', [{ event: 'Name' }, F], ['track', 'Name', {}, false]],
  ['track', [42], ['track', '42', {}, false]],

  ['page', [], ['page', '', {}, false]],
  ['page', [F], ['page', '', {}, false]],
  ['page', ['Name'], ['page', 'Name', {}, false]],
  ['page', ['Name', F], ['page', 'Name', {}, false]],
  ['page', ['Category', 'Name'], ['page', 'Name', { category: 'Category' }, false]],
  ['page', ['Category', 'Name', P], ['page', 'Name', { category: 'Category', ...P }, false]],
  ['page', ['Category', 'Name', P, O], ['page', 'Name', { category: 'Category', ...P }, true]],
  ['page', ['Category', 'Name', P, O, F], ['page', 'Name', { category: 'Category', ...P }, true]],
  ['page', ['Category', 'Name', P, F], ['page', 'Name', { category: 'Category', ...P }, false]],
  ['page', ['Category', 'Name', F], ['page', 'Name', { category: 'Category' }, false]],
  ['page', ['Category', 'Name', null, O], ['page', 'Name', { category: 'Category' }, true]],
  ['page', ['Category', 'Name', { category: 'Own' }], ['page', 'Name', { category: 'Own' }, false]],
  ['page', ['Name', P], ['page', 'Name', P, false]],
  ['page', ['Name', P, O], ['page', 'Name', P, true]],
  ['page', ['Name', P, O, F], ['page', 'Name', P, true]],
  ['page', ['Name', P, F], ['page', 'Name', P, false]],
  ['page', [P], ['page', '', P, false]],
  ['page', [P, O], ['page', '', P, true]],
  ['page', [P, O, F], ['page', '', P, true]],
  ['page', [P, F], ['page', '', P, false]],
  ['page', [null, 'Name', P], ['page', 'Name', P, false]],
  ['page', [undefined, 'Name'], ['page', 'Name', {}, false]],
  ['page', ['Name', null, P], ['page', 'Name', P, false]],
  ['page', [null, P], ['page', '', P, false]],
  ['page', [undefined, undefined, undefined, O], ['page', '', {}, true]],

  ['identify', ['u'], ['identify', '', {}, false, 'u']],
  ['identify', ['u', P], ['identify', '', P, false, 'u']],
  ['identify', ['u', P, O], ['identify', '', P, true, 'u']],
  ['identify', ['u', P, O, F], ['identify', '', P, true, 'u']],
  ['identify', ['u', P, F], ['identify', '', P, false, 'u']],
  ['identify', ['u', F], ['identify', '', {}, false, 'u']],
  ['identify', ['u', null, O], ['identify', '', {}, true, 'u']],
  ['identify', [7, P], ['identify', '', P, false, '7']],
  ['identify', [0], ['identify', '', {}, false, '0']],
  ['identify', [P], ['identify', '', P, false, undefined]],
  ['identify', [P, O], ['identify', '', P, true, undefined]],
  ['identify', [P, O, F], ['identify', '', P, true, undefined]],
  ['identify', [P, F], ['identify', '', P, false, undefined]],
  ['identify', [null, P], ['identify', '', P, false, undefined]],
  ['identify', [undefined, P, O], ['identify', '', P, true, undefined]],
  ['identify', [], ['identify', '', {}, false, undefined]],

  ['group', ['g'], ['group', 'g', {}, false]],
  ['group', ['g', P], ['group', 'g', P, false]],
  ['group', ['g', P, O], ['group', 'g', P, true]],
  ['group', ['g', P, O, F], ['group', 'g', P, true]],
  ['group', ['g', P, F], ['group', 'g', P, false]],
  ['group', ['g', F], ['group', 'g', {}, false]],
  ['group', [7], ['group', '7', {}, false]],
  ['group', [P], ['group', '', P, false]],

  ['alias', ['new', 'old'], ['alias', 'old', {}, false, 'new']],
  ['alias', ['new', 'old', O], ['alias', 'old', {}, true, 'new']],
  ['alias', ['new', 'old', O, F], ['alias', 'old', {}, true, 'new']],
  ['alias', ['new', 'old', F], ['alias', 'old', {}, false, 'new']],
  ['alias', ['new', O], ['alias', '<anonymous>', {}, true, 'new']],
  ['alias', ['new', F], ['alias', '<anonymous>', {}, false, 'new']],
  ['alias', ['new'], ['alias', '<anonymous>', {}, false, 'new']],
  ['alias', [8, 7], ['alias', '7', {}, false, '8']],
];

test('the argument forms of analytics.js', async (t) => {
  const page = await open(t);
  page.listen();
  await page.load();
  for (const [method, args] of FORMS) {
    page.firsthop[method](...args);
    if (method === 'identify' || method === 'alias') page.firsthop.reset();
  }
  await page.firsthop.flush();
  const events = page.events();
  assert.equal(events.length, FORMS.length);
  for (const [i, [method, args, [kind, name, properties, options, userId]]] of FORMS.entries()) {
    const { context, ...event } = events[i];
    const expected = name === '<anonymous>' ? context.anonymous_id : name;
    assert.deepEqual([event.kind, event.name, event.properties, context.extra !== undefined, context.user_id], [kind, expected, properties, options, userId], `${method}(${JSON.stringify(args)})`);
  }
  assert.deepEqual(page.errors, []);
});

test('what is no event is no event', async (t) => {
  const page = await open(t);
  page.listen();
  await page.load();
  for (const args of [[], [''], [null], [{}], [{ properties: P }], [[]], [F]]) page.firsthop.track(...args);
  page.firsthop.alias();
  page.firsthop.alias(null, 'old');
  await page.firsthop.flush();
  assert.equal(page.requests.length, 0);
  assert.deepEqual(page.errors.map(({ code }) => code), Array(9).fill('invalid'));
});

test('alias says who the visitor was, and changes nobody', async (t) => {
  const page = await open(t);
  await page.load();
  page.firsthop.identify('u-1');
  page.firsthop.alias('u-2');
  page.firsthop.track('x');
  await page.firsthop.flush();
  const [, alias, track] = page.events();
  assert.deepEqual([alias.name, alias.context.user_id, track.context.user_id], ['u-1', 'u-2', 'u-1']);
});

test('a callback is called once, after the acknowledgement', async (t) => {
  const page = await open(t, { answer: () => 'nothing' });
  await page.load();
  const calls = [];
  page.firsthop.track('x', () => calls.push('x'));
  await page.pass(100);
  assert.deepEqual(calls, []);
  page.requests[0].answer(receipt(page.requests[0].frame));
  await page.settle();
  assert.deepEqual(calls, ['x']);
  await page.pass(1000);
  assert.deepEqual(calls, ['x']);
});

test('a callback does not wait for longer than a visitor would', async (t) => {
  const page = await open(t, { answer: () => 'nothing' });
  await page.load();
  let called = 0;
  page.firsthop.page('Name', P, O, () => called++);
  await page.pass(290);
  assert.equal(called, 0);
  await page.pass(20);
  assert.equal(called, 1);
});

test('a callback of a call that waits for the module', async (t) => {
  const page = await open(t);
  const called = new Promise((resolve) => page.firsthop.identify('u', resolve));
  await page.load();
  await called;
  assert.equal(page.events().length, 1);
});

test('calls before load wait for it, in order, and a bounded number of them', async (t) => {
  const page = await open(t);
  for (let i = 0; i < 1200; i++) page.firsthop.track(`n${i}`);
  await page.load();
  await page.firsthop.flush();
  page.firsthop.track('last');
  await page.firsthop.flush();
  assert.deepEqual(page.events().map(({ name }) => name), [...Array.from({ length: 1000 }, (_, i) => `n${i}`), 'last']);
  await page.pass(2);
  assert.deepEqual(page.dropped, Array(200).fill({ count: 1, reason: 'not-loaded' }));
  assert.equal(page.frames().reduce((sum, { dropped }) => sum + dropped, 0), 200);
});

test('load wants an endpoint and a write key, once', async (t) => {
  const page = await open(t);
  page.listen();
  const load = (options) => page.firsthop.load(options);
  load();
  load(null);
  load({ endpoint: ENDPOINT });
  for (const writeKey of ['', 'fh_', 'fh_00000000000A11CE_Kq7Zp0c3Vn8Rb5Ls', 'fh_00000000000a11ce_short', `${WRITE_KEY} `, `fh_00000000000a11ce_${'x'.repeat(45)}`, 7]) load({ endpoint: ENDPOINT, writeKey });
  load({ writeKey: WRITE_KEY });
  load({ endpoint: '', writeKey: WRITE_KEY });
  assert.deepEqual(page.errors.map(({ code }) => code), ['internal', 'internal', ...Array(8).fill('write-key'), 'endpoint', 'endpoint']);
  page.errors.length = 0;
  await page.load({ endpoint: new URL(ENDPOINT) });
  load({ endpoint: 'https://other.example', writeKey: WRITE_KEY });
  assert.deepEqual(page.errors.map(({ code }) => code), ['loaded']);
  page.firsthop.track('x');
  await page.firsthop.flush();
  assert.equal(page.requests[0].url, `${ENDPOINT}/v1/f`);
});

test('a write key as long as may be', async (t) => {
  const page = await open(t);
  const writeKey = `fh_fedcba9876543210_${'x'.repeat(44)}`;
  await page.load({ writeKey });
  page.firsthop.track('x');
  await page.firsthop.flush();
  assert.deepEqual([page.frames()[0].writeKey, page.frames()[0].tenant], [writeKey, 'fedcba9876543210']);
});

test('flush before load ends', async (t) => {
  const page = await open(t);
  await page.firsthop.flush();
});

// ---- Consent and ids

const STORED = 'fh_00000000000a11ce';

test('nothing is read or written before the visitor has agreed', async (t) => {
  const touched = [];
  const storage = new Proxy({}, { get: (_, method) => (...args) => void touched.push([method, ...args]) });
  const page = await open(t, { globals: { localStorage: storage } });
  await page.load();
  page.firsthop.track('x');
  page.firsthop.consent({ preferences: true });
  await page.firsthop.flush();
  assert.deepEqual(touched, []);
  assert.equal(page.frames()[0].consent, 0);
  page.firsthop.consent({ analytics: false });
  assert.deepEqual(touched, [['removeItem', STORED]], 'a refusal takes away what was there');
  page.firsthop.consent({ analytics: true });
  assert.deepEqual(touched.slice(1).map(([method]) => method), ['getItem', 'setItem']);
});

test('with consent, the id and the visit outlive the page', async (t) => {
  const first = await open(t);
  await first.load({ consent: { analytics: true } });
  first.firsthop.track('x');
  await first.firsthop.flush();
  const { stored } = first;
  const [{ context }] = first.events();

  const again = async (t, { consent, later, after = 60_000, ...options } = {}) => {
    const page = await open(t, options);
    for (const [key, value] of stored) page.stored.set(key, value);
    t.mock.timers.reset();
    await page.pass(after, after);
    await page.load({ consent });
    if (later) page.firsthop.consent(later);
    page.firsthop.track('y');
    await page.firsthop.flush();
    return { page, context: page.events()[0].context };
  };
  const { mock } = await import('node:test');
  const close = () => mock.timers.reset();

  close();
  await t.test('on the next page', async (t) => {
    const next = await again(t, { consent: { analytics: true } });
    assert.deepEqual([next.context.anonymous_id, next.context.session_id], [context.anonymous_id, context.session_id]);
  });
  await t.test('where consent is known later', async (t) => {
    const next = await again(t, { later: { analytics: true } });
    assert.deepEqual([next.context.anonymous_id, next.context.session_id], [context.anonymous_id, context.session_id]);
  });
  await t.test('a visit ends after half an hour', async (t) => {
    const next = await again(t, { consent: { analytics: true }, after: 31 * 60_000 });
    assert.equal(next.context.anonymous_id, context.anonymous_id);
    assert.notEqual(next.context.session_id, context.session_id);
  });
  await t.test('not without consent', async (t) => {
    const next = await again(t, {});
    assert.notEqual(next.context.anonymous_id, context.anonymous_id);
    assert.deepEqual(next.page.stored, stored, 'and what is there stays as it is');
    next.page.firsthop.reset();
    assert.equal(next.page.stored.size, 0, 'until the visitor is forgotten');
  });
  await t.test('not under Global Privacy Control', async (t) => {
    const next = await again(t, { consent: { analytics: true, marketing: true }, navigator: { globalPrivacyControl: true } });
    assert.notEqual(next.context.anonymous_id, context.anonymous_id);
    assert.equal(next.page.stored.size, 0);
    assert.equal(next.page.frames()[0].consent, 0b0011, 'and no marketing');
  });
});

test('a visit ends after half an hour in which nothing happened, on one page too', async (t) => {
  const page = await open(t);
  await page.load();
  for (const pause of [0, 29 * 60_000, 29 * 60_000, 31 * 60_000]) {
    await page.pass(pause, 60_000);
    page.firsthop.track('x');
  }
  await page.firsthop.flush();
  const [a, b, c, d] = page.events().map(({ context }) => context.session_id);
  assert.deepEqual([a === b, b === c, c === d], [true, true, false]);
});

test('a visit that goes on is written down as such', async (t) => {
  const page = await open(t);
  await page.load({ persist: true });
  const before = page.stored.get(STORED);
  await page.pass(6000);
  page.firsthop.track('x');
  assert.equal(Number(page.stored.get(STORED).split(' ')[2]) - Number(before.split(' ')[2]), 6000);
});

test('persist without consent; and consent refused is stronger', async (t) => {
  const page = await open(t);
  await page.load({ persist: true });
  assert.equal(page.stored.size, 1);
  const [id] = page.stored.get(STORED).split(' ');
  page.firsthop.track('a');
  page.firsthop.consent({ analytics: false });
  assert.equal(page.stored.size, 0);
  page.firsthop.track('b');
  await page.firsthop.flush();
  const [a, b] = page.events().map(({ context }) => context.anonymous_id);
  assert.equal(a, id);
  assert.notEqual(b, id, 'what was written down is not used on');
});

test('the purposes stand in the frame; each event has those of its moment', async (t) => {
  const page = await open(t);
  await page.load({ gpc: true });
  page.firsthop.track('nothing said');
  page.firsthop.consent({ analytics: true });
  page.firsthop.track('analytics');
  page.firsthop.consent({ marketing: true, preferences: true });
  page.firsthop.track('all');
  page.firsthop.consent({ analytics: false, necessary: false });
  page.firsthop.track('some');
  page.firsthop.consent();
  page.firsthop.consent({ unknown: true });
  page.firsthop.track('the same');
  await page.firsthop.flush();
  assert.deepEqual(page.frames().flatMap(({ consent, events }) => events.map(({ name }) => [name, consent])), [
    ['nothing said', 0],
    ['analytics', 0b0011],
    ['all', 0b1111],
    ['some', 0b1100],
    ['the same', 0b1100],
  ]);
});

test('Global Privacy Control can be left to the page', async (t) => {
  const page = await open(t, { navigator: { globalPrivacyControl: true } });
  await page.load({ gpc: false, consent: { analytics: true, marketing: true } });
  assert.equal(page.stored.size, 1);
  page.firsthop.track('x');
  await page.firsthop.flush();
  assert.equal(page.frames()[0].consent, 0b1011);
});

test('storage that is closed, full or strange is no reason not to track', async (t) => {
  for (const localStorage of [
    undefined,
    { getItem: () => assert.fail('closed'), setItem: () => assert.fail('full'), removeItem: () => assert.fail('closed') },
    { getItem: () => '', setItem() {}, removeItem() {} },
    { getItem: () => '{"not":"ours"}', setItem() {}, removeItem() {} },
  ]) {
    await t.test(async (t) => {
      const page = await open(t, { globals: { localStorage } });
      page.listen();
      await page.load({ persist: true });
      page.firsthop.track('x');
      await page.firsthop.flush();
      assert.ok(page.events()[0].context.anonymous_id.length > 5);
      assert.ok(page.events()[0].context.session_id.length > 5);
      assert.deepEqual(page.errors, []);
    });
  }
});

test('reset is written down', async (t) => {
  const page = await open(t);
  await page.load({ persist: true });
  const before = page.stored.get(STORED);
  page.firsthop.reset();
  page.firsthop.track('x');
  await page.firsthop.flush();
  assert.notEqual(page.stored.get(STORED), before);
  assert.equal(page.stored.get(STORED).split(' ')[0], page.events()[0].context.anonymous_id);
});
