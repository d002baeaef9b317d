// Native frames through the built Worker on workerd, to a stand-in for the server.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { pair, refusal, serverOf } from './pair.mjs';
import { Tenant, bytes, json, kit, newSource, problem, resealed, sealed } from './server.mjs';
import { until } from './wait.mjs';
import { CF, INSIDE, startWorker } from './worker.mjs';

const tenant = new Tenant(0xc8, { origins: ['https://*.shop.example', 'https://shop.example'] });
const ORIGIN = 'https://shop.example';
const STATUS_TOKEN = 'operators';
// Without room in its spool: what the edge says when nobody has a frame. What it says otherwise is in spool.test.mjs.
const { server, edge } = await pair({ tenants: [tenant], SPOOL_BYTES: '1', STATUS_TOKEN });

/** Posts a frame as a page would. Not by `fetch`, which on a 421 sends the body again, and in Node another one. */
async function send(body, headers = {}) {
  const request = http.request(`${edge.url}/v1/f`, {
    method: 'POST',
    headers: { origin: ORIGIN, 'content-type': 'text/plain', 'content-length': body.length, 'mf-cf-blob': JSON.stringify(CF), ...headers },
  });
  request.end(body);
  const [answer] = await once(request, 'response');
  const chunks = [];
  for await (const chunk of answer) chunks.push(chunk);
  return new Response(Buffer.concat(chunks), { status: answer.statusCode, headers: answer.headers });
}

/** How many frames the edge has forwarded and heard of. */
async function forwarded() {
  const answer = await fetch(`${edge.url}/statusz`, { headers: { authorization: `Bearer ${STATUS_TOKEN}` } });
  return (await answer.json()).isolate.frames.forwarded;
}

/** A page that has its session. */
async function settled(source = newSource()) {
  const answer = await send(tenant.frame({ source }));
  assert.equal(answer.status, 200);
  const { session } = await answer.json();
  return { source, session };
}

beforeEach(() => server.forget());

