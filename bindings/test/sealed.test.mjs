// The sealed build: what leaves the page can be read with the region's private key, and by nobody else.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { ENDPOINT, NOW, SECRET, open, problem, receipt } from './support/page.mjs';
import { regionKey, signedWith } from './support/wire.mjs';

const dist = new URL('../dist/', import.meta.url);
const HOUR = 3_600_000;
const keys = (...list) => ({ region: 'EU', regionKeys: list });
const ALWAYS = keys(regionKey(5, 0));

/** A page with the sealed build. */
async function sealed(t, options, opened) {
  const page = await open(t, { build: 'firsthop-sealed.mjs', ...opened });
  page.listen();
  await page.load({ ...ALWAYS, ...options });
  await page.loaded();
  return page;
}

/** Lets time pass until something is so. What reading an answer takes, no virtual time says. */
async function until(page, what) {
  for (let i = 0; !what(); i++) {
    assert.ok(i < 4000, `never came: ${what}`);
    await page.pass(20);
  }
}
const delivered = (page, frames) => until(page, () => page.delivered.length === frames);

const text = (bytes) => Buffer.from(bytes).toString('latin1');

test('every frame is sealed, opens with the key, and holds what was tracked', async (t) => {
  const page = await sealed(t);
  page.firsthop.identify('user-4711', { email: 'somebody@shop.example' });
  await delivered(page, 1);
  page.firsthop.track('Product Viewed', { sku: 'G-32', price: 18.99 }, { context: { secret: 'in the context' } });
  page.firsthop.track('Größe gewählt', { tags: ['a', null] });
  await delivered(page, 3);
  assert.deepEqual(page.events().map(({ kind, name, properties }) => [kind, name, properties]), [
    ['identify', '', { email: 'somebody@shop.example' }],
    ['track', 'Product Viewed', { sku: 'G-32', price: 18.99 }],
    ['track', 'Größe gewählt', { tags: ['a', null] }],
  ]);
  assert.equal(page.events()[1].context.user_id, 'user-4711');
  assert.ok(page.frames().length >= 2);
  for (const { bytes, frame } of page.requests) {
    assert.deepEqual([frame.sealedTo, frame.region], [5, 'EU']);
    for (const said of ['user-4711', 'somebody', 'Product', 'G-32', 'context', 'shop.example', 'de-CH']) assert.ok(!text(bytes).includes(said), said);
  }
  // The first shows its write key, the next its session: sealing takes nothing from either.
  const [first, second] = page.requests;
  assert.ok(first.frame.writeKey && !first.frame.trust);
  assert.ok(second.frame.trust && signedWith(second.bytes, SECRET));
  assert.deepEqual([page.dropped, page.errors, page.delivered.length], [[], [], page.requests.length]);
});

test('a retry is the same bytes, and no two frames have a seal in common', async (t) => {
  let failures = 2;
  const page = await sealed(t, {}, { answer: (frame) => (failures-- > 0 ? problem(503, 'unavailable', { retryable: true }) : receipt(frame)) });
  page.firsthop.track('A');
  await delivered(page, 1);
  page.firsthop.track('A');
  await delivered(page, 2);
  const [one, again, third, other] = page.requests;
  assert.deepEqual([page.requests.length, page.retries.length], [4, 2]);
  assert.deepEqual(again.bytes, one.bytes);
  assert.deepEqual(third.bytes, one.bytes);
  const encapsulated = ({ bytes }) => text(bytes.subarray(bytes[6] | (bytes[7] << 8)).subarray(0, 32));
  assert.notEqual(encapsulated(other), encapsulated(one));
});

