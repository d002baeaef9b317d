// Faults done to the edge, with the real server behind it: what was acknowledged is stored, once, and in order.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';

import { Server } from '../../tests/spine/parts.mjs';
import { bytes, kit, newSource } from './server.mjs';
import { until } from './wait.mjs';
import { startWorker } from './worker.mjs';

const stops = [];
after(async () => {
  for (const stop of stops.reverse()) await stop();
});

/** A server, and what starts edges in front of it. */
async function parts(more = {}) {
  const server = await Server.create();
  stops.push(() => server.dispose());
  const variables = { UPSTREAM: server.url, LEASES: server.internalUrl, REGION: 'EU', ENROLMENTS: server.enrolment, SPOOL_RETRY_MS: '50', ...more };
  const start = async (folder) => {
    const edge = await startWorker(variables, { folder });
    let stopped;
    const dispose = edge.dispose;
    edge.dispose = () => (stopped ??= dispose());
    stops.push(() => edge.dispose());
    return edge;
  };
  const folder = async () => {
    const made = await mkdtemp(path.join(tmpdir(), 'firsthop-edge-'));
    stops.push(() => rm(made, { recursive: true, force: true }));
    return made;
  };
  return { server, start, folder };
}

/** One page: it numbers its events, and sends a frame until it is acknowledged. */
class Page {
  source = newSource();
  sent = 0;
  acknowledged = 0;
  spooled = 0;

  constructor(server) {
    this.server = server;
  }

  frame() {
    const first = this.sent;
    this.sent += 1;
    const { source, session } = this;
    const wanted = { do: 'frame', tenant: this.server.tenant, source, region: 'EU', firstSeq: first, batchSeq: first, created: Date.now(), events: [{ name: `E${first}` }] };
    return bytes(kit({ ...wanted, ...(session ? { session } : { writeKey: this.server.writeKey }) }).frame);
  }

  post(edge, body) {
    return fetch(`${edge.url}/v1/f`, { method: 'POST', body });
  }

  async send(edge, body = this.frame()) {
    const receipt = await until('an acknowledgement', async () => {
      const answer = await this.post(edge, body);
      return answer.status === 200 && answer.json();
    });
    assert.equal(receipt.stored + receipt.duplicate + receipt.conflict + (receipt.spooled ?? 0), receipt.count);
    assert.equal(receipt.conflict, 0);
    this.session ??= receipt.session;
    this.acknowledged += receipt.count;
    this.spooled += receipt.spooled ?? 0;
    return receipt;
  }

  rows() {
    return this.server.rows().filter((row) => row.source === this.source).map(({ seq }) => seq);
  }
}

/** Waits for all that was acknowledged, and says what became of it. */
async function settle(what, server, pages) {
  for (const page of pages) await until(`${page.sent} rows`, () => page.rows().length >= page.sent);
  const sum = (of) => pages.reduce((total, page) => total + of(page), 0);
  const rows = pages.map((page) => page.rows());
  const figures = {
    sent: sum((page) => page.sent),
    acknowledged: sum((page) => page.acknowledged),
    spooled: sum((page) => page.spooled),
    stored: rows.flat().length,
    duplicates: rows.reduce((total, seqs) => total + seqs.length - new Set(seqs).size, 0),
    lost: pages.reduce((total, page, i) => total + Array.from({ length: page.sent }, (_, seq) => seq).filter((seq) => !rows[i].includes(seq)).length, 0),
  };
  console.log(`${what}: ${Object.entries(figures).map(([name, count]) => `${name} ${count}`).join(', ')}`);
  assert.deepEqual([figures.duplicates, figures.lost], [0, 0]);
  for (const seqs of rows) assert.deepEqual(seqs, [...seqs].sort((a, b) => a - b), 'in order');
}

describe('faults', { concurrency: 2 }, () => {
  test('workerd restarts with frames in its spool', async () => {
    const { server, start, folder } = await parts();
    const kept = await folder();
    let edge = await start(kept);
    const pages = [new Page(server), new Page(server), new Page(server)];
    for (const page of pages) await page.send(edge);
    await server.stop();
    for (let i = 0; i < 5; i += 1) for (const page of pages) assert.equal((await page.send(edge)).spooled, 1);
    await edge.dispose();
    edge = await start(kept);
    // The leases, too, are there: the server is still away.
    for (const page of pages) assert.equal((await page.send(edge)).spooled, 1);
    await server.start();
    await settle('workerd restarts with frames in its spool', server, pages);
  });

  test('an isolate is gone in the middle of a forward', async () => {
    const { server, start, folder } = await parts();
    const kept = await folder();
    let edge = await start(kept);
    const page = new Page(server);
    await page.send(edge);
    // The server stands still, so that the forward is under way when workerd ends.
    server.process.kill('SIGSTOP');
    const body = page.frame();
    const cut = page.post(edge, body).then((answer) => answer.status, () => 'cut');
    await until('the forward to be under way', () => page.sent === 2);
    await edge.dispose();
    assert.notEqual(await cut, 200);
    edge = await start(kept);
    server.process.kill('SIGCONT');
    await page.send(edge, body);
    await page.send(edge);
    await settle('an isolate gone in the middle of a forward', server, [page]);
  });

  test('two edges have the same frames', async () => {
    const { server, start } = await parts();
    const edges = [await start(), await start()];
    const page = new Page(server);
    // Each has its leases.
    await new Page(server).send(edges[1]);
    await page.send(edges[0]);
    await server.stop();
    const frames = Array.from({ length: 6 }, () => page.frame());
    for (const body of frames) for (const edge of edges) assert.equal((await page.send(edge, body)).spooled, 1);
    page.acknowledged = page.sent;
    await server.start();
    await settle('two edges with the same frames', server, [page]);
    await until('both spools to be through', async () => (await server.metric('firsthop_events_total', { outcome: 'duplicate' })) === frames.length);
    assert.equal(page.rows().length, page.sent);
  });

  test('the root is replaced, and ends at once, while frames wait that were signed under it', async () => {
    const { server, start } = await parts();
    const edge = await start();
    const page = new Page(server);
    await page.send(edge);
    await server.stop();
    for (let i = 0; i < 4; i += 1) assert.equal((await page.send(edge)).spooled, 1);
    await server.command('key', 'rotate', '--tenant', 'shop', '--grace', '0s');
    await server.start();
    await settle('the root replaced while frames wait', server, [page]);
  });
});
