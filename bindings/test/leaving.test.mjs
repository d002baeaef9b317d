// A page that is left: what it has goes with it, and what comes back with it is sent once more where nobody knows.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { open, problem, receipt, same, sequence, upTo } from './support/page.mjs';
import { decode } from './support/wire.mjs';

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
