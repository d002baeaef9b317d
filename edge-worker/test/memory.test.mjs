// How much an isolate holds while it is attacked: its heap, what hangs on it, and the memory of Rust, as workerd's inspector tells them.

import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { after, test } from 'node:test';

import { serverOf, stopAfter } from './pair.mjs';
import { Tenant, kit, newSource, resealed } from './server.mjs';
import { until } from './wait.mjs';
import { startWorker } from './worker.mjs';

const MIB = 2 ** 20;
/** What README.md promises: the platform ends an isolate that has 128 MB. */
const BOUND = 100 * MIB;

/** Looks into an isolate. */
class Inspector {
  static async of({ miniflare }) {
    const it = new Inspector();
    const { host } = await miniflare.getInspectorURL();
    const targets = await (await fetch(`http://${host}/json`)).json();
    it.socket = new WebSocket(targets.find(({ id }) => id.endsWith(':edge')).webSocketDebuggerUrl);
    await once(it.socket, 'open');
    it.socket.addEventListener('message', ({ data }) => {
      const { id, result, error, method, params } = JSON.parse(data);
      if (method === 'Runtime.executionContextCreated') it.context = params.context.id;
      if (id) it.waiting.get(id)?.(error ? Promise.reject(new Error(error.message)) : result);
    });
    await it.call('Runtime.enable');
    return it;
  }

  waiting = new Map();
  number = 0;

  call(method, params = {}) {
    this.number += 1;
    this.socket.send(JSON.stringify({ id: this.number, method, params }));
    return new Promise((resolve) => this.waiting.set(this.number, resolve));
  }

  /** Bytes that the isolate has, with what nobody needs any more and is not collected yet; and of these, Rust's memory, which never gets smaller. */
  async held() {
    const { usedSize, embedderHeapUsedSize, backingStorageSize } = await this.call('Runtime.getHeapUsage');
    const { result: proto } = await this.call('Runtime.evaluate', { contextId: this.context, expression: 'WebAssembly.Memory.prototype' });
    const { objects } = await this.call('Runtime.queryObjects', { prototypeObjectId: proto.objectId });
    const functionDeclaration = 'function () { return this.reduce((sum, { buffer }) => sum + buffer.byteLength, 0); }';
    const { result } = await this.call('Runtime.callFunctionOn', { objectId: objects.objectId, functionDeclaration, returnByValue: true });
    return { all: usedSize + embedderHeapUsedSize + backingStorageSize + result.value, rust: result.value };
  }

  stop() {
    this.socket.close();
    return Promise.resolve();
  }
}

const tenant = new Tenant(0xc8);
const server = await serverOf(tenant);
const edge = await startWorker({ UPSTREAM: server.url, REGION: 'EU', ENROLMENTS: tenant.enrolment }, { inspectorPort: 0 });
after(() => edge.dispose());
const post = (body, path = '/v1/f', headers = {}) => fetch(`${edge.url}${path}`, { method: 'POST', body, headers });
const page = () => post(tenant.frame({ source: newSource() }));
assert.equal((await page()).status, 200);
const inspector = await Inspector.of(edge);
stopAfter(inspector);

const mib = (bytes) => (bytes / MIB).toFixed(1);
const rows = [];
after(() => rows.forEach((row) => console.log(row)));

