// Frames on their way: together, in order, and when there is a network.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ENDPOINT, chance, open, problem, receipt, sequence, upTo } from './support/page.mjs';

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
