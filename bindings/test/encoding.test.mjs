// What a page hands over, and what arrives.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { GRANT, NOW, SECRET, WRITE_KEY, open } from './support/page.mjs';
import { signedWith } from './support/wire.mjs';

/** What arrives of the properties of one event. */
async function carried(t, properties) {
  const page = await open(t);
  page.listen();
  await page.load();
  page.firsthop.track('Event', properties);
  await page.pass(10);
  return { page, read: page.events()[0]?.properties };
}

test('values arrive as JSON.stringify would write them', async (t) => {
  class Money {
    constructor(amount) {
      this.amount = amount;
    }
    get shown() {
      return `${this.amount} €`;
    }
  }
  const date = new Date(0);
  const properties = {
    text: 'Käse, 🧀, 漢字 and \u0000',
    empty: '',
    '': 'an empty key',
    'kéy': 1,
    long: 'é'.repeat(300),
    yes: true,
    no: false,
    nothing: null,
    zero: 0,
    minusZero: -0,
    whole: 42,
    negative: -7,
    large: Number.MAX_SAFE_INTEGER,
    larger: 2 ** 60,
    lowest: Number.MIN_SAFE_INTEGER,
    lower: -(2 ** 62),
    fraction: 18.99,
    tiny: 5e-324,
    huge: 1.7976931348623157e308,
    nan: NaN,
    infinite: -Infinity,
    missing: undefined,
    function: () => 1,
    symbol: Symbol('s'),
    [Symbol('key')]: 1,
    date,
    badDate: new Date(NaN),
    own: { toJSON: (key) => `toJSON of ${key}` },
    ownInList: [{ toJSON: (key) => [typeof key, key] }],
    gone: { toJSON: () => undefined },
    boxed: [Object(1), Object('s'), Object(false)],
    list: [1, undefined, () => 1, Symbol('s'), null, , 'x', [], [[2]]],
    nested: { a: { b: [{ c: null }] }, empty: {} },
    instance: new Money(3),
    map: new Map([[1, 2]]),
    set: new Set([1]),
    error: new Error('not said'),
    regexp: /x/,
    typed: new Uint8Array([1, 2]),
    bare: Object.assign(Object.create(null), { a: 1 }),
    inherited: Object.create({ above: 1 }),
  };
  Object.defineProperty(properties, 'hidden', { value: 1, enumerable: false });
  const { page, read } = await carried(t, properties);
  assert.deepEqual(read, JSON.parse(JSON.stringify(properties)));
  assert.deepEqual(Object.keys(read), Object.keys(JSON.parse(JSON.stringify(properties))), 'in their order');
  assert.deepEqual(page.errors, []);
});

test('random values arrive as JSON.stringify would write them', async (t) => {
  // A generator with a seed, so that a failure can be had again.
  let seed = 20260302;
  const random = (below) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % below;
  };
  const alphabet = ['a', 'Z', '0', ' ', '"', '\\', '\n', '\u007f', '\u0080', 'é', '€', '漢', '🧀', '\ud800', '\udfff', '\uffff'];
  const text = () => Array.from({ length: random(90) }, () => alphabet[random(alphabet.length)]).join('');
  const number = () => [random(200) - 100, (random(2 ** 20) - 2 ** 19) * 2 ** random(60), random(1000) / 7, -random(99) / 1e9][random(4)];
  const value = (depth) => {
    const kind = random(depth < 7 ? 9 : 6);
    if (kind < 2) return text();
    if (kind < 4) return number();
    if (kind === 4) return [true, false, null, undefined][random(4)];
    if (kind === 5) return new Date(random(2 ** 24) * 1e5);
    if (kind === 6) return Array.from({ length: random(5) }, () => value(depth + 1));
    return object(depth + 1);
  };
  const object = (depth) => Object.fromEntries(Array.from({ length: random(6) }, (_, i) => [`${i}${text()}`, value(depth)]));

  const page = await open(t);
  page.listen();
  await page.load();
  const given = Array.from({ length: 300 }, () => object(0));
  for (const properties of given) page.firsthop.track('Random', properties);
  await page.firsthop.flush();
  assert.deepEqual(page.errors, []);
  // UTF-8 has no word for half of a surrogate pair: it becomes U+FFFD, as TextEncoder does it.
  const wellFormed = (json) => json.toWellFormed();
  const expected = given.map((properties) => JSON.parse(wellFormed(JSON.stringify(properties).replace(/\\u(d[89a-f]..)/g, (_, hex) => String.fromCharCode(parseInt(hex, 16))))));
  assert.deepEqual(page.events().map(({ properties }) => properties), expected);
});

