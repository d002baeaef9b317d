// The built Worker with the real server behind it: what the stand-in may have got wrong.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { Analytics } from '@segment/analytics-node';

import { Server, Tally, until } from '../../tests/spine/parts.mjs';
import { bytes, kit, newSource, resealed } from './server.mjs';
import { CF, startWorker } from './worker.mjs';

let server;
let edge;

before(async () => {
  server = await Server.create();
  edge = await startWorker({ UPSTREAM: server.url, LEASES: server.internalUrl, REGION: 'EU', ENROLMENTS: server.enrolment, SPOOL_RETRY_MS: '50' });
});
after(async () => {
  await edge?.dispose();
  await server?.dispose();
  Tally.print();
});

function frame({ source, session, first = 0, batch = 0, events = [{ name: 'Product Viewed', properties: { sku: 'G-32' } }] }) {
  const wanted = { do: 'frame', tenant: server.tenant, source, region: 'EU', firstSeq: first, batchSeq: batch, created: Date.now(), events };
  return bytes(kit({ ...wanted, ...(session ? { session } : { writeKey: server.writeKey }) }).frame);
}

const post = (url, body) => fetch(`${url}/v1/f`, { method: 'POST', body, headers: { 'mf-cf-blob': JSON.stringify(CF), 'cf-connecting-ip': '203.0.113.77' } });
const rowsOf = (source) => server.rows().filter((row) => row.source === source);
const quarantine = (reason) => server.query('journal.db', 'SELECT * FROM quarantine').filter((row) => row.reason === reason);

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

/** A session of the server's that ended so long ago. */
async function ended(source, ago) {
  const root = (await readFile(path.join(server.data, 'tenants', server.tenant, 'keys.toml'), 'utf8')).match(/\[\[roots\]\][^[]*?secret = "([^"]+)"/)[1];
  const expires = Date.now() - ago;
  return kit({ do: 'session', root, tenant: server.tenant, region: 'EU', worker: 0, epoch: Math.floor(expires / HOUR) - 1, source, origin: '', writeKey: server.writeKey, expires });
}

async function stored(answer) {
  assert.equal(answer.status, 200, await answer.clone().text());
  const receipt = await answer.json();
  return { ...receipt, sums: [receipt.stored, receipt.duplicate, receipt.conflict] };
}

