// Rules are applied once, by the real Worker or by the real server: whichever way an event takes, also out of the spool, its row says the same.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { Server, Wire } from '../../tests/spine/parts.mjs';
import { bytes, kit, newSource } from './server.mjs';
import { until } from './wait.mjs';
import { CF, startWorker } from './worker.mjs';

// What would show if it were done twice: a hash of a hash, what was removed or noted twice, consent that is asked of a frame that has none any more.
const RULES = `
[policy.rules]
session = "source"
[policy.rules.consent]
required = ["analytics"]
without = "suppress"
categories = { analytics = ["Statistics"] }
[policy.rules.campaign]
keep_click_ids = "always"
[policy.rules.ids]
user = "hash"
[policy.rules.properties]
deny = ["card"]
hash = ["email"]
`;
const ANALYTICS = 2;
const URL_SENT = 'https://shop.example/p?a=1&utm_source=news&gclid=G1';
const PROPERTIES = { sku: 'G-32', email: 'ada@example.com', card: '4111' };
const HEADERS = { 'mf-cf-blob': JSON.stringify(CF), 'cf-connecting-ip': '203.0.113.77' };

let server;
let wire;
let edge;
let root;
let hash;

before(async () => {
  server = await Server.create();
  const file = (name) => path.join(server.data, 'tenants', server.tenant, name);
  await writeFile(file('tenant.toml'), (await readFile(file('tenant.toml'), 'utf8')) + RULES);
  root = (await readFile(file('keys.toml'), 'utf8')).match(/\[\[roots\]\][^[]*?secret = "([^"]+)"/)[1];
  const { hashKey } = await until('the server to have read its rules', async () => {
    const answer = await fetch(`${server.internalUrl}/v1/leases`, { method: 'POST', headers: { authorization: `Bearer ${server.enrolment}` } });
    const said = await answer.json();
    return said.hashKey && said;
  });
  hash = (text) => createHmac('sha256', bytes(hashKey)).update(text).digest('hex').slice(0, 32);
  wire = await Wire.create(server.url);
  edge = await startWorker({ UPSTREAM: wire.url, LEASES: server.internalUrl, REGION: 'EU', ENROLMENTS: server.enrolment, SPOOL_RETRY_MS: '50' });
});
after(async () => {
  await edge?.dispose();
  await wire?.dispose();
  await server?.dispose();
});

const sends = {
  /** A frame of two events; what finds their rows. */
  native: async (url, granted) => {
    const source = newSource();
    const events = ['One', 'Two'].map((name) => ({ name, properties: PROPERTIES }));
    const context = { userId: 'ada', url: URL_SENT, referrer: 'https://www.google.com/search' };
    const wanted = { do: 'frame', tenant: server.tenant, source, region: 'EU', created: Date.now(), consent: granted ? ANALYTICS : 0, context, events, writeKey: server.writeKey };
    const answer = await fetch(`${url}/v1/f`, { method: 'POST', headers: HEADERS, body: bytes(kit(wanted).frame) });
    assert.equal(answer.status, 200, await answer.clone().text());
    return { of: (row) => row.source === source, spooled: (await answer.json()).spooled ?? 0 };
  },
  /** The same two as a batch of Segment's. */
  segment: async (url, granted) => {
    const ids = [crypto.randomUUID(), crypto.randomUUID()];
    const context = { page: { url: URL_SENT, referrer: 'https://www.google.com/search' }, consent: { categoryPreferences: { Statistics: granted, Advertising: true } } };
    const batch = ['One', 'Two'].map((event, i) => ({ type: 'track', event, messageId: ids[i], userId: 'ada', context, properties: PROPERTIES }));
    const headers = { ...HEADERS, authorization: `Bearer ${server.writeKey}`, 'content-type': 'application/json' };
    const answer = await fetch(`${url}/v1/batch`, { method: 'POST', headers, body: JSON.stringify({ batch }) });
    assert.equal(answer.status, 200, await answer.clone().text());
    return { of: (row) => ids.includes(row.foreign_id), spooled: Number(answer.headers.get('firsthop-receipt').match(/spooled=(\d+)/)?.[1] ?? 0) };
  },
};

/** What the row of each event has to say, whatever it went through. */
function check(row, name, kind) {
  assert.deepEqual(
    [row.name, row.user_id, JSON.parse(row.properties), row.url, row.utm_source, row.click_id],
    [name, hash('ada'), { sku: 'G-32', email: hash('ada@example.com') }, URL_SENT, 'news', 'gclid=G1'],
  );
  assert.deepEqual([row.effects, row.consent], ['removed hashed session', kind === 'native' ? 'analytics' : 'analytics marketing']);
  assert.match(row.rules, /^[0-9a-f]{8}$/);
}

const envelopes = () => wire.requests.filter((request) => request.path === '/v1/e').map(({ body }) => kit({ do: 'open', envelope: body.toString('base64'), root }));
const suppressed = () => server.metric('firsthop_events_total', { outcome: 'suppressed' });

describe('rules are applied once', () => {
  for (const kind of ['native', 'segment']) {
    for (const way of ['the server alone', 'the edge', 'the edge’s spool']) {
      test(`${kind}, by ${way}`, async () => {
        const by = way === 'the server alone' ? server.url : edge.url;
        const spooled = way === 'the edge’s spool';
        wire.requests.length = 0;
        const before = await suppressed();
        if (spooled) await server.stop('SIGKILL');
        const [good, bad] = [await sends[kind](by, true), await sends[kind](by, false)];
        assert.deepEqual([good.spooled, bad.spooled], spooled ? [2, 2] : [0, 0]);
        if (spooled) await server.start();
        const rows = await until('its rows', () => {
          const found = server.rows().filter(good.of);
          return found.length >= 2 && found;
        });
        assert.equal(rows.length, 2);
        rows.forEach((row, i) => check(row, ['One', 'Two'][i], kind));
        // What came in one frame is of one source; an event of Segment's is one of its own besides.
        assert.deepEqual(new Set(rows.map(({ session_id }) => session_id)).size, 1);
        if (kind === 'native') assert.equal(rows[0].session_id, rows[0].source);
        await until('what was not agreed to be counted', async () => (await suppressed()) >= (spooled ? 2 : before + 2));
        assert.deepEqual(server.rows().filter(bad.of), []);
        if (way === 'the server alone') return;
        // It was the edge that did it: what it handed on had been done, and said so.
        const handed = envelopes().map(({ frame, notes }) => ({ notes, says: kit({ do: 'read', frame }) }));
        const [done] = handed.filter(({ says }) => says.rewritten && !says.rewritten.suppressed);
        assert.deepEqual([done.says.events[0].context.userId, done.says.events[0].properties.email], [hash('ada'), hash('ada@example.com')]);
        assert.equal(rows[0].rules, [...Buffer.from(new Uint32Array([done.notes.rules]).buffer)].map((byte) => byte.toString(16).padStart(2, '0')).reverse().join(''));
        assert.ok(handed.some(({ says }) => says.rewritten?.suppressed));
      });
    }
  }
});
