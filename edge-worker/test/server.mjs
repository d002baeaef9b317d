// A stand-in for the server: it leases keys as the real one does, keeps the envelopes it is sent, and can be told to misbehave.

import { execFileSync } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32 } from 'node:zlib';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const HOUR = 3_600_000;

// Built as soon as it is imported: in the middle of a test the compiler would hold up everything for longer than connections stay open.
const program = execFileSync('cargo', ['build', '--quiet', '--locked', '-p', 'firsthop-edge-kit', '--message-format=json'], {
  cwd: ROOT,
  encoding: 'utf8',
  stdio: ['ignore', 'pipe', 'inherit'],
  maxBuffer: 1 << 26,
})
  .split('\n')
  .filter((line) => line.startsWith('{'))
  .map((line) => JSON.parse(line).executable)
  .find((executable) => executable && path.basename(executable).startsWith('firsthop-edge-kit'));

/** Asks the kit (`kit/`, in Rust) for what only the core knows: frames, leases, envelopes. */
export const kit = (request) => JSON.parse(execFileSync(program, { input: JSON.stringify(request), encoding: 'utf8', maxBuffer: 1 << 26 }));

const base64 = (bytes) => Buffer.from(bytes).toString('base64');
export const bytes = (text) => Buffer.from(text, 'base64');

/** What signs a tenant's documents, and its public half as an enrolment token has it. */
export function documentKey() {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  return { privateKey, public: publicKey.export({ format: 'der', type: 'spki' }).subarray(-32).toString('hex') };
}

/** A document as it travels: its text, and the signature over domain, kind and text. */
export function signed(key, kind, text) {
  const message = Buffer.concat([Buffer.from(`firsthop-document-v1\0${kind}\0`), Buffer.from(text)]);
  return { kind, text, signature: sign(null, message, key.privateKey).toString('base64') };
}

/** One tenant, enrolled for one edge. */
export class Tenant {
  constructor(number, { region = 'EU', worker = 7, origins = ['*'], refreshAfter = 300 } = {}) {
    this.id = number.toString(16).padStart(16, '0');
    Object.assign(this, { region, worker, origins, refreshAfter, keyId: 1 });
    this.root = base64(Buffer.alloc(32, number));
    this.writeKeys = [`fh_${this.id}_${'k'.repeat(24)}`];
    this.key = documentKey();
    this.enrolment = `fhe_${this.id}_${worker.toString(16).padStart(8, '0')}_${'t'.repeat(32)}_${this.key.public}`;
  }

  /** A new root, and the old one ends at once. */
  rotate() {
    this.keyId += 1;
    this.root = base64(Buffer.alloc(32, this.keyId + 100));
  }

  get writeKey() {
    return this.writeKeys[0];
  }

  /** What the server answers at `/v1/leases`. */
  lease(now = Date.now()) {
    const epoch = Math.floor(now / HOUR);
    const { leases } = kit({ do: 'leases', root: this.root, tenant: this.id, region: this.region, worker: this.worker, epochs: [epoch - 1, epoch, epoch + 1] });
    return {
      tenant: this.id,
      name: 'test',
      region: this.region,
      worker: this.worker,
      writeKeys: this.writeKeys,
      origins: this.origins,
      documents: [],
      leases: leases.map((lease) => ({ keyId: this.keyId, ...lease })),
      refreshAfter: this.refreshAfter,
    };
  }

  /** What it answers to whoever wants the documents alone. */
  told(now) {
    const { tenant, region, worker, documents, refreshAfter } = this.lease(now);
    return { tenant, region, worker, documents, refreshAfter };
  }

  /** A page's frame: its first, with the write key, or one of the session that an answer brought. */
  frame({ source, session, first = 0, batch = 0, events = [{ name: 'Product Viewed', properties: { sku: 'G-32', price: 18.99 } }], region = this.region, writeKey = this.writeKey, created = Date.now(), consent = 0, context = {} }) {
    const wanted = { do: 'frame', tenant: this.id, source, region, firstSeq: first, batchSeq: batch, created, consent, context, events };
    return bytes(kit({ ...wanted, ...(session ? { session } : { writeKey }) }).frame);
  }

  /** A session as some first hop would have granted it. */
  session({ source, origin, writeKey = this.writeKey, worker = this.worker, expires = Date.now() + HOUR, epoch = Math.floor(Date.now() / HOUR) }) {
    return kit({ do: 'session', root: this.root, tenant: this.id, region: this.region, worker, epoch, source, origin, writeKey, expires });
  }

  /** Opens an envelope with the tenant's root: it throws if the signature does not hold. */
  open(envelope) {
    return kit({ do: 'open', envelope: base64(envelope), root: this.root });
  }
}

/** A frame that was changed, with the CRC that it then has, so that the check behind the CRC finds it. */
export function resealed(frame) {
  const copy = Buffer.from(frame);
  copy.writeUInt32LE(0, 80);
  copy.writeUInt32LE(crc32(copy), 80);
  return copy;
}

