// The session that an answer brings: who uses it, for how long, and what is believed of a frame without it.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { NOW, SECRET, WRITE_KEY, chance, open, problem, receipt, session } from './support/page.mjs';
import { signedWith } from './support/wire.mjs';

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
  chance(t, 0);
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
  chance(t, 0);
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
