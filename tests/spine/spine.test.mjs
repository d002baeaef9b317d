// The whole path: a page in Chromium, the built Worker on workerd, the server's binary, SQLite. Every test ends with what was
// sent, acknowledged and stored; `lost` must be 0 in every row.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { difference, visit as visitShop } from '../../examples/shop/visit.mjs';
import { launchBrowser } from '../../tools/browser.mjs';
import { Server, Tally, Wire, startEdge, startPages, until } from './parts.mjs';

describe('spine', () => {
  let browser, pages;

  before(async () => {
    [browser, pages] = await Promise.all([launchBrowser(), startPages()]);
  });

  after(async () => {
    Tally.print();
    await Promise.all([browser?.close(), pages?.dispose()]);
  });

  /** Server, edge, wire and a page of their own for one test; all of it is gone afterwards. */
  async function withParts(body, settings) {
    const server = await Server.create(settings);
    const edge = await startEdge(server);
    const wire = await Wire.create(edge.url);
    const context = await browser.newContext();
    const page = await context.newPage();
    const errors = [];
    const said = [];
    page.on('pageerror', (error) => errors.push(error));
    page.on('console', (message) => said.push(`${message.type()}: ${message.text()}`));
    try {
      await body({ server, edge, wire, context, page });
      assert.deepEqual(errors, [], 'the SDK never throws into the page');
    } catch (error) {
      // What each part saw, for whoever has to find out why.
      console.error(['page:', ...said, 'wire:', ...wire.lines(), 'edge:', ...edge.log, 'server:', server.log].join('\n'));
      throw error;
    } finally {
      await context.close();
      await wire.dispose();
      await edge.dispose();
      await server.dispose();
    }
  }

  const openTestPage = (page, server, wire, more = '') =>
    page.goto(`${pages.url}/page.html?endpoint=${encodeURIComponent(wire.url)}&writeKey=${server.writeKey}${more}`);
  const track = (page, from, to, gap = 0) => page.evaluate(([a, b, g]) => window.visit(a, b, g), [from, to, gap]);
  const seenBy = (page) => page.evaluate(() => window.seen);
  const acknowledged = (page, count, within = 60_000) =>
    until(`${count} events to be acknowledged`, async () => (await seenBy(page)).acknowledged >= count, { within });

  /** The rows are the events 0 to `count`, each once, in order, with what was said. */
  function assertExactlyOnceInOrder(rows, count) {
    assert.equal(rows.length, count, 'as many rows as events');
    assert.equal(new Set(rows.map((row) => row.event_id)).size, count, 'no id twice');
    rows.forEach((row, i) => {
      assert.equal(row.name, 'Product Viewed');
      assert.equal(Number(row.seq), i);
      assert.deepEqual(JSON.parse(row.properties), {
        n: i, sku: `SKU-${i}`, price: i + 0.25, name: `Tasse № ${i}`, tags: ['a', i % 2 === 0], nested: { deep: { n: i } },
      });
    });
  }

  async function tally(name, server, page, { sent, rows }) {
    const seen = page ? await seenBy(page) : { acknowledged: sent, retries: 0 };
    const lost = sent - new Set(rows.map((row) => row.event_id)).size;
    const refused = await server.metric('firsthop_events_total', { outcome: 'duplicate' });
    new Tally(name, { sent, acknowledged: seen.acknowledged, stored: rows.length, duplicates: rows.length - (sent - lost), lost, resent: refused });
    assert.equal(lost, 0, 'lost');
  }

  test('a: a scripted visit of 200 events arrives exactly once, in order, with the right content', () =>
    withParts(async ({ server, wire, page }) => {
      await page.goto(`${pages.url}/shop/index.html?endpoint=${encodeURIComponent(wire.url)}&writeKey=${server.writeKey}`);
      const calls = await visitShop(page, { orders: 3, calls: 200 });
      assert.equal(calls.length, 200);
      const rows = await server.rowsWhen(200);
      assert.equal(difference(calls, rows.map(callOf)), null);
      rows.forEach((row, i) => assert.equal(Number(row.seq), i, 'in order'));
      assert.equal(new Set(rows.map((row) => row.source)).size, 1, 'one page session, one source');
      const trusts = rows.map((row) => row.trust);
      assert.equal(trusts[0], 'write-key', 'the first event never waits for a session');
      assert.equal(trusts.at(-1), 'session', 'and the answer brings one');
      await tally('a: a visit of 200 events', server, null, { sent: calls.length, rows });
    }));

  test('b: the server is killed in the middle, three times: nothing lost, nothing twice', () =>
    withParts(async ({ server, wire, page }) => {
      await openTestPage(page, server, wire);
      const visit = track(page, 0, 300, 20);
      for (let kill = 0; kill < 3; kill += 1) {
        await sleep(1_500);
        await server.stop('SIGKILL');
        await sleep(300);
        await server.start();
      }
      await visit;
      await acknowledged(page, 300);
      const rows = await server.rowsWhen(300);
      assertExactlyOnceInOrder(rows, 300);
      await server.command('verify', '--tenant', 'shop');
      await tally('b: server killed three times', server, page, { sent: 300, rows });
    }));

  test('c: the page is closed mid-flight: what was queued arrives', () =>
    withParts(async ({ server, wire, page, context }) => {
      await openTestPage(page, server, wire);
      await track(page, 0, 1);
      await acknowledged(page, 1);
      // The next frame is held on the wire, so that it is in flight and the rest is queued when the page goes.
      let release;
      const held = new Promise((resolve) => (release = resolve));
      wire.tamper = () => held;
      const before = wire.frames().length;
      await track(page, 1, 30);
      await until('a frame in flight', () => wire.frames().length > before);
      await track(page, 30, 80);
      wire.tamper = () => undefined;
      await page.close();
      await sleep(200);
      release('cut');
      const rows = await server.rowsWhen(80);
      assert.ok(context.pages().length === 0, 'the page is gone');
      assert.deepEqual(rows.map((row) => Number(row.seq)).sort((a, b) => a - b), [...Array(80).keys()]);
      await tally('c: page closed mid-flight', server, null, { sent: 80, rows });
    }));

  test('d: the same frames sent five times, shuffled: stored once', () =>
    withParts(async ({ server, edge, wire, page }) => {
      await openTestPage(page, server, wire);
      for (let i = 0; i < 20; i += 1) {
        await track(page, i * 10, i * 10 + 10);
        await page.evaluate(() => window.firsthop.flush());
      }
      await acknowledged(page, 200);
      const frames = wire.frames();
      assert.ok(frames.length >= 10, `${frames.length} frames`);
      const resends = shuffle(frames.flatMap((frame) => Array(5).fill(frame)));
      // To the edge, whose isolate remembers them, and past it to the server, which does too.
      for (const [i, frame] of resends.entries()) {
        const to = i % 2 === 0 ? edge.url : server.url;
        const answer = await fetch(`${to}/v1/f`, { method: 'POST', body: frame.body, headers: { origin: frame.headers.origin } });
        const receipt = await answer.json();
        assert.equal(answer.status, 200, JSON.stringify(receipt));
        assert.deepEqual([receipt.stored, receipt.duplicate], [0, receipt.count]);
      }
      const rows = await server.rowsWhen(200);
      assertExactlyOnceInOrder(rows, 200);
      await tally(`d: ${frames.length} frames, each five times more`, server, page, { sent: 200, rows });
    }));

  test('e: one bit changed on the way: refused, counted, nothing stored; the page sends it again', () =>
    withParts(async ({ server, edge, wire, page }) => {
      await openTestPage(page, server, wire);
      await track(page, 0, 10);
      await acknowledged(page, 10);
      await track(page, 10, 20);
      await acknowledged(page, 20);
      const frame = wire.frames().at(-1);
      const stored = (await server.rowsWhen(20)).length;
      const refusals = () => server.metric('firsthop_events_total', { outcome: 'damaged' });
      const quarantined = () => server.query('journal.db', 'SELECT reason FROM quarantine');

      // Any bit: here one in each sixteenth of the frame, header, payload and tag.
      let changed = 0;
      for (let part = 0; part < 16; part += 1) {
        const body = Buffer.from(frame.body);
        body[Math.floor(((part + 0.5) / 16) * body.length)] ^= 1 << part % 8;
        const answer = await fetch(`${edge.url}/v1/f`, { method: 'POST', body, headers: { origin: frame.headers.origin } });
        const problem = await answer.json();
        assert.ok(answer.status >= 400 && answer.status < 500, `part ${part}: ${answer.status}`);
        assert.match(answer.headers.get('content-type'), /application\/problem\+json/);
        assert.ok(problem.code, JSON.stringify(problem));
        changed += 1;
      }
      assert.equal(server.rows().length, stored, 'nothing stored');
      await until('it to be kept aside', () => quarantined().length > 0);
      assert.ok(quarantined().every((row) => row.reason), 'each with its reason');
      await until('it to be counted', async () => (await refusals()) >= 1);

      // On the page's own path: the first attempt of every frame is damaged, and the page sends the same bytes again.
      const damaged = new Set();
      wire.tamper = (request) => {
        const id = request.body.toString('base64');
        if (damaged.has(id)) return;
        damaged.add(id);
        request.body = Buffer.from(request.body);
        request.body[90] ^= 1;
      };
      await track(page, 20, 60);
      await acknowledged(page, 60);
      const rows = await server.rowsWhen(60);
      assertExactlyOnceInOrder(rows, 60);
      assert.ok(damaged.size > 0 && (await seenBy(page)).retries >= damaged.size, 'the page noticed');
      await tally(`e: ${changed + damaged.size} frames with one bit changed`, server, page, { sent: 60, rows });
    }));

  test('f: edge up, server down for 20 s: the edge keeps all that comes, and delivers it afterwards', () =>
    withParts(async ({ server, wire, page }) => {
      await openTestPage(page, server, wire);
      await track(page, 0, 20);
      await acknowledged(page, 20);
      await server.stop('SIGTERM');
      const visit = track(page, 20, 220, 80);
      await sleep(20_000);
      await visit;
      await acknowledged(page, 220);
      assert.equal((await seenBy(page)).dropped, 0);
      const spooled = wire.frames().map(({ answer }) => JSON.parse(answer).spooled ?? 0);
      assert.ok(spooled.some((count) => count > 0), 'the edge said that it keeps them');
      await server.start();
      const rows = await server.rowsWhen(220, 90_000);
      assertExactlyOnceInOrder(rows, 220);
      await tally('f: server down for 20 s', server, page, { sent: 220, rows });
    }));

  test('g: the answer is lost on the way back, again and again: the page sends again, the store has it once', () =>
    withParts(async ({ server, wire, page }) => {
      await openTestPage(page, server, wire);
      let answers = 0;
      wire.tamper = () => (answers++ % 3 === 2 ? undefined : 'lose');
      await track(page, 0, 100, 5);
      await acknowledged(page, 100);
      const rows = await server.rowsWhen(100);
      assertExactlyOnceInOrder(rows, 100);
      await tally('g: two of three answers lost', server, page, { sent: 100, rows });
    }));

  test('the trace that has brought the page goes on to the sink', async () => {
    // A collector: OTLP over HTTP, in JSON.
    const spans = [];
    const collector = http.createServer(async (request, response) => {
      const { resourceSpans } = JSON.parse(Buffer.concat(await Array.fromAsync(request)));
      spans.push(...resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans)));
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    });
    await once(collector.listen(0, '127.0.0.1'), 'listening');
    const settings = { FIRSTHOP_OTLP_ENDPOINT: `http://127.0.0.1:${collector.address().port}` };
    const [trace, parent] = ['0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331'];
    try {
      await withParts(async ({ server, wire, page }) => {
        await openTestPage(page, server, wire, `&traceparent=00-${trace}-${parent}-01`);
        await track(page, 0, 1);
        await acknowledged(page, 1);
        const ours = () => spans.filter(({ traceId }) => traceId === trace);
        await until('the spans of it', () => ours().length === 4, { within: 60_000 });
        const named = Object.fromEntries(ours().map((span) => [span.name, span]));
        assert.deepEqual(Object.keys(named).sort(), ['commit', 'deliver', 'receive', 'verify']);
        // From the page's trace, and, of what the server does, from one another.
        assert.deepEqual([named.receive.parentSpanId, named.deliver.parentSpanId], [parent, parent]);
        assert.deepEqual([named.verify.parentSpanId, named.commit.parentSpanId], Array(2).fill(named.receive.spanId));
        assertExactlyOnceInOrder(await server.rowsWhen(1), 1);
      }, settings);
    } finally {
      collector.closeAllConnections();
      collector.close();
    }
  });
});

/** A row as the call that made it. */
function callOf({ kind, name, properties }) {
  const said = JSON.parse(properties);
  return kind === 'identify' ? { type: kind, traits: said } : { type: kind, event: name, properties: said };
}

/** Fisher and Yates, with a seed, so that a failure can be seen again. */
function shuffle(items, seed = 20_240_229) {
  let state = seed;
  for (let i = items.length - 1; i > 0; i -= 1) {
    state = (state * 1_103_515_245 + 12_345) & 0x7fffffff;
    const j = state % (i + 1);
    [items[i], items[j]] = [items[j], items[i]];
  }
  return items;
}