describe('edge and server', () => {
  test('a first frame, the session that it brings, and every repetition: each event once', async () => {
    const source = newSource();
    const first = frame({ source });
    const { session, sums } = await stored(await post(edge.url, first));
    assert.deepEqual(sums, [1, 0, 0]);
    const second = frame({ source, session, first: 1, batch: 1, events: [{ name: 'A' }, { name: 'B' }] });
    assert.deepEqual((await stored(await post(edge.url, second))).sums, [2, 0, 0]);
    // Again to the edge, which remembers one and asks about the other; and past it.
    for (const url of [edge.url, server.url]) {
      assert.deepEqual((await stored(await post(url, first))).sums, [0, 1, 0]);
      assert.deepEqual((await stored(await post(url, second))).sums, [0, 2, 0]);
    }
    const rows = await until('three rows', () => rowsOf(source).length === 3 && rowsOf(source));
    assert.deepEqual(rows.map(({ seq, name, trust }) => [seq, name, trust]), [[0, 'Product Viewed', 'write-key'], [1, 'A', 'session'], [2, 'B', 'session']]);
    for (const row of rows) assert.deepEqual([row.country, row.pop, row.network], ['CH', 'ZRH', '203.0.113.0/24']);
  });

  test('a session of the server is good at the edge, which lets the server check it', async () => {
    const source = newSource();
    const { session } = await stored(await post(server.url, frame({ source })));
    assert.deepEqual((await stored(await post(edge.url, frame({ source, session, first: 1 })))).sums, [1, 0, 0]);
    const rows = await until('two rows', () => rowsOf(source).length === 2 && rowsOf(source));
    assert.equal(rows[1].trust, 'session');

    const forged = { ...session, secret: Buffer.alloc(32).toString('base64') };
    const answer = await post(edge.url, frame({ source, session: forged, first: 2 }));
    assert.equal(answer.status, 401);
    assert.equal((await answer.json()).code, 'bad-signature');
    assert.equal(answer.headers.get('access-control-allow-origin'), '*');
    assert.match(answer.headers.get('firsthop-receipt'), /quarantined=1/);
    await until('it in quarantine', () => quarantine('bad-signature').length === 1);
  });

  test('a session of the edge is good at the server', async () => {
    const source = newSource();
    const { session } = await stored(await post(edge.url, frame({ source })));
    assert.deepEqual((await stored(await post(server.url, frame({ source, session, first: 1 })))).sums, [1, 0, 0]);
  });

  test('other content under a known identity is kept as a conflict', async () => {
    const source = newSource();
    const { session } = await stored(await post(edge.url, frame({ source })));
    await stored(await post(edge.url, frame({ source, session, first: 1, events: [{ name: 'A' }] })));
    const { sums } = await stored(await post(edge.url, frame({ source, session, first: 1, events: [{ name: 'B' }] })));
    assert.deepEqual(sums, [0, 0, 1]);
    await until('it in quarantine', () => quarantine('conflict').length === 1);
  });

  test('tampering, replay, ended and foreign sessions: what is genuine is stored once, and all else is set aside', async () => {
    const [mine, foreign] = [newSource(), newSource()];
    const sessions = new Map();
    for (const [source, url] of [[mine, edge.url], [foreign, server.url]]) sessions.set(source, (await stored(await post(url, frame({ source })))).session);
    const genuine = [mine, foreign].flatMap((source) => [1, 2, 3, 4].map((first) => frame({ source, session: sessions.get(source), first, batch: first })));
    let acknowledged = 2;
    for (const body of genuine) acknowledged += (await stored(await post(edge.url, body))).stored;

    const TAG = 16;
    /** Says something else; with a CRC that fits, it is the tag that does not. */
    const bent = (body) => Buffer.from(body.toString('latin1').replace('Viewed', 'Bought'), 'latin1');
    const fitting = (body) => Buffer.concat([resealed(body.subarray(0, -TAG)), body.subarray(-TAG)]);
    const random = () => ({ secret: Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64') });
    const hostile = [
      ...genuine.flatMap((body) => [['bad-crc', bent(body)], ['bad-signature', fitting(bent(body))]]),
      ...[mine, foreign].map((source) => ['bad-signature', frame({ source, session: { ...sessions.get(source), ...random() }, first: 5, batch: 5 })]),
      ...(await Promise.all([mine, foreign].map(async (source) => ['session-expired', frame({ source, session: await ended(source, 8 * DAY), first: 6, batch: 6 })]))),
    ];
    for (const [code, body] of hostile) {
      const answer = await post(edge.url, body);
      assert.equal((await answer.json()).code, code);
      assert.match(answer.headers.get('firsthop-receipt'), /quarantined=1/);
    }
    // Each again, to the edge and past it, side by side.
    const again = genuine.flatMap((body) => [edge.url, edge.url, server.url].map((url) => post(url, body)));
    for (const answer of await Promise.all(again)) assert.deepEqual((await stored(answer)).sums, [0, 1, 0]);

    const rows = await until('their rows', () => [mine, foreign].flatMap(rowsOf).length >= 10 && [mine, foreign].flatMap(rowsOf));
    const kept = server.query('journal.db', 'SELECT * FROM quarantine').map(({ body }) => Buffer.from(body));
    const quarantined = hostile.filter(([, body]) => kept.some((entry) => entry.includes(body))).length;
    const distinct = new Set(rows.map(({ source, seq }) => `${source}/${seq}`)).size;
    const figures = { sent: genuine.length + 2, acknowledged, stored: distinct, duplicates: rows.length - distinct, lost: acknowledged - distinct };
    new Tally(`${again.length} replays, ${hostile.length} forgeries`, { ...figures, quarantined });
    assert.deepEqual({ ...figures, quarantined }, { sent: 10, acknowledged: 10, stored: 10, duplicates: 0, lost: 0, quarantined: hostile.length });
  });

  test('one bit changed on the way: refused, set aside, nothing stored', async () => {
    const source = newSource();
    const bent = frame({ source });
    bent[bent.length - 3] ^= 4;
    const answer = await post(edge.url, bent);
    assert.equal(answer.status, 400);
    assert.equal((await answer.json()).code, 'bad-crc');
    await until('it in quarantine, as it came', () => quarantine('bad-crc').some(({ body }) => Buffer.from(body).includes(bent)));
    assert.equal(rowsOf(source).length, 0);
  });

  test('@segment/analytics-node, unmodified: each call is a row', async () => {
    const analytics = new Analytics({ writeKey: server.writeKey, host: edge.url, flushAt: 5, maxRetries: 0 });
    const errors = [];
    analytics.on('error', (error) => errors.push(error));
    for (let i = 0; i < 12; i += 1) analytics.track({ userId: 'u-1', event: 'Order Completed', messageId: `order-${i}`, properties: { i, total: 18.99, nested: { list: [1, 'two', null] } } });
    await analytics.closeAndFlush({ timeout: 10_000 });
    assert.deepEqual(errors, []);
    const rows = await until('twelve rows', () => {
      const found = server.rows().filter(({ user_id }) => user_id === 'u-1');
      return found.length === 12 && found;
    });
    // The SDK sends its batches side by side.
    const byId = new Map(rows.map((row) => [row.foreign_id, row]));
    for (let i = 0; i < 12; i += 1) {
      const row = byId.get(`order-${i}`);
      assert.deepEqual(JSON.parse(row.properties), { i, total: 18.99, nested: { list: [1, 'two', null] } });
      assert.deepEqual([row.trust, row.agent], ['write-key', 'library']);
    }
  });

  test('the server is killed and comes back: what was spooled meanwhile is stored once', async () => {
    const source = newSource();
    const { session } = await stored(await post(edge.url, frame({ source })));
    const frames = [1, 2, 3].map((first) => frame({ source, session, first, batch: first }));
    await server.stop('SIGKILL');
    for (const body of frames) {
      const { sums, spooled } = await stored(await post(edge.url, body));
      assert.deepEqual([...sums, spooled], [0, 0, 0, 1]);
    }
    assert.deepEqual((await stored(await post(edge.url, frames[0]))).sums, [0, 1, 0], 'a retry is known');
    await server.start();
    const rows = await until('four rows', () => rowsOf(source).length === 4 && rowsOf(source));
    assert.deepEqual(rows.map(({ seq }) => seq), [0, 1, 2, 3], 'in order');
    for (const body of frames) assert.deepEqual((await stored(await post(server.url, body))).sums, [0, 1, 0], 'each once');
    assert.equal(rowsOf(source).length, 4);
  });

  test('a session that has long ended is refused and set aside, and one that ended a moment ago is not', async () => {
    const send = async (ago) => {
      const source = newSource();
      const answer = await post(edge.url, frame({ source, session: await ended(source, ago) }));
      return [answer.status, (await answer.json()).code, answer.headers.get('firsthop-receipt')];
    };
    assert.equal((await send(HOUR))[0], 200);
    const before = quarantine('session-expired').length;
    const [status, code, verdict] = await send(8 * DAY);
    assert.deepEqual([status, code], [401, 'session-expired']);
    assert.match(verdict, /quarantined=1/);
    await until('it in quarantine', () => quarantine('session-expired').length === before + 1);
  });

  // Last, for it ends the edge.
  test('an enrolment that ends: the page keeps its events', async () => {
    const source = newSource();
    await stored(await post(edge.url, frame({ source })));
    await server.command('edge', 'remove', '--tenant', 'shop', 'spine');
    await until('the server to have noticed', async () => (await post(edge.url, frame({ source: newSource() }))).status === 503);
  });
});
