// Frames on their way: together, in order, again, and with the page when it goes.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ENDPOINT, NOW, SECRET, WRITE_KEY, open, problem, receipt, session } from './support/page.mjs';
import { decode, signedWith } from './support/wire.mjs';

/** Like Math.random, but this. */
function chance(t, value) {
  const { random } = Math;
  Math.random = () => value;
  t.after(() => (Math.random = random));
}

const same = (a, b) => Buffer.compare(a.bytes, b.bytes) === 0;
const sequence = (page) => page.events().map(({ seq }) => seq);
const upTo = (count) => Array.from({ length: count }, (_, i) => i);

test('a request needs no preflight and carries no credentials', async (t) => {
  const page = await open(t);
  await page.load({ endpoint: `${ENDPOINT}//` });
  page.firsthop.track('x');
  await page.pass(1);
  const [{ url, options }] = page.requests;
  assert.equal(url, `${ENDPOINT}/v1/f`);
  const { method, headers, credentials, keepalive, body, signal, ...others } = options;
  assert.deepEqual({ method, headers, credentials, keepalive, others }, { method: 'POST', headers: { 'content-type': 'text/plain' }, credentials: 'omit', keepalive: true, others: {} });
  assert.ok(signal instanceof AbortSignal, 'it does not wait for ever');
  assert.ok(body instanceof Uint8Array);
});

test('the first event goes at once, the others go together after a second', async (t) => {
  const page = await open(t);
  await page.load();
  page.firsthop.page();
  page.firsthop.track('with it');
  await page.pass(1);
  assert.deepEqual(page.frames().map(({ count }) => count), [2]);

  page.firsthop.track('a');
  await page.pass(600);
  page.firsthop.track('b');
  await page.pass(390);
  assert.equal(page.requests.length, 1);
  await page.pass(20);
  assert.deepEqual(page.frames().map(({ count }) => count), [2, 2]);
  assert.deepEqual(sequence(page), upTo(4));
  assert.deepEqual(page.delivered.map(({ batch, firstSeq, count, stored, duplicates, conflicts }) => [batch, firstSeq, count, stored, duplicates, conflicts]), [
    [0, 0, 2, 2, 0, 0],
    [1, 2, 2, 2, 0, 0],
  ]);
  assert.equal(page.delivered[0].source, page.frames()[0].source);
});

test('how long and how many may be set', async (t) => {
  const page = await open(t);
  await page.load({ flushInterval: 5000, flushAt: 3 });
  page.firsthop.track('first');
  await page.pass(1);
  for (let i = 0; i < 7; i++) page.firsthop.track('x');
  await page.settle();
  assert.deepEqual(page.frames().map(({ count }) => count), [1, 3, 3]);
  await page.pass(4900);
  assert.equal(page.requests.length, 3);
  await page.pass(200);
  assert.deepEqual(page.frames().map(({ count }) => count), [1, 3, 3, 1]);
});

test('a frame is closed before two of it are more than outlives a page', async (t) => {
  const page = await open(t);
  await page.load();
  for (let i = 0; i < 400; i++) page.firsthop.track('x', { text: 'y'.repeat(400) });
  await page.firsthop.flush();
  assert.deepEqual(sequence(page), upTo(400));
  const lengths = page.frames().map(({ length }) => length);
  assert.ok(lengths.length > 5 && lengths.every((length) => length < 30_000), `${lengths}`);
});

test('one request at a time, in order; what comes meanwhile goes together', async (t) => {
  const page = await open(t, { answer: () => 'nothing' });
  await page.load();
  page.firsthop.track('first');
  await page.pass(1);
  for (let i = 0; i < 20; i++) {
    page.firsthop.track('x');
    await page.pass(200);
  }
  assert.equal(page.requests.length, 1);
  page.answer = receipt;
  page.requests[0].answer(receipt(page.requests[0].frame));
  await page.settle();
  assert.deepEqual(page.frames().map(({ batch, count }) => [batch, count]), [[0, 1], [1, 20]]);
  assert.deepEqual(sequence(page), upTo(21));
});

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