test('the randomness of a seal does not stay in the memory of the module', async (t) => {
  const drawn = [];
  const { getRandomValues } = crypto;
  t.mock.method(crypto, 'getRandomValues', (array) => {
    getRandomValues.call(crypto, array);
    if (array.length === 32) drawn.push([array, Buffer.from(array)]);
    return array;
  });
  const page = await sealed(t);
  page.firsthop.track('A');
  await delivered(page, 1);
  assert.equal(drawn.length, page.requests.length);
  for (const [where, what] of drawn) {
    assert.ok(what.some((byte) => byte !== 0));
    assert.ok(!Buffer.from(where).equals(what) && !Buffer.from(where.buffer).includes(what));
  }
});

test('keys are rotated by the clock, without a new page', async (t) => {
  // 5 ends after 6 has begun; 7 begins in the middle, and is another region's.
  const page = await sealed(t, keys(regionKey(6, NOW + HOUR), regionKey(5, NOW - HOUR, NOW + 2 * HOUR), regionKey(7, NOW, undefined, 'US')));
  for (const [i, expected] of [5, 6, 6].entries()) {
    page.firsthop.track('A');
    await delivered(page, i + 1);
    assert.equal(page.frames().at(-1).sealedTo, expected);
    await page.pass(HOUR, 60_000);
  }
  assert.deepEqual(page.dropped, []);
  assert.equal(page.events().length, 3);
});

test('without a key in force nothing leaves in the clear: it is given up, told once, and counted', async (t) => {
  const page = await sealed(t, keys(regionKey(5, NOW - HOUR, NOW + HOUR), regionKey(6, NOW + 2 * HOUR)));
  page.firsthop.track('before');
  await delivered(page, 1);
  await page.pass(HOUR, 60_000);
  const sent = page.requests.length;
  for (let i = 0; i < 3; i++) page.firsthop.track('between');
  await until(page, () => page.dropped.length >= 3);
  await page.pass(2000);
  assert.equal(page.requests.length, sent);
  assert.deepEqual(page.dropped, Array(3).fill({ count: 1, reason: 'region-key' }));
  assert.deepEqual([...new Set(page.errors.map(({ code }) => code))], ['region-key']);
  await page.pass(HOUR, 60_000);
  page.firsthop.track('after');
  await delivered(page, 2);
  page.firsthop.track('signed');
  await page.pass(2000);
  await delivered(page, 3);
  const [, after, last] = page.frames();
  assert.deepEqual([after.sealedTo, after.trust, after.dropped, after.firstSeq], [6, false, 0, 1]);
  assert.deepEqual([last.sealedTo, last.trust, last.dropped, last.firstSeq], [6, true, 3, 5], 'three numbers are theirs');
  // Texts of the context of what was given up are not in what follows.
  assert.equal(last.context.url, page.location.href);
});

test('a clock that is behind costs no event: before all keys, the first of them is taken', async (t) => {
  const page = await sealed(t, keys(regionKey(7, NOW + 2 * HOUR), regionKey(6, NOW + HOUR), regionKey(5, NOW, undefined, 'US')));
  page.firsthop.track('A');
  await delivered(page, 1);
  assert.deepEqual([page.frames().at(-1).sealedTo, page.dropped], [6, []]);
});

test('the console says so once where nobody listens', async (t) => {
  const page = await open(t, { build: 'firsthop-sealed.mjs' });
  await page.load(keys(regionKey(5, NOW - 2 * HOUR, NOW - HOUR)));
  await page.loaded();
  for (let i = 0; i < 3; i++) page.firsthop.track('A');
  await until(page, () => page.dropped.length >= 3);
  await page.pass(2000);
  assert.deepEqual(page.warnings.map(([, code]) => code), ['region-key']);
  assert.equal(page.requests.length, 0);
});

test('a key that no one could open, or anyone, is none', async (t) => {
  const zero = { ...regionKey(5, 0), public: Buffer.alloc(32).toString('base64') };
  const page = await sealed(t, keys(zero));
  page.firsthop.track('A');
  await until(page, () => page.dropped.length > 0);
  await page.pass(2000);
  assert.deepEqual([page.requests.length, page.dropped], [0, [{ count: 1, reason: 'region-key' }]]);
});