describe('a page', () => {
  test('gets a session for its first frame, and signs the next one with it', async () => {
    const source = newSource();
    const first = tenant.frame({ source });
    let answer = await send(first);
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('access-control-allow-origin'), '*');
    assert.equal(answer.headers.get('cache-control'), 'no-store');
    const receipt = await answer.json();
    const { session, ...rest } = receipt;
    assert.deepEqual(rest, { source, batch: 0, first: 0, count: 1, stored: 1, duplicate: 0, conflict: 0 });
    assert.equal(session.alg, 1);
    assert.equal(session.region, 'EU');
    assert.equal(bytes(session.grant).length, 30);
    assert.equal(bytes(session.secret).length, 32);
    assert.ok(Math.abs(session.expires - Date.now() - 3_600_000) < 60_000);

    const second = tenant.frame({ source, session, batch: 1, first: 1, events: [{ name: 'A' }, { name: 'B' }] });
    answer = await send(second);
    assert.equal(answer.status, 200);
    assert.deepEqual(await answer.json(), { source, batch: 1, first: 1, count: 2, stored: 2, duplicate: 0, conflict: 0 });

    const [a, b] = server.opened();
    assert.equal(a.annotation.trust, 'write-key');
    assert.equal(b.annotation.trust, 'session');
    assert.deepEqual(bytes(a.frame), first, 'the page\'s bytes, verbatim');
    assert.deepEqual(bytes(b.frame), second);
    // Both from one isolate, numbered without a gap.
    assert.equal(a.header.source, b.header.source);
    assert.equal(b.header.batchSeq, a.header.batchSeq + 1);
    assert.equal(b.header.count, 2);
    assert.equal(b.worker, tenant.worker);
    assert.deepEqual(kit({ do: 'read', frame: b.frame }).events.map(({ name }) => name), ['A', 'B']);
  });

  test('may seal what it sends: without the key it goes on as it came', async () => {
    const frame = sealed(tenant.frame({ source: newSource() }));
    const answer = await send(frame);
    assert.equal(answer.status, 200);
    const [{ annotation, frame: forwarded }] = server.opened();
    assert.deepEqual(bytes(forwarded), frame, 'verbatim');
    assert.equal(annotation.refused, '');
    assert.equal(annotation.trust, 'write-key');
  });

  test('is annotated with what Cloudflare says, and with no more of its address than the network', async () => {
    const agent = 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1';
    await send(tenant.frame({ source: newSource() }), { 'cf-connecting-ip': '203.0.113.77', 'user-agent': agent });
    await send(tenant.frame({ source: newSource() }), { 'cf-connecting-ip': '2001:db8:1234:5678:9abc:def0:1122:3344' });
    const [v4, v6] = server.opened();
    const { received, ...note } = v4.annotation;
    assert.deepEqual(note, { pop: 'ZRH', country: 'CH', network: '203.0.113.0/24', agent: 'phone', traffic: 'human', trust: 'write-key', refused: '' });
    assert.ok(Math.abs(received - Date.now()) < 60_000);
    assert.equal(v6.annotation.network, '2001:db8:1234::/48');
    for (const { body, headers } of server.received) {
      const all = body.toString('latin1') + JSON.stringify(headers);
      assert.ok(!all.includes('203.0.113.77') && !all.includes('5678:9abc'), 'no address in text');
      assert.ok(!body.includes(Buffer.from([203, 0, 113, 77])) && !body.includes(Buffer.from('56789abc', 'hex')), 'no address in bytes');
      assert.ok(!all.includes('iPhone') && !all.includes('Zurich'), 'no user agent, no city');
    }
  });

  test('is taken as it is where nothing is known of it', async () => {
    const bindings = { UPSTREAM: server.url, REGION: 'EU', ENROLMENTS: tenant.enrolment };
    const other = await startWorker(bindings, { more: [INSIDE] });
    try {
      const answer = await other.miniflare.dispatchFetch('http://inside.test/', { method: 'POST', body: tenant.frame({ source: newSource() }) });
      assert.equal(answer.status, 200);
      const { received: _, ...note } = server.opened()[0].annotation;
      assert.deepEqual(note, { pop: '', country: '', network: '', agent: 'unknown', traffic: 'unknown', trust: 'write-key', refused: '' });
    } finally {
      await other.dispose();
    }
  });

  test('of another region than Cloudflare knows is no country', async () => {
    for (const [country, noted] of [['XX', ''], ['T1', ''], ['LI', 'LI']]) {
      await send(tenant.frame({ source: newSource() }), { 'mf-cf-blob': JSON.stringify({ ...CF, country }) });
      assert.equal(server.opened().at(-1).annotation.country, noted, country);
    }
  });

  test('whose session ends soon gets a new one', async () => {
    const source = newSource();
    for (const [left, renewed] of [[30, false], [5, true], [-30, true]]) {
      const session = tenant.session({ source, origin: ORIGIN, expires: Date.now() + left * 60_000, epoch: Math.floor(Date.now() / 3_600_000) - 1 });
      const answer = await send(tenant.frame({ source, session, first: 100 + left }));
      assert.equal(answer.status, 200, `${left} minutes`);
      assert.equal('session' in (await answer.json()), renewed, `${left} minutes`);
    }
  });

  test('with a long frame is signed for by the platform, and checked by it', async () => {
    const { source, session } = await settled();
    const events = Array.from({ length: 80 }, (_, i) => ({ name: `Event ${i}`, properties: { text: 'x'.repeat(100) } }));
    const frame = tenant.frame({ source, session, first: 1, batch: 1, events });
    assert.ok(frame.length > 8192);
    for (const at of [frame.length - 1, frame.length - 40]) {
      const changed = Buffer.from(frame);
      changed[at] ^= 1;
      const body = at === frame.length - 1 ? changed : Buffer.concat([resealed(changed.subarray(0, -16)), changed.subarray(-16)]);
      await refusal(await send(body), 401, 'bad-signature');
    }
    const answer = await send(frame);
    assert.equal(answer.status, 200);
    assert.equal((await answer.json()).stored, 80);
    // It opens with the tenant's root, so the platform's tag of the envelope is the right one.
    const { annotation, frame: inside } = server.opened().at(-1);
    assert.equal(annotation.trust, 'session');
    assert.deepEqual(bytes(inside), frame);
  });

  test('that has gone is served to the end', async () => {
    const { source, session } = await settled();
    const before = await forwarded();
    const frame = tenant.frame({ source, session, first: 1 });
    let release, answered;
    const held = new Promise((resolve) => (release = resolve));
    const arrived = new Promise((resolve) => {
      server.plans.push(async (request, response, body) => {
        resolve();
        await held;
        answered = once(response, 'finish');
        server.store(response, body);
      });
    });
    const leaving = new AbortController();
    const answer = fetch(`${edge.url}/v1/f`, { method: 'POST', body: frame, headers: { origin: ORIGIN }, signal: leaving.signal });
    await arrived;
    leaving.abort();
    await assert.rejects(answer);
    await sleep(100);
    release();
    await until('the acknowledgement to be written', () => answered);
    // The edge has heard it, although nobody waited for its answer.
    await until('the edge to count it', async () => (await forwarded()) > before);
    server.forget();
    const again = await (await send(frame)).json();
    assert.equal(again.duplicate, 1);
    assert.equal(server.received.length, 0);
  });
});