test('what a full queue does not take has numbers too, and the next frame says how many', async (t) => {
  let down = true;
  const page = await open(t, { answer: (frame) => (down ? new TypeError('down') : receipt(frame)) });
  await page.load({ maxQueueBytes: 100_000 });
  for (let i = 0; i < 1000; i++) page.firsthop.track(`n${i}`, { text: 'x'.repeat(400) });
  await page.pass(2);
  const given = page.dropped.length;
  assert.ok(given > 700 && given < 800, `${given}`);
  assert.deepEqual(page.dropped[0], { count: 1, reason: 'queue-full' });
  down = false;
  await page.pass(70_000);
  page.firsthop.track('after');
  await page.firsthop.flush();
  assert.equal(page.events().at(-1).name, 'after');
  const frames = [...new Map(page.frames().map((frame) => [frame.batch, frame])).values()];
  assert.equal(frames.reduce((sum, { dropped }) => sum + dropped, 0), given);
  let next = 0;
  for (const { firstSeq, count, dropped } of frames) {
    assert.equal(firstSeq, next + dropped, 'what was given up has the numbers before the frame that says so');
    next = firstSeq + count;
  }
  assert.equal(next, 1001, 'and no other number is missing');
  const held = frames.slice(0, -1).reduce((sum, { length }) => sum + length, 0);
  assert.ok(held >= 100_000 && held < 102_000, `${held} bytes`);
});

test('offline, nothing is tried; online, everything goes', async (t) => {
  const page = await open(t, { navigator: { onLine: false } });
  await page.load();
  for (let i = 0; i < 10; i++) {
    page.firsthop.track('x');
    await page.pass(3000);
  }
  assert.equal(page.requests.length, 0);
  page.navigator.onLine = true;
  page.fire('online');
  await page.settle();
  assert.deepEqual(sequence(page), upTo(10));
  assert.deepEqual(page.retries, []);
});

test('a browser that is wrong about being offline is not believed for ever', async (t) => {
  const page = await open(t, { navigator: { onLine: false } });
  await page.load();
  page.firsthop.track('x');
  await page.pass(61_000);
  assert.deepEqual(sequence(page), [0]);
});

test('coming online ends a backoff', async (t) => {
  chance(t, 0.999);
  let down = true;
  const page = await open(t, { answer: (frame) => (down ? new TypeError('down') : receipt(frame)) });
  await page.load();
  page.firsthop.track('x');
  await page.pass(20_000);
  const tries = page.requests.length;
  down = false;
  page.fire('online');
  await page.settle();
  assert.equal(page.requests.length, tries + 1);
  assert.equal(page.delivered.length, 1);
});

test('the first answer brings a session, and the frames after it are signed', async (t) => {
  const page = await open(t, { answer: () => 'nothing' });
  await page.load();
  page.firsthop.track('before');
  await page.pass(1);
  page.firsthop.track('while the answer is on its way');
  page.answer = receipt;
  page.requests[0].answer(receipt(page.requests[0].frame));
  await page.settle();
  page.firsthop.track('after');
  await page.pass(1001);
  assert.deepEqual(page.frames().map(({ trust, alg, writeKey }) => [trust, alg, writeKey]), [
    [false, 0, WRITE_KEY],
    [false, 0, WRITE_KEY],
    [true, 1, undefined],
  ]);
  assert.ok(signedWith(page.requests[2].bytes, SECRET));
});

test('a new session takes the place of the old one', async (t) => {
  const other = Buffer.alloc(32, 9);
  const page = await open(t, { answer: (frame, _, n) => receipt(frame, n === 1 ? { session: session({ secret: other.toString('base64'), keyId: 8, alg: 2 }) } : {}) });
  await page.load();
  for (let i = 0; i < 4; i++) {
    page.firsthop.track('x');
    await page.pass(1001);
  }
  const [, second, third, fourth] = page.requests;
  assert.ok(signedWith(second.bytes, SECRET));
  assert.deepEqual([third.frame.keyId, third.frame.alg], [8, 2]);
  assert.ok(signedWith(third.bytes, other) && signedWith(fourth.bytes, other));
});

test('a session that has ended is not used: the next frame shows the write key, and brings a new one', async (t) => {
  const page = await open(t);
  await page.load();
  page.firsthop.track('a');
  await page.pass(2000);
  await page.pass(3_590_000, 10_000);
  page.firsthop.track('b');
  await page.pass(2000);
  await page.pass(20_000, 1000);
  page.firsthop.track('c');
  await page.pass(2000);
  page.firsthop.track('d');
  await page.pass(2000);
  assert.deepEqual(page.frames().map(({ trust }) => trust), [false, true, false, true]);
});