test('it does not start without a region and keys for it', async (t) => {
  const { region, regionKeys } = ALWAYS;
  const short = { ...regionKeys[0], public: 'AAAA' };
  const bad = { ...regionKeys[0], public: '%' };
  const missing = [{}, { region }, { regionKeys }, { region: 'eu', regionKeys }, { region: 'US', regionKeys }, { region, regionKeys: {} }, { region, regionKeys: [] }, { region, regionKeys: [short] }, { region, regionKeys: [bad] }];
  const page = await open(t, { build: 'firsthop-sealed.mjs' });
  page.listen();
  page.firsthop.track('early');
  for (const options of missing) await page.load(options);
  await page.pass(2000);
  assert.deepEqual(page.errors.map(({ code }) => code), missing.map(() => 'region-keys'));
  assert.equal(page.requests.length, 0);
  // What was tracked meanwhile has waited.
  await page.load(ALWAYS);
  await page.loaded();
  await delivered(page, 1);
  assert.deepEqual(page.events().map(({ name }) => name), ['early']);
  assert.equal(page.requests[0].url, `${ENDPOINT}/v1/f`);
});

test('large events and full frames are sealed too', async (t) => {
  const page = await sealed(t);
  for (let i = 0; i < 40; i++) page.firsthop.track('Large', { i, text: 'x'.repeat(i === 20 ? 30_000 : 2000) });
  await until(page, () => page.delivered.reduce((sum, { count }) => sum + count, 0) === 40);
  assert.deepEqual(page.events().map(({ properties }) => properties.i), Array.from({ length: 40 }, (_, i) => i));
  assert.ok(page.frames().length > 3 && page.frames().every(({ sealedTo }) => sealedTo === 5));
});

test('its module has enough stack, needs nothing from outside, and seals or does nothing', () => {
  const names = JSON.parse(readFileSync(new URL('test/sealed.json', dist)));
  const compiled = new WebAssembly.Module(readFileSync(new URL('test/sealed.wasm', dist)));
  assert.deepEqual(WebAssembly.Module.imports(compiled), []);
  const { exports } = new WebAssembly.Instance(compiled);
  const call = (name, ...args) => exports[names[name]](...args);
  const memory = new Uint8Array(exports[names.memory].buffer);
  const at = call('stagingAt');
  const STACK = 32 * 1024;
  assert.ok(memory.length <= 320 * 1024, `${memory.length} bytes`);
  memory.fill(0xa5, 0, STACK);
  memory.set(Buffer.concat([Buffer.alloc(16, 1), Buffer.from('fh_00000000000a11ce_Kq7Zp0c3Vn8Rb5Ls')]), at);
  call('startPage', 0xa11ce, 0, 36);
  const begin = () => {
    call('beginBlock');
    return call('beginFrame', 0, 0x5545, NOW, 1440, 900);
  };
  assert.notEqual(begin(), 0, 'no key yet');
  memory.set(Buffer.from(regionKey(5, 0).public, 'base64'), at);
  assert.equal(call('sealTo', 5), 0);
  assert.equal(begin(), 0);
  call('beginBlock');
  memory.set(Buffer.from('A'), at);
  assert.ok(call('putEvent', 0, 1, NOW) > 5);
  memory.set(Buffer.alloc(32, 9), at);
  assert.ok(call('finishFrame', 0, 0) > 100);
  assert.ok(memory.subarray(at, at + 32).every((byte) => byte === 0), 'what it was sealed with is gone');
  memory.fill(0, at, at + 32);
  assert.notEqual(call('sealTo', 6), 0, 'a key of small order');
  assert.notEqual(begin(), 0, 'and the one before is forgotten');
  const used = STACK - memory.findIndex((byte) => byte !== 0xa5);
  assert.ok(used > 1000 && used * 1.5 < STACK, `${used} bytes of stack`);
});