/** The most that the isolate has until `done`. */
async function most(done) {
  let [all, over] = [0, false];
  done.finally(() => (over = true)).catch(() => {});
  while (!over) {
    all = Math.max(all, (await inspector.held()).all);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await done;
  return all;
}

/** A request that begins and does not end, with what is answered to it. */
function slow(head, sent) {
  const { hostname, port } = new URL(edge.url);
  const socket = net.connect(port, hostname).on('error', () => {});
  socket.said = '';
  socket.setEncoding('utf8').on('data', (text) => (socket.said += text));
  socket.write(`POST /v1/f HTTP/1.1\r\nHost: edge\r\n${head}\r\n\r\n`);
  const isChunked = head.includes('chunked');
  for (let left = sent; left > 0; left -= 4_000) {
    const piece = 'x'.repeat(Math.min(4_000, left));
    socket.write(isChunked ? `${piece.length.toString(16)}\r\n${piece}\r\n` : piece);
  }
  return socket;
}

// First: Rust's memory is then as small as it ever is.
test('whatever names it is given, it remembers so many and no more', async () => {
  const session = tenant.session({ source: newSource(), origin: '' });
  const [open, claimed] = [tenant.frame({ source: newSource() }), tenant.frame({ source: newSource(), session })];
  /** The frame with other bytes at some place, and behind what its CRC is of a tag, if it has one. */
  const other = (frame, at, length, tag = 0) => {
    randomFillSync(frame, at, length);
    const end = frame.length - tag;
    return Buffer.concat([resealed(frame.subarray(0, end)), frame.subarray(end)]);
  };
  const long = () => ({ 'user-agent': 'u'.repeat(12_000) + Math.random(), origin: `https://${'o'.repeat(2_000)}${Math.random()}.example`, authorization: `Bearer ${'a'.repeat(1_000)}${Math.random()}` });
  const kinds = [
    ['source', () => post(other(open, 25, 7)), 200],
    ['tenant', () => post(other(Buffer.from(open), 8, 8)), 401],
    ['session', () => post(other(claimed, 25, 7, 16)), 401],
    ['header', () => post(open, '/v1/f', long()), 0],
    ['path', () => post('{}', `/v1/${'p'.repeat(4_000)}${Math.random()}`), 404],
  ];
  const EACH = 800;
  const flood = async () => {
    for (const [what, send, status] of kinds) {
      const next = Array.from({ length: EACH }, () => send);
      const lane = async () => {
        for (let one = next.pop(); one; one = next.pop()) {
          const answer = await one();
          const text = await answer.text();
          if (status) assert.equal(answer.status, status, `${what}: ${text}`);
        }
      };
      await Promise.all(Array.from({ length: 16 }, lane));
    }
    return inspector.held();
  };
  const [first, second] = [await flood(), await flood()];
  rows.push(`${EACH} of each source, tenant, session, header and path: ${mib(first.all)} MiB, ${mib(first.rust)} of them Rust's; as many again: ${mib(second.all)}, ${mib(second.rust)}`);
  // 131 bytes for each name.
  assert.ok(second.rust <= first.rust + MIB / 2, `${first.rust} and then ${second.rust}`);
  assert.ok(Math.max(first.all, second.all) < BOUND, `${mib(second.all)} MiB`);
});

test('bodies that come slowly: the isolate keeps within its bound, and a page gets through beside them', async () => {
  for (const [what, head, sent] of [
    ['of a length, and hardly anything', 'Content-Length: 500000', 300],
    ['of a length, and most of it', 'Content-Length: 500000', 400_000],
    ['in pieces, and hardly anything', 'Transfer-Encoding: chunked', 300],
    ['in pieces, and most of it', 'Transfer-Encoding: chunked', 400_000],
  ]) {
    // From as many networks: one alone gets a part, as the next test shows.
    const sockets = Array.from({ length: 250 }, (_, n) => slow(`${head}\r\nCF-Connecting-IP: 198.18.${n}.1`, sent));
    const refused = () => sockets.map(({ said }) => said).filter((text) => text.startsWith('HTTP/1.1 503') && text.endsWith('}'));
    const served = (async () => {
      // Until all that they have sent is there, or turned away.
      await new Promise((resolve) => setTimeout(resolve, 3_000));
      if (sent > 100_000) await until('those without room to be told so', () => refused().length > 100);
      assert.equal((await page()).status, 200);
    })();
    const all = await most(served);
    rows.push(`250 bodies ${what}: ${mib(all)} MiB, ${refused().length} refused`);
    assert.ok(all < BOUND, `${mib(all)} MiB`);
    for (const text of refused()) assert.match(text, /\r\nretry-after: \d+\r\n[^]*"detail":"too much under way"/i);
    for (const socket of sockets) socket.destroy();
  }
  // What they had is free again.
  const batch = (id) => JSON.stringify({ writeKey: tenant.writeKey, batch: Array.from({ length: 40 }, (_, i) => ({ type: 'track', event: 'A', userId: 'u', messageId: `${id}-${i}`, properties: { text: 'x'.repeat(10_000) } })) });
  await until('a large body to be taken', async () => (await post(batch('after'), '/v1/batch')).status === 200);
});

test('small bodies that come slowly from one network take a quarter of the room, and keep nobody else out', async () => {
  const body = (i) => tenant.frame({ source: newSource(), events: Array.from({ length: 6 }, () => ({ name: `A${i}`, properties: { text: 'x'.repeat(10_000) } })) });
  const send = (i, address) => post(body(i), '/v1/f', { 'cf-connecting-ip': address });
  const SLOW = 300;
  for (const [what, its, neighbour] of [
    ['IPv4', (n) => `203.0.113.${n % 250}`, '203.0.112.7'],
    ['IPv6', (n) => `2001:db8:7:${n}::1`, '2001:db8:8::1'],
  ]) {
    const attempt = async () => {
      const sockets = Array.from({ length: SLOW }, (_, n) => slow(`Content-Length: 64000\r\nCF-Connecting-IP: ${its(n)}`, 300));
      try {
        const refused = () => sockets.filter(({ said }) => /^HTTP\/1\.1 503 [^]*"detail":"too much under way"/.test(said)).length;
        const isLate = () => sockets.some(({ said }) => said.startsWith('HTTP/1.1 408'));
        // So many fit into a quarter.
        await until('those without room to be told so', () => refused() >= SLOW - 98 || isLate());
        const statuses = [];
        for (const [i, address] of [its(1), neighbour, '198.51.100.1', '2001:db8:ffff::1'].entries()) statuses.push((await send(i, address)).status);
        // Those that have room keep it for twenty seconds; a machine that took longer says nothing.
        return !isLate() && { refused: refused(), statuses };
      } finally {
        for (const socket of sockets) socket.destroy();
      }
    };
    const { refused, statuses } = await until('a look while they have room', attempt, { within: 300_000 });
    rows.push(`${SLOW} small bodies from one ${what} network: ${refused} refused`);
    assert.deepEqual([refused, statuses], [SLOW - 98, [503, 200, 200, 200]]);
    await until('their room to be free again', async () => (await send(4, its(1))).status === 200);
  }
});

test('bodies that wait for a server: what there is no room for is refused, and in the end all are stored', async () => {
  server.forget();
  const held = [];
  server.always = (request, response, body) => held.push([response, body]) > 0;
  const text = 'x'.repeat(10_000);
  const batch = (id) => JSON.stringify({ writeKey: tenant.writeKey, batch: Array.from({ length: 45 }, (_, i) => ({ type: 'track', event: 'A', userId: 'u', messageId: `${id}-${i}`, properties: { text } })) });
  let [refused, stored] = [0, 0];
  const BATCHES = 60;
  const send = async (id) => {
    const body = batch(id);
    for (;;) {
      const answer = await post(body, '/v1/batch', { 'cf-connecting-ip': `198.18.${id}.1` });
      if (answer.status === 200) return (stored += 1);
      assert.deepEqual([answer.status, (await answer.json()).code], [503, 'unavailable']);
      assert.match(answer.headers.get('retry-after'), /^\d+$/);
      refused += 1;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  };
  const all = await most(
    (async () => {
      const sent = Promise.all(Array.from({ length: BATCHES }, (_, id) => send(id)));
      await until('some to wait, and the others to be refused', () => held.length > 5 && refused > 20);
      server.always = undefined;
      for (const [response, body] of held) server.store(response, body);
      await sent;
    })(),
  );
  rows.push(`${BATCHES} batches of 450 kB at once, and a server that waits: ${mib(all)} MiB, ${refused} times refused, ${stored} stored`);
  assert.ok(all < BOUND, `${mib(all)} MiB`);
  const ids = new Set(server.opened().flatMap(({ frame }) => kit({ do: 'read', frame }).events.map(({ id }) => id)));
  assert.deepEqual([stored, ids.size], [BATCHES, 45 * BATCHES]);
});