test('a clock that is wrong does not keep a page from its session', async (t) => {
  const page = await open(t, { answer: (frame, _, n) => receipt(frame, n === 0 ? { session: session({ expires: NOW - 5 * 3_600_000 }) } : {}) });
  await page.load();
  for (let i = 0; i < 3; i++) {
    page.firsthop.track('x');
    await page.pass(1001);
  }
  assert.deepEqual(page.frames().map(({ trust }) => trust), [false, true, true]);
});

test('a 401 ends the session, and the page goes on with its write key', async (t) => {
  const page = await open(t, { answer: (frame) => (frame.trust && frame.batch === 1 ? problem(401, 'session-expired', { retryable: false }) : receipt(frame)) });
  page.listen();
  await page.load();
  for (let i = 0; i < 4; i++) {
    page.firsthop.track('x');
    await page.pass(1001);
  }
  assert.deepEqual(page.frames().map(({ trust, batch }) => [batch, trust]), [[0, false], [1, true], [2, false], [3, true]]);
  assert.deepEqual(page.dropped.map(({ count, reason }) => [count, reason]), [[1, 'session-expired']]);
});

test('what is given up is told by a frame that is believed: not by an unsigned one after the first session', async (t) => {
  const page = await open(t, { answer: (frame) => (frame.trust && frame.batch === 1 ? problem(401, 'session-expired', { retryable: false }) : receipt(frame)) });
  await page.load();
  for (let i = 0; i < 4; i++) {
    page.firsthop.track('x');
    if (i === 2) page.firsthop.track('x'.repeat(100_000));
    await page.pass(1001);
  }
  const told = page.frames().map(({ trust, dropped, firstSeq }) => [trust, dropped, firstSeq]);
  assert.deepEqual(told, [[false, 0, 0], [true, 0, 1], [false, 0, 2], [true, 2, 4]], 'the refused number 1, and number 3');
});

test('no frame tells more than is believed of an unsigned one', async (t) => {
  const page = await open(t);
  for (let i = 0; i < 6000; i++) page.firsthop.track('x');
  await page.load();
  await page.firsthop.flush();
  page.firsthop.track('last');
  await page.firsthop.flush();
  const frames = page.frames();
  assert.deepEqual(frames.map(({ dropped }) => dropped).filter(Boolean), [4096, 904]);
  assert.equal(frames.at(-1).firstSeq + frames.at(-1).count, 6001);
});

test('flush sends at once, and ends when everything so far was acknowledged', async (t) => {
  const page = await open(t, { answer: () => 'nothing' });
  await page.load();
  page.firsthop.track('a');
  let done = 0;
  const first = page.firsthop.flush().then(() => done++);
  await page.settle();
  page.firsthop.track('b');
  page.firsthop.flush().then(() => done++);
  await page.settle();
  assert.equal(page.requests.length, 1);
  page.requests[0].answer(receipt(page.requests[0].frame));
  await first;
  await page.settle();
  assert.equal(done, 1);
  page.requests[1].answer(receipt(page.requests[1].frame));
  await page.settle();
  assert.equal(done, 2);
  await page.firsthop.flush();
  assert.equal(page.requests.length, 2, 'nothing to send');
});

test('flush also ends when what it waits for is given up', async (t) => {
  const page = await open(t, { answer: () => problem(400, 'malformed-payload') });
  await page.load();
  page.firsthop.track('a');
  await page.firsthop.flush();
  assert.equal(page.dropped.length, 1);
});

test('a page that is left sends everything at once, by requests that outlive it', async (t) => {
  const page = await open(t);
  await page.load();
  page.firsthop.track('first');
  await page.pass(1);
  page.answer = () => 'nothing';
  page.firsthop.track('a');
  await page.pass(1001);
  page.firsthop.track('b');
  page.firsthop.track('c');
  page.fire('pagehide');
  assert.deepEqual(page.frames().map(({ count }) => count), [1, 1, 2], 'before the listener returns');
  assert.ok(page.requests.every(({ options }) => options.keepalive));
  assert.equal(page.beacons.length, 0);
  page.hide();
  assert.equal(page.requests.length, 3, 'once');
});

test('what a page tracks while it is being left goes with it', async (t) => {
  const page = await open(t);
  await page.load();
  addEventListener('pagehide', () => page.firsthop.track('page hides'));
  page.fire('pagehide');
  page.hide();
  assert.deepEqual(page.events().map(({ name }) => name), ['page hides']);
});