describe('acknowledgement', () => {
  test('a repetition is answered here once the server has the frame', async () => {
    const { source, session } = await settled();
    const frame = tenant.frame({ source, session, first: 1, events: [{ name: 'A' }, { name: 'B' }] });
    assert.equal((await (await send(frame)).json()).stored, 2);
    const before = server.received.length;
    const answer = await send(frame);
    assert.equal(answer.status, 200);
    assert.deepEqual(await answer.json(), { source, batch: 0, first: 1, count: 2, stored: 0, duplicate: 2, conflict: 0 });
    assert.equal(server.received.length, before, 'not forwarded again');
  });

  test('only a signed frame is recognised here: the others the server must see', async () => {
    const frame = tenant.frame({ source: newSource() });
    await send(frame);
    await send(frame);
    assert.equal(server.received.length, 2);
  });

  test('the same events with other content reach the server', async () => {
    const { source, session } = await settled();
    await send(tenant.frame({ source, session, first: 1, events: [{ name: 'A' }] }));
    await send(tenant.frame({ source, session, first: 1, events: [{ name: 'B' }] }));
    assert.equal(server.received.length, 3);
  });

  test('a conflict is told again, by the server that knows it', async () => {
    const { source, session } = await settled();
    const frame = tenant.frame({ source, session, first: 1 });
    const conflict = { source, batch: 0, first: 1, count: 1, stored: 0, duplicate: 0, conflict: 1 };
    for (let i = 0; i < 2; i += 1) {
      server.plans.push((request, response) => json(response, 200, conflict));
      assert.deepEqual(await (await send(frame)).json(), conflict);
    }
  });

  test('a server that refuses is not an acknowledgement, and nothing is remembered', async () => {
    const { source, session } = await settled();
    const frame = tenant.frame({ source, session, first: 1 });
    for (const [status, headers, wait] of [[503, { 'retry-after': '17' }, '17'], [500, {}, '5'], [503, { 'retry-after': 'soon' }, '5']]) {
      server.plans.push((request, response) => problem(response, status, 'unavailable', headers));
      const answer = await send(frame);
      await refusal(answer, 503, 'unavailable');
      assert.equal(answer.headers.get('retry-after'), wait);
    }
    server.forget();
    assert.equal((await (await send(frame)).json()).stored, 1, 'the retry goes through');
    assert.equal(server.stored.length, 1);
    assert.equal((await (await send(frame)).json()).duplicate, 1);
    assert.equal(server.stored.length, 1);
  });

  test('a server that is away: 503, and the retry is stored', async () => {
    const { source, session } = await settled();
    const frame = tenant.frame({ source, session, first: 1 });
    await server.stop();
    const answer = await send(frame);
    const body = await refusal(answer, 503, 'unavailable');
    assert.equal(body.retryable, true);
    assert.match(answer.headers.get('retry-after'), /^[1-9]\d*$/);
    await server.restart();
    assert.equal((await (await send(frame)).json()).stored, 1);
  });

  test('a server that breaks off in the middle of its answer has said nothing', async () => {
    const { source, session } = await settled();
    const frame = tenant.frame({ source, session, first: 1 });
    server.plans.push((request, response) => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': 500 });
      response.write('{"source":"');
      setTimeout(() => response.destroy(), 50);
    });
    await refusal(await send(frame), 503, 'unavailable');
    assert.equal((await (await send(frame)).json()).stored, 1);
  });

  test('of many at once, each gets its own', async () => {
    const frames = Array.from({ length: 150 }, () => newSource()).map((source) => ({ source, frame: tenant.frame({ source }) }));
    for (const _ of frames) {
      server.plans.push(async (request, response, body) => {
        // Every answer by the frame that it is for, in an order of its own; every tenth breaks off.
        const at = body.indexOf('FHOP', 4);
        const source = body.subarray(at + 16, at + 32).toString('hex');
        await sleep(Math.random() * 200);
        if (source.endsWith('0')) return response.destroy();
        const id = source.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, '$1-$2-$3-$4-$5');
        return json(response, 200, { source: id, batch: 0, first: 0, count: 1, stored: 1, duplicate: 0, conflict: 0 });
      });
    }
    await Promise.all(
      frames.map(async ({ source, frame }) => {
        const answer = await send(frame);
        const broken = source.endsWith('0');
        assert.equal(answer.status, broken ? 503 : 200, source);
        if (!broken) assert.equal((await answer.json()).source, source);
      }),
    );
  });

  test('a 2xx without a receipt is none', async () => {
    const { source, session } = await settled();
    const frame = tenant.frame({ source, session, first: 1 });
    for (const body of ['', '<html>welcome</html>', '{}', 'x'.repeat(300_000)]) {
      server.plans.push((request, response) => response.writeHead(200, { 'content-type': 'text/html' }).end(body));
      await refusal(await send(frame), 503, 'unavailable');
    }
    assert.equal((await (await send(frame)).json()).stored, 1);
  });

  test('a redirect is not followed', async () => {
    const elsewhere = await serverOf(tenant);
    for (const status of [301, 302, 307, 308]) {
      server.plans.push((request, response) => response.writeHead(status, { location: `${elsewhere.url}/v1/e` }).end());
      await refusal(await send(tenant.frame({ source: newSource() })), 503, 'unavailable');
    }
    assert.equal(elsewhere.received.length, 0);
  });

  test("the server's verdict on a frame that it has set aside is passed on", async () => {
    const { source } = await settled();
    // Granted by another edge: only the server can check it.
    const session = { ...tenant.session({ source, origin: ORIGIN, worker: 99 }), secret: Buffer.alloc(32).toString('base64') };
    server.plans.push((request, response, body) => {
      assert.equal(tenant.open(body).annotation.trust, 'unchecked');
      problem(response, 401, 'bad-signature', { 'firsthop-receipt': 'stored=0, duplicate=0, conflict=0, quarantined=1' });
    });
    const answer = await send(tenant.frame({ source, session, first: 1 }));
    await refusal(answer, 401, 'bad-signature');
    assert.match(answer.headers.get('firsthop-receipt'), /quarantined=1/);
  });

  test('a refusal that says nothing of the frame is no reason for the page to throw it away', async () => {
    for (const [status, code] of [[401, 'bad-signature'], [403, 'forbidden'], [404, 'not-found'], [413, 'body-too-large'], [421, 'wrong-region']]) {
      server.plans.push((request, response) => problem(response, status, code));
      const answer = await send(tenant.frame({ source: newSource() }));
      await refusal(answer, 503, 'unavailable');
    }
  });

  test('a server under load says when to come back', async () => {
    server.plans.push((request, response) => problem(response, 429, 'rate-limited', { 'retry-after': '30' }));
    const answer = await send(tenant.frame({ source: newSource() }));
    await refusal(answer, 429, 'rate-limited');
    assert.equal(answer.headers.get('retry-after'), '30');
  });
});

