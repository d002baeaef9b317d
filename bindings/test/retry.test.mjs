// What a page makes of an answer: whether a frame goes again, when, and how often; and what is told of one that does not.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { NOW, WRITE_KEY, chance, open, problem, receipt, same, sequence, session } from './support/page.mjs';

test('a failed request is repeated, byte for byte, until it succeeds', async (t) => {
  chance(t, 0.999);
  const failures = [new TypeError('Failed to fetch'), problem(500, 'internal'), problem(503, 'unavailable'), problem(429, 'rate-limited'), problem(408, 'body-timeout'), { status: 502, body: '<html>' }];
  const page = await open(t, { answer: (frame, _, n) => failures[n] ?? receipt(frame) });
  await page.load();
  page.firsthop.track('x');
  await page.pass(1);
  page.firsthop.track('y');
  await page.pass(400_000);
  assert.equal(page.requests.length, failures.length + 2);
  for (const request of page.requests.slice(0, failures.length + 1)) assert.ok(same(request, page.requests[0]));
  assert.deepEqual(page.retries.map(({ batch, attempt, status }) => [batch, attempt, status]), [[0, 1, 0], [0, 2, 500], [0, 3, 503], [0, 4, 429], [0, 5, 408], [0, 6, 502]]);
  const pauses = page.requests.slice(1, 7).map(({ at }, i) => at - page.requests[i].at);
  for (const [i, pause] of pauses.entries()) {
    const ceiling = Math.min(60_000, 1000 * 2 ** (i + 1));
    assert.ok(pause > ceiling * 0.9 && pause <= ceiling + 100, `${pause} ms, about ${ceiling}`);
    assert.ok(Math.abs(page.retries[i].delay - ceiling) < ceiling * 0.01, 'and it says so');
  }
  assert.deepEqual(sequence(page), [0, 1]);
  assert.deepEqual(page.dropped, []);
});

test('backoff has full jitter and begins anew after a success', async (t) => {
  chance(t, 0);
  let down = true;
  const page = await open(t, { answer: (frame) => (down ? problem(503, 'unavailable') : receipt(frame)) });
  await page.load();
  page.firsthop.track('x');
  await page.pass(20, 1);
  assert.ok(page.requests.length > 10, 'as soon as at once, if chance will have it');
  down = false;
  await page.pass(5);
  chance(t, 0.999);
  down = true;
  page.firsthop.track('y');
  await page.pass(1001);
  assert.ok(page.retries.at(-1).delay < 2000);
});

test('a page that cannot reach its endpoint keeps trying, about once a minute', async (t) => {
  chance(t, 0.5);
  const page = await open(t, { answer: () => new TypeError('Failed to fetch') });
  await page.load();
  page.firsthop.track('x');
  await page.pass(3_600_000, 500);
  assert.ok(page.requests.length > 100 && page.requests.length < 140, `${page.requests.length}`);
  assert.deepEqual(page.dropped, []);
});

for (const [what, header, expected] of [
  ['seconds', '17', 17_000],
  ['a date', () => new Date(NOW + 40_000).toUTCString(), 40_000],
  ['a date that has passed', () => new Date(NOW - 40_000).toUTCString(), 0],
  ['more than is sensible', '86400', 300_000],
  ['nonsense', 'soon', 0],
  ['less than nothing', '-5', 0],
]) {
  test(`Retry-After in ${what}`, async (t) => {
    chance(t, 0.5);
    const headers = { 'retry-after': typeof header === 'string' ? header : header() };
    const page = await open(t, { answer: (frame, _, n) => (n === 0 ? { ...problem(503, 'unavailable'), headers } : receipt(frame)) });
    await page.load();
    page.firsthop.track('x');
    await page.pass(1);
    await page.pass(expected || 990);
    assert.equal(page.requests.length, 1, 'not before');
    await page.pass(600);
    assert.equal(page.requests.length, 2, 'and soon after');
  });
}

test('Retry-After holds although the network comes back, and a new event does not break it', async (t) => {
  const page = await open(t, { answer: (frame, _, n) => (n === 0 ? { ...problem(429, 'rate-limited'), headers: { 'retry-after': '30' } } : receipt(frame)) });
  await page.load();
  page.firsthop.track('x');
  await page.pass(1);
  page.fire('online');
  page.firsthop.track('y');
  page.firsthop.flush();
  await page.pass(29_000);
  assert.equal(page.requests.length, 1);
  await page.pass(3000);
  assert.deepEqual(sequence(page), [0, 1]);
});