test('a BigInt is a whole number, or text where 64 bits do not hold it', async (t) => {
  const properties = { one: 1n, minus: -1n, i64: -(2n ** 63n), over: -(2n ** 63n) - 1n, u64: 2n ** 64n - 1n, above: 2n ** 64n, half: 2n ** 32n, snowflake: 1234567890123456789n, list: [2n ** 63n] };
  const { read } = await carried(t, properties);
  assert.deepEqual(read, { one: 1, minus: -1, i64: -(2n ** 63n), over: '-9223372036854775809', u64: 2n ** 64n - 1n, above: '18446744073709551616', half: 2 ** 32, snowflake: 1234567890123456789n, list: [2n ** 63n] });
});

test('text up to and beyond the length that is written byte by byte', async (t) => {
  const properties = {};
  for (const length of [0, 1, 47, 48, 62, 63, 64, 65, 66, 127, 128, 129, 4000]) {
    properties[`ascii ${length}`] = 'x'.repeat(length);
    properties[`last not ${length}`] = `${'x'.repeat(length)}é`;
    properties[`${'k'.repeat(length)}ü`] = length;
  }
  const { read } = await carried(t, properties);
  assert.deepEqual(read, properties);
});

test('a cycle, too deep a nesting and what cannot be read are left out, and the rest arrives', async (t) => {
  const cyclic = { name: 'c', list: [] };
  cyclic.self = cyclic;
  cyclic.list.push(cyclic, 1);
  const deep = (levels) => (levels ? { deeper: deep(levels - 1) } : { bottom: 1 });
  const shared = { twice: 1 };
  const unreadable = {
    get thrown() {
      throw new Error('mine');
    },
    toJSONThrows: {
      toJSON() {
        throw new Error('mine');
      },
    },
    after: 1,
  };
  const { page, read } = await carried(t, { cyclic, fits: deep(7), cut: deep(8), a: shared, b: shared, unreadable, last: 'here' });
  assert.deepEqual(read.cyclic, { name: 'c', list: [null, 1] });
  assert.deepEqual(read.fits, deep(7));
  const cut = deep(8);
  let inner = cut;
  while (inner.deeper.deeper) inner = inner.deeper;
  delete inner.deeper;
  assert.deepEqual(read.cut, cut);
  assert.deepEqual([read.a, read.b], [shared, shared], 'the same object twice is no cycle');
  assert.deepEqual(read.unreadable, { after: 1 });
  assert.equal(read.last, 'here');
  assert.deepEqual(page.errors.map(({ code }) => code), ['cyclic', 'cyclic', 'too-deep', 'unreadable', 'unreadable']);
  assert.deepEqual(page.dropped, []);
});

test('an event over a bound is given up and told in the next frame, and spoils nothing', async (t) => {
  const page = await open(t);
  page.listen();
  await page.load();
  page.firsthop.track('before');
  page.firsthop.track('text', { text: 'x'.repeat(32 * 1024) });
  page.firsthop.track('wide text', { text: '漢'.repeat(11 * 1024) });
  page.firsthop.track('key', { ['k'.repeat(40_000)]: 1 });
  page.firsthop.track('key and text', { ['k'.repeat(33_700)]: 'x'.repeat(60) });
  page.firsthop.track('values', { list: Array.from({ length: 1024 }, (_, i) => i) });
  page.firsthop.track('sparse', { list: new Array(4_000_000_000) });
  page.firsthop.track('n'.repeat(513));
  page.firsthop.track('context', {}, { context: { text: 'x'.repeat(17_000) } });
  page.firsthop.track('after', { n: 1 });
  await page.firsthop.flush();
  page.firsthop.track('later');
  await page.firsthop.flush();
  assert.deepEqual(page.events().map(({ name }) => name), ['before', 'after', 'later']);
  assert.deepEqual(page.events().map(({ seq }) => seq), [7, 9, 10], 'what is given up has the numbers before the frame that says so');
  await page.pass(2);
  assert.deepEqual(page.dropped, Array(8).fill({ count: 1, reason: 'too-large' }));
  assert.equal(page.frames().reduce((sum, { dropped }) => sum + dropped, 0), 8);
  assert.deepEqual(page.errors.map(({ code, cause }) => [code, cause.slice(0, 12)]), ['text', 'wide text', 'key', 'key and text', 'values', 'sparse', 'nnnnnnnnnnnn', 'context'].map((name) => ['too-large', name]));
});