/** The frame as if it were sealed to a key: the flag, and the extension that says which. */
export function sealed(frame) {
  const copy = Buffer.concat([frame.subarray(0, 88), Buffer.from([5, 0, 4, 0, 5, 0, 0, 0]), frame.subarray(88)]);
  copy[5] |= 1;
  copy.writeUInt16LE(frame.readUInt16LE(6) + 8, 6);
  return resealed(copy);
}

/** A page's source, new each time. */
export function newSource() {
  const id = crypto.randomUUID();
  return `${id.slice(0, 14)}7${id.slice(15)}`;
}

/** A function that is asked once for each thing. */
function remembered(ask) {
  const known = new WeakMap();
  return (thing) => {
    if (!known.has(thing)) known.set(thing, ask(thing));
    return known.get(thing);
  };
}

export class FakeServer {
  /** Envelopes that were answered with 2xx, and all that came. */
  stored = [];
  received = [];
  leaseCalls = [];
  /** Answers of `/v1/e` that are due before the ordinary ones: a function of (request, response, body). */
  plans = [];
  leasePlans = [];
  /**
   * What an envelope holds, and the header of the frame in it. While the kit runs nobody is answered here: a test that asked it for everything with each look
   * kept an edge waiting for longer than that waits for a server.
   */
  open = remembered((body) => this.tenantOf(body).open(body));
  header = remembered((body) => kit({ do: 'read', frame: this.open(body).frame }).header);
  /** Looks at each request to `/v1/e` that no plan is for; true if it has answered. */
  always;
  /** Answers each request for leases that no plan is for. */
  leaseAlways;
  /** By what clock it leases. */
  now = () => Date.now();

  static async start(...tenants) {
    const server = new FakeServer();
    server.tenants = tenants;
    await server.listen(0);
    return server;
  }

  async listen(port) {
    this.http = http.createServer((request, response) => this.#answer(request, response).catch((error) => response.destroy(error)));
    this.http.listen(port, '127.0.0.1');
    await once(this.http, 'listening');
    this.port = this.http.address().port;
    this.url = `http://127.0.0.1:${this.port}`;
  }

  /** Forgets what it was sent and told. */
  forget() {
    for (const list of [this.stored, this.received, this.leaseCalls, this.plans, this.leasePlans]) list.length = 0;
  }

  /** Goes away, and takes the open connections with it. */
  async stop() {
    this.http.closeAllConnections();
    this.http.close();
    await once(this.http, 'close');
  }

  /** Comes back at the same address. */
  restart() {
    return this.listen(this.port);
  }

  async #answer(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    if (request.method === 'POST' && request.url === '/v1/leases') {
      const { authorization, 'firsthop-want': want } = request.headers;
      this.leaseCalls.push({ authorization, want });
      const plan = this.leasePlans.shift();
      if (plan) return plan(request, response, body);
      if (this.leaseAlways) return this.leaseAlways(response);
      const tenant = this.tenants.find(({ enrolment }) => authorization === `Bearer ${enrolment}`);
      if (!tenant) return problem(response, 401, 'wrong-enrolment');
      return json(response, 200, want ? tenant.told(this.now()) : tenant.lease(this.now()));
    }
    if (request.method === 'POST' && request.url === '/v1/e') {
      this.received.push({ body, headers: request.headers });
      const plan = this.plans.shift();
      if (plan) return plan(request, response, body);
      return this.always?.(request, response, body) || this.store(response, body);
    }
    return problem(response, 404, 'not-found');
  }

  /** What the server does when all is well. */
  store(response, body) {
    this.stored.push(body);
    // What the edge would not vouch for is kept, and not stored as events.
    if (this.open(body).annotation.refused) return json(response, 200, { source: newSource(), batch: 0, first: 0, count: 0, stored: 0, duplicate: 0, conflict: 0 });
    const { source, batchSeq: batch, firstSeq: first, count } = this.header(body);
    return json(response, 200, { source, batch, first, count, stored: count, duplicate: 0, conflict: 0 });
  }

  /** The frames that were stored, with what was noted on them. */
  framesStored() {
    return this.stored.map((body) => {
      const { annotation, frame } = this.open(body);
      return { annotation, bytes: bytes(frame), ...this.header(body) };
    });
  }

  /** The tenant that an envelope's header names: eight bytes, little-endian, at 8. */
  tenantOf(body) {
    const id = body.readBigUInt64LE(8).toString(16).padStart(16, '0');
    return this.tenants.find((tenant) => tenant.id === id);
  }

  /** The envelopes received so far, opened. */
  opened() {
    return this.received.map(({ body }) => this.open(body));
  }
}

export function json(response, status, value, headers = {}) {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
}

export function problem(response, status, code, headers = {}) {
  json(response, status, { type: `https://firsthop.dev/problems/${code}`, title: code, status, code, retryable: false }, { 'content-type': 'application/problem+json', ...headers });
}