for (const [status, code, retryable, attempts] of [
  [400, 'malformed-payload', false, 1],
  [400, 'unsealed', false, 1],
  [400, 'bad-crc', true, 5],
  [401, 'bad-signature', true, 5],
  [403, 'wrong-origin', false, 1],
  [413, 'too-large', undefined, 1],
  [421, 'wrong-region', false, 1],
  [501, 'sealed-unsupported', false, 1],
  [503, 'unavailable', false, 1],
  [404, undefined, undefined, 1],
  [501, undefined, undefined, 1],
]) {
  test(`${status} ${code ?? 'without a problem'}, retryable ${retryable}: ${attempts === 1 ? 'given up' : `tried ${attempts} times`}, and told in the next frame`, async (t) => {
    const page = await open(t, { answer: (frame) => (frame.batch === 0 ? (code ? problem(status, code, retryable === undefined ? {} : { retryable }) : { status, body: 'nope' }) : receipt(frame)) });
    page.listen();
    await page.load();
    page.firsthop.track('a');
    page.firsthop.track('b');
    await page.pass(200_000);
    assert.equal(page.requests.length, attempts);
    for (const request of page.requests) assert.ok(same(request, page.requests[0]));
    const reason = code ?? `http-${status}`;
    assert.deepEqual(page.dropped, [{ count: 2, reason, batch: 0, firstSeq: 0, status }]);
    assert.deepEqual(page.errors.map((error) => error.code), [reason]);

    page.firsthop.track('c');
    await page.pass(200_000);
    const next = page.frames().at(-1);
    assert.deepEqual([next.batch, next.firstSeq, next.dropped], [1, 2, 2]);
    page.firsthop.track('d');
    await page.pass(2000);
    assert.equal(page.frames().at(-1).dropped, 0, 'once');
  });
}

test('a page that does not seal where the tenant takes nothing else is told so in the console: once', async (t) => {
  chance(t, 0);
  const page = await open(t, { answer: () => problem(400, 'unsealed') });
  await page.load();
  for (const name of ['a', 'b', 'c']) {
    page.firsthop.track(name);
    await page.pass(2000);
  }
  assert.equal(page.requests.length, 3);
  assert.deepEqual(page.warnings.map(([who, code]) => [who, code]), [['firsthop:', 'unsealed']]);
});

test('what a refused frame had to tell is told by the next', async (t) => {
  chance(t, 0);
  const page = await open(t, { answer: (frame) => (frame.batch < 2 ? problem(400, 'malformed-payload') : receipt(frame)) });
  await page.load();
  for (const name of ['a', 'b', 'c']) {
    page.firsthop.track(name);
    await page.pass(2000);
  }
  assert.deepEqual(page.frames().map(({ dropped }) => dropped), [0, 1, 2]);
});

for (const [what, answer] of [
  ['no JSON', () => ({ status: 200, body: '{"source":' })],
  ['nothing', () => ({ status: 200, body: '' })],
  ['null', () => ({ status: 200, body: 'null' })],
  ['a number', () => ({ status: 200, body: '7' })],
  ['a page of somebody else', () => ({ status: 200, body: '<html>Log in to the Wi-Fi</html>' })],
  ['the receipt of another frame', (frame) => receipt({ ...frame, batch: frame.batch + 1 })],
  ['the receipt of another page', (frame) => receipt({ ...frame, source: '018bcfe5-6800-7abc-8def-0123456789ab' })],
]) {
  test(`a success that answers with ${what} is no receipt: asked again, and believed when it is one`, async (t) => {
    const page = await open(t, { answer: (frame, _, n) => (n < 2 ? answer(frame) : receipt(frame)) });
    await page.load();
    page.firsthop.track('x');
    await page.pass(60_000);
    assert.equal(page.requests.length, 3);
    assert.ok(same(page.requests[0], page.requests[2]));
    assert.equal(page.delivered.length, 1);
    assert.deepEqual(page.warnings, []);
  });
}

test('a success without its receipt is asked for again, and never taken for one', async (t) => {
  chance(t, 0);
  let portal = true;
  const page = await open(t, { answer: (frame) => (portal ? { status: 200, body: 'ok' } : receipt(frame)) });
  await page.load();
  page.firsthop.track('x');
  await page.pass(2000);
  assert.ok(page.requests.length > 5);
  assert.deepEqual(page.delivered, []);
  portal = false;
  await page.pass(60_000);
  assert.equal(page.delivered.length, 1);
  assert.deepEqual(page.dropped, []);
});

test('a receipt with a damaged session is a receipt all the same', async (t) => {
  const damaged = [{ secret: '!' }, { grant: 'AAAA' }, { alg: 9 }, { secret: undefined }, { alg: 'x', keyId: {}, epoch: null }];
  const page = await open(t, { answer: (frame, _, n) => receipt(frame, { session: session(damaged[n]) }) });
  await page.load();
  for (let i = 0; i < damaged.length; i++) {
    page.firsthop.track('x');
    await page.firsthop.flush();
    await page.pass(2000);
  }
  assert.equal(page.delivered.length, damaged.length);
  assert.deepEqual(page.frames().map(({ trust, alg, writeKey }) => [trust, alg, writeKey]), Array(damaged.length).fill([false, 0, WRITE_KEY]));
  assert.deepEqual(page.dropped, []);
});