test('the largest event arrives, whatever the frame held before', async (t) => {
  const page = await open(t);
  await page.load();
  const largest = { text: 'x'.repeat(32_700) };
  page.firsthop.track('small', { text: 'y'.repeat(20_000) });
  page.firsthop.track('large', largest);
  page.firsthop.track('large', largest);
  await page.firsthop.flush();
  assert.deepEqual(page.events().map(({ name, properties }) => [name, properties.text.length]), [['small', 20_000], ['large', 32_700], ['large', 32_700]]);
  for (const { length } of page.frames()) assert.ok(length <= 48 * 1024);
});

test('a frame carries the page, its visitor and its session', async (t) => {
  const page = await open(t);
  await page.load({ consent: { analytics: true }, region: 'CH' });
  page.firsthop.page();
  await page.firsthop.flush();
  page.firsthop.identify('u-1', { plan: 'pro' });
  await page.firsthop.flush();
  const [first, second] = page.frames();

  assert.deepEqual(
    { ...first, context: undefined, events: undefined, source: undefined, length: undefined },
    {
      ...{ trust: false, flags: 0, tenant: '00000000000a11ce', keyId: 0, epoch: 0, region: 'CH', alg: 0, consent: 3, count: 1, batch: 0, firstSeq: 0, created: NOW, dropped: 0, writeKey: WRITE_KEY, grant: undefined, sealedTo: undefined, traceparent: undefined },
      ...{ context: undefined, events: undefined, source: undefined, length: undefined },
    },
  );
  assert.match(first.source, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(parseInt(first.source.slice(0, 13).replace('-', ''), 16), NOW, 'a UUIDv7 of now');
  const { anonymous_id, session_id, ...context } = first.context;
  assert.match(anonymous_id, /^[0-9a-f-]{36}$/);
  assert.match(session_id, /^[0-9a-f-]{36}$/);
  assert.notEqual(anonymous_id, session_id);
  assert.deepEqual(context, {
    locale: 'de-CH',
    timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
    url: 'https://shop.example/a?utm_source=news&utm_campaign=spring',
    title: 'A page',
    referrer: 'https://search.example/',
    screen: { width: 1440, height: 900 },
    campaign: { source: 'news', name: 'spring' },
  });

  assert.deepEqual([second.trust, second.alg, second.keyId, second.epoch, second.writeKey, second.batch, second.firstSeq], [true, 1, 7, 492222, undefined, 1, 1]);
  assert.deepEqual(second.grant, GRANT);
  assert.ok(signedWith(page.requests[1].bytes, SECRET));
  assert.ok(!signedWith(page.requests[1].bytes, Buffer.alloc(32)));
  assert.equal(second.context.user_id, 'u-1');
  assert.equal(second.source, first.source);
  assert.deepEqual(second.events[0], { ...second.events[0], kind: 'identify', name: '', properties: { plan: 'pro' }, seq: 1 });
});

test('the region of a session is that of the frames it signs, unless the page says another', async (t) => {
  const page = await open(t);
  await page.load();
  for (let i = 0; i < 2; i++) {
    page.firsthop.track('x');
    await page.firsthop.flush();
  }
  assert.deepEqual(page.frames().map(({ region }) => region), ['--', 'EU']);
});

test('a page says which trace has brought it', async (t) => {
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  for (const [content, expected] of [[traceparent, traceparent], [`${traceparent}-more`, undefined], ['', undefined], ['x'.repeat(3000), undefined]]) {
    await t.test(content.slice(0, 60), async (t) => {
      const page = await open(t, { document: { querySelector: (selector) => (selector === 'meta[name=traceparent]' ? { content } : null) } });
      await page.load();
      page.firsthop.track('A');
      await page.firsthop.flush();
      page.firsthop.identify('u-1');
      await page.pass(2000);
      assert.deepEqual(page.frames().map((frame) => frame.traceparent), [expected, expected]);
      assert.deepEqual(page.frames().map(({ context }) => context.campaign.source), ['news', 'news']);
      assert.deepEqual(page.dropped, []);
    });
  }
});

test('what differs in context stands in a frame of its own', async (t) => {
  const page = await open(t);
  await page.load();
  page.firsthop.track('a');
  page.location.href = 'https://shop.example/b';
  page.document.title = 'Another';
  page.firsthop.track('b');
  page.firsthop.track('b2');
  page.firsthop.identify(7);
  page.firsthop.track('c');
  page.firsthop.track('extra', {}, { context: { app: { version: '1.2' }, ip: null } });
  page.firsthop.track('other user', {}, { userId: 'one-off', anonymousId: 'anon' });
  page.firsthop.track('d');
  page.firsthop.reset();
  page.firsthop.track('e');
  await page.firsthop.flush();
  const events = page.events();
  assert.deepEqual(events.map(({ seq, name, context }) => [seq, name, context.url.slice(20), context.title, context.user_id, context.extra]), [
    [0, 'a', '/a?utm_source=news&utm_campaign=spring', 'A page', undefined, undefined],
    [1, 'b', '/b', 'Another', undefined, undefined],
    [2, 'b2', '/b', 'Another', undefined, undefined],
    [3, '', '/b', 'Another', '7', undefined],
    [4, 'c', '/b', 'Another', '7', undefined],
    [5, 'extra', '/b', 'Another', '7', { app: { version: '1.2' }, ip: null }],
    [6, 'other user', '/b', 'Another', 'one-off', undefined],
    [7, 'd', '/b', 'Another', '7', undefined],
    [8, 'e', '/b', 'Another', undefined, undefined],
  ]);
  const anonymous = events.map(({ context }) => context.anonymous_id);
  assert.equal(new Set(anonymous.filter((_, i) => i !== 6 && i !== 8)).size, 1);
  assert.equal(anonymous[6], 'anon');
  assert.notEqual(anonymous[8], anonymous[0]);
  assert.notEqual(events[8].context.session_id, events[0].context.session_id);
  assert.deepEqual(page.frames().map(({ count }) => count), [1, 2, 2, 1, 1, 1, 1]);
});

test('an aborted context leaves nothing behind', async (t) => {
  const page = await open(t);
  await page.load();
  page.firsthop.track('too large', {}, { userId: 'not me', context: { text: 'x'.repeat(40_000) } });
  page.firsthop.track('mine');
  await page.firsthop.flush();
  assert.equal(page.events()[0].context.user_id, undefined);
});

test('the longest texts of a context are cut, and a frame that they fill still begins', async (t) => {
  const long = '漢'.repeat(5000);
  const page = await open(t, { location: { href: `https://shop.example/${'x'.repeat(9000)}` }, document: { title: long, referrer: `https://s.example/${long}` } });
  await page.load();
  page.firsthop.identify(long);
  await page.firsthop.flush();
  const [{ context }] = page.events();
  assert.equal(context.url.length, 2048);
  assert.equal(context.title, long.slice(0, 2048));
});

test('events say when they happened', async (t) => {
  const page = await open(t);
  await page.load();
  page.firsthop.track('now');
  await page.pass(400);
  page.firsthop.track('later');
  page.firsthop.track('date', {}, { timestamp: new Date(NOW - 86_400_000) });
  page.firsthop.track('text', {}, { timestamp: '2026-03-01T08:00:00.000Z' });
  page.firsthop.track('number', {}, { timestamp: NOW + 5 });
  page.firsthop.track('nonsense', {}, { timestamp: 'yesterday' });
  page.firsthop.track('before 1970', {}, { timestamp: -5 });
  await page.firsthop.flush();
  assert.deepEqual(page.events().map(({ name, time }) => [name, time - NOW]), [
    ['now', 0],
    ['later', 400],
    ['date', -86_400_000],
    ['text', Date.UTC(2026, 2, 1, 8) - NOW],
    ['number', 5],
    ['nonsense', 400],
    ['before 1970', -NOW],
  ]);
});

test('what was said before the module was there arrives as it was then', async (t) => {
  const page = await open(t);
  const basket = { items: 1 };
  page.firsthop.track('one', basket);
  basket.items = 2;
  page.firsthop.track('two', basket, { timestamp: new Date(NOW - 1000) });
  page.firsthop.identify('u-1');
  const loading = page.load();
  page.location.href = 'https://shop.example/later';
  page.firsthop.track('three', { n: 3n });
  await loading;
  await page.firsthop.flush();
  assert.deepEqual(page.events().map(({ name, properties, context, time }) => [name, properties, context.url.slice(20, 26), context.user_id, time - NOW]), [
    ['one', { items: 1 }, '/a?utm', undefined, 0],
    ['two', { items: 2 }, '/a?utm', undefined, -1000],
    ['', {}, '/a?utm', 'u-1', 0],
    ['three', { n: 3 }, '/later', 'u-1', 0],
  ]);
});