/** A copy with one byte changed; `at` counts from the end if it is negative. */
function changed(frame, at, value) {
  const copy = Buffer.from(frame);
  const index = at < 0 ? copy.length + at : at;
  copy[index] = typeof value === 'function' ? value(copy[index]) : value;
  return copy;
}

describe('bad input', () => {
  const first = () => tenant.frame({ source: newSource() });
  const other = new Tenant(0xdead);
  const rows = [
    // What, the body and headers, status, code, whether the tenant gets to see it.
    ['nothing', async () => [Buffer.alloc(0)], 400, 'truncated', false],
    ['no frame at all', async () => [Buffer.from('hello, is anybody there?')], 400, 'bad-magic', false],
    ['wrong magic', async () => [changed(first(), 0, 0x47)], 400, 'bad-magic', false],
    ['wrong version', async () => [changed(first(), 4, 2)], 400, 'unknown-version', false],
    ['unknown flag', async () => [changed(first(), 5, 0x80)], 400, 'reserved-bits', false],
    ['header cut off', async () => [first().subarray(0, 60)], 400, 'truncated', false],
    ['end cut off', async () => [first().subarray(0, -5)], 400, 'truncated', true],
    ['more than a frame', async () => [Buffer.concat([first(), Buffer.from('x')])], 400, 'trailing-bytes', true],
    ['one bit changed on the way', async () => [changed(first(), 120, (byte) => byte ^ 1)], 400, 'bad-crc', true],
    ['sealed to no key', async () => [resealed(changed(first(), 5, 1))], 400, 'bad-extension', true],
    ['an envelope', async () => [resealed(changed(first(), 5, 4))], 400, 'reserved-bits', true],
    ['payload that is none', async () => [resealed(changed(first(), -1, 0xff))], 400, 'malformed-payload', true],
    ['fewer events than it says', async () => [resealed(changed(first(), 44, 3))], 400, 'bad-count', true],
    ['another write key', async () => [tenant.frame({ source: newSource(), writeKey: `fh_${tenant.id}_${'x'.repeat(24)}` })], 401, 'wrong-write-key', true],
    ["another tenant's write key", async () => [tenant.frame({ source: newSource(), writeKey: other.writeKey })], 401, 'wrong-write-key', true],
    ['no tenant of ours', async () => [other.frame({ source: newSource() })], 401, 'wrong-write-key', false],
    ['another region', async () => [tenant.frame({ source: newSource(), region: 'US' })], 421, 'wrong-region', false],
    ['wrong origin', async () => [first(), { origin: 'https://shop.example.evil.example' }], 403, 'wrong-origin', true],
    ['the origin of a page that hides its own', async () => [first(), { origin: 'null' }], 403, 'wrong-origin', true],
    [
      'a session of another origin',
      async () => {
        const { source, session } = await settled();
        return [tenant.frame({ source, session, first: 1 }), { origin: 'https://www.shop.example' }];
      },
      403,
      'wrong-origin',
      true,
    ],
    [
      'a session of another source',
      async () => {
        const { session } = await settled();
        return [tenant.frame({ source: newSource(), session, first: 1 })];
      },
      401,
      'bad-signature',
      true,
    ],
    [
      'another tag',
      async () => {
        const { source, session } = await settled();
        return [changed(tenant.frame({ source, session, first: 1 }), -1, (byte) => byte ^ 1)];
      },
      401,
      'bad-signature',
      true,
    ],
    [
      'a session longer than anybody may grant',
      async () => {
        const source = newSource();
        return [tenant.frame({ source, session: tenant.session({ source, origin: ORIGIN, expires: Date.now() + 40 * 3_600_000 }) })];
      },
      401,
      'bad-session',
      true,
    ],
    ['compressed', async () => [first(), { 'content-encoding': 'gzip' }], 415, 'unsupported-encoding', false],
  ];
  for (const [what, make, status, code, kept] of rows) {
    test(what, async () => {
      const [body, headers] = await make();
      server.forget();
      const answer = await send(body, headers);
      const { retryable } = await refusal(answer, status, code);
      assert.equal(retryable, ['truncated', 'trailing-bytes', 'bad-crc', 'bad-signature'].includes(code));
      const opened = server.opened();
      assert.equal(opened.length, kept ? 1 : 0, 'what the server was told');
      if (kept) {
        assert.equal(opened[0].annotation.refused, code);
        assert.deepEqual(bytes(opened[0].frame), body, 'as it came');
        assert.match(answer.headers.get('firsthop-receipt'), /^stored=0, duplicate=0, conflict=0, quarantined=\d+$/);
      }
    });
  }

  test('an expired session is for the server to refuse, for the key is no longer here', async () => {
    const source = newSource();
    const then = Date.now() - 8 * 24 * 3_600_000;
    const session = tenant.session({ source, origin: ORIGIN, expires: then, epoch: Math.floor(then / 3_600_000) - 1 });
    server.plans.push((request, response) => problem(response, 401, 'session-expired', { 'firsthop-receipt': 'stored=0, duplicate=0, conflict=0, quarantined=1' }));
    await refusal(await send(tenant.frame({ source, session })), 401, 'session-expired');
    assert.equal(server.opened()[0].annotation.trust, 'unchecked');
  });

  test('what cannot be set aside is not refused for good', async () => {
    server.plans.push((request, response) => problem(response, 503, 'unavailable'));
    await refusal(await send(changed(first(), 120, (byte) => byte ^ 1)), 503, 'unavailable');
  });

  test('a body over the bound that says so is not read', async () => {
    const answer = await send(Buffer.alloc(512 * 1024 + 1));
    await refusal(answer, 413, 'body-too-large');
    assert.equal(server.received.length, 0);
  });

  test('a body over the bound that does not say so is cut off', async () => {
    let sent = 0;
    const endless = new ReadableStream({
      async pull(controller) {
        // Past the bound slowly: who writes into a connection that the other side closes may miss its answer.
        if (sent > 512 * 1024) await sleep(100);
        sent += 64 * 1024;
        controller.enqueue(new Uint8Array(64 * 1024));
        if (sent > 64 << 20) controller.close();
      },
    });
    const answer = await fetch(`${edge.url}/v1/f`, { method: 'POST', body: endless, duplex: 'half', headers: { origin: ORIGIN } });
    await refusal(answer, 413, 'body-too-large');
    assert.ok(sent < 4 << 20, `the rest was turned away: ${sent} bytes had been sent`);
    assert.equal(server.received.length, 0);
  });

  test('the largest frame that is allowed goes through', async () => {
    const events = [];
    for (let i = 0; i < 15; i += 1) events.push({ name: 'A', properties: { text: 'x'.repeat(27_000) } });
    const frame = tenant.frame({ source: newSource(), events });
    assert.ok(frame.length > 400_000);
    assert.equal((await (await send(frame)).json()).stored, 15);
  });
});