for (const flushAt of [300, 40, 7]) test(`the requests of a page that is left are within what browsers give, the rest goes by beacon; ${flushAt} events in a frame`, async (t) => {
  const page = await open(t, { answer: () => 'nothing' });
  await page.load({ flushAt });
  for (let i = 0; i < 300; i++) page.firsthop.track('x', { text: 'y'.repeat(400) });
  await page.settle();
  page.fire('pagehide');
  page.hide();
  const flying = page.requests.reduce((sum, { bytes }) => sum + bytes.length, 0);
  assert.ok(page.requests.every(({ options }) => options.keepalive));
  assert.ok(flying <= 60_000 && flying > 50_000, `${flying} bytes`);
  const beacons = (await Promise.all(page.beacons)).map(decode);
  assert.deepEqual([...page.frames(), ...beacons].flatMap(({ events }) => events.map(({ seq }) => seq)).sort((a, b) => a - b), upTo(300), 'all of them, each once');
  assert.ok(beacons.length > 0);
});

test('without keepalive, a page that is left sends by beacon', async (t) => {
  const page = await open(t, { globals: { Request: class {} } });
  await page.load();
  page.firsthop.track('a');
  await page.pass(1);
  assert.equal(page.requests[0].options.keepalive, false);
  page.firsthop.track('b');
  page.fire('pagehide');
  assert.equal(page.requests.length, 1);
  const [beacon] = (await Promise.all(page.beacons)).map(decode);
  assert.deepEqual(beacon.events.map(({ name }) => name), ['b']);
});

test('what left by beacon and may have arrived is sent again if the page stays', async (t) => {
  const page = await open(t, { globals: { Request: class {} } });
  await page.load();
  page.firsthop.track('a');
  page.hide();
  await page.pass(1);
  page.show();
  page.firsthop.track('b');
  await page.pass(1001);
  const [beacon] = await Promise.all(page.beacons);
  assert.equal(Buffer.compare(beacon, page.requests[0].bytes), 0, 'byte for byte');
  assert.deepEqual(sequence(page), [0, 1]);
});

test('a beacon that the browser refuses is no reason to give anything up', async (t) => {
  const page = await open(t, { globals: { Request: class {} }, navigator: { sendBeacon: () => false } });
  await page.load();
  page.firsthop.track('a');
  page.hide();
  await page.pass(1001);
  assert.deepEqual(sequence(page), [0]);
});

test('a page that was hidden goes on, and what was acknowledged meanwhile is not sent again', async (t) => {
  const page = await open(t, { answer: () => 'nothing' });
  await page.load();
  page.firsthop.track('a');
  await page.pass(1);
  page.firsthop.track('b');
  page.hide();
  page.firsthop.track('c');
  await page.pass(1001);
  assert.equal(page.requests.length, 2);
  for (const request of page.requests.slice()) request.answer(receipt(request.frame));
  page.answer = receipt;
  await page.settle();
  assert.deepEqual(page.frames().map(({ batch }) => batch), [0, 1, 2]);
  page.show();
  await page.pass(5000);
  assert.deepEqual(page.frames().map(({ batch }) => batch), [0, 1, 2]);
});

test('a page that comes back from the back-forward cache sends again what was never answered', async (t) => {
  const page = await open(t, { answer: () => 'nothing' });
  await page.load();
  page.firsthop.track('a');
  page.fire('pagehide');
  page.hide();
  await page.settle();
  page.answer = receipt;
  page.show();
  page.fire('pageshow', { persisted: true });
  await page.settle();
  assert.equal(page.requests.length, 2);
  assert.ok(same(page.requests[0], page.requests[1]));
  assert.equal(page.delivered.length, 1);
  page.requests[0].answer(receipt(page.requests[0].frame, { stored: 0, duplicate: 1 }));
  await page.settle();
  assert.equal(page.delivered.length, 1, 'the late answer changes nothing');
  page.firsthop.track('b');
  await page.pass(2000);
  assert.deepEqual(sequence(page), [0, 1]);
});

test('a frame of several that failed on leaving does not hold up the others', async (t) => {
  const page = await open(t, { answer: () => 'nothing' });
  await page.load({ flushAt: 1 });
  for (const name of ['a', 'b', 'c']) page.firsthop.track(name);
  page.hide();
  assert.equal(page.requests.length, 3);
  page.answer = receipt;
  const [a, b, c] = page.requests.slice();
  c.answer(receipt(c.frame));
  a.answer(new TypeError('Failed to fetch'));
  b.answer(problem(503, 'unavailable'));
  await page.pass(70_000);
  assert.deepEqual(page.delivered.map(({ batch }) => batch).sort(), [0, 1, 2]);
  assert.deepEqual(page.dropped, []);
});
