// The parts of the path, started for real: the server's binary, the built Worker on workerd, Chromium, and a wire between
// page and edge that a test can listen on, bend or cut.

import { spawn, execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { until } from '../../edge-worker/test/wait.mjs';
import { startWorker } from '../../edge-worker/test/worker.mjs';
import { servePages } from '../../tools/browser.mjs';

export { until };

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

/**
 * The first of some ports that are free: the server must come back on the same one after a kill. They are below those that the system
 * gives to connections of its own accord, so nobody takes one in the meantime.
 */
export async function freePorts(count = 1) {
  for (let tries = 0; tries < 1000; tries += 1) {
    const first = 10_000 + Math.floor(Math.random() * 20_000);
    const probes = await Promise.all(Array.from({ length: count }, (_, i) => bound(first + i)));
    await Promise.all(probes.map((probe) => probe && new Promise((done) => probe.close(done))));
    if (probes.every(Boolean)) return first;
  }
  throw new Error('no port is free');
}

async function bound(port) {
  const probe = net.createServer();
  return new Promise((done) => probe.once('error', () => done(undefined)).listen(port, '127.0.0.1', () => done(probe)));
}

/** The binary `firsthop` on a data folder of its own. It can be killed and started again. */
export class Server {
  static binary = process.env.FIRSTHOP_BIN ?? path.resolve(ROOT, process.env.CARGO_TARGET_DIR ?? 'target', 'release/firsthop');

  /** `settings` are variables of its environment. */
  static async create(settings = {}) {
    const server = new Server();
    server.settings = settings;
    server.data = await mkdtemp(path.join(tmpdir(), 'firsthop-spine-'));
    server.port = await freePorts(2);
    server.internalPort = server.port + 1;
    server.url = `http://127.0.0.1:${server.port}`;
    server.internalUrl = `http://127.0.0.1:${server.internalPort}`;
    const added = await server.command('tenant', 'add', 'shop', '--region', 'EU');
    [server.writeKey] = added.match(/fh_[0-9a-f]{16}_[A-Za-z0-9]+/) ?? assertOutput(added);
    server.tenant = server.writeKey.split('_')[1];
    const enrolled = await server.command('edge', 'add', '--tenant', 'shop', '--region', 'EU', '--name', 'spine');
    [server.enrolment] = enrolled.match(/fhe_\w+/) ?? assertOutput(enrolled);
    await server.start();
    return server;
  }

  get environment() {
    return {
      ...process.env,
      FIRSTHOP_DATA: this.data,
      FIRSTHOP_LISTEN: `127.0.0.1:${this.port}`,
      FIRSTHOP_INTERNAL_LISTEN: `127.0.0.1:${this.internalPort}`,
      ...this.settings,
    };
  }

  /** Runs one of the binary's commands on the same data folder and returns what it printed. */
  async command(...args) {
    const { stdout, stderr } = await run(Server.binary, args, { env: this.environment, maxBuffer: 1 << 28 });
    return stdout + stderr;
  }

  async start() {
    this.log = '';
    this.process = spawn(Server.binary, ['serve'], { env: this.environment, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on('data', (chunk) => (this.log += chunk));
    await until('the server to be ready', async () => {
      if (this.process.exitCode !== null) throw new Error(`the server exited: ${this.log}`);
      return (await fetch(`${this.url}/readyz`)).ok;
    });
  }

  /** SIGKILL by default: nothing is flushed, nothing is said. */
  async stop(signal = 'SIGKILL') {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    this.process.kill(signal);
    await once(this.process, 'exit');
  }

  /** A fresh connection each time: a killed server's journal is read as any tool would read it. */
  query(database, sql) {
    const file = path.join(this.data, 'tenants', this.tenant, database);
    const connection = new DatabaseSync(file, { readOnly: true });
    try {
      return connection.prepare(sql).all();
    } finally {
      connection.close();
    }
  }

  /** All rows of the events table, in the order in which they were written. */
  rows() {
    return this.query('events.db', 'SELECT * FROM events ORDER BY rowid');
  }

  /** Waits until the table has `count` rows, and a moment longer, in case there are more. */
  async rowsWhen(count, within = 60_000) {
    await until(`${count} rows`, () => this.rows().length >= count, { within });
    await sleep(300);
    return this.rows();
  }

  /** The sum of a metric's samples whose labels contain all of `labels`. */
  async metric(name, labels = {}) {
    const text = await (await fetch(`${this.internalUrl}/metrics`)).text();
    let sum = 0;
    for (const line of text.split('\n')) {
      const sample = line.match(/^([a-zA-Z0-9_:]+)(?:\{(.*)\})? (\S+)$/);
      if (sample?.[1] !== name) continue;
      if (Object.entries(labels).every(([key, value]) => sample[2]?.includes(`${key}="${value}"`))) sum += Number(sample[3]);
    }
    return sum;
  }

  async dispose() {
    await this.stop();
    await rm(this.data, { recursive: true, force: true });
  }
}

function assertOutput(text) {
  throw new Error(`the command printed no key: ${text}`);
}

/** The built Worker on workerd, enrolled at a server. */
export async function startEdge(server) {
  const edge = await startWorker({
    UPSTREAM: server.url,
    LEASES: server.internalUrl,
    REGION: 'EU',
    ENROLMENTS: server.enrolment,
  });
  return edge;
}

/**
 * A proxy between page and edge. `tamper(request)` may change `request.body`, return 'cut' (the connection breaks before the
 * edge sees it) or 'lose' (the edge answers, and the answer is lost), or a promise that holds the request back; a function that it returns is called
 * when there is an answer, and what that returns holds the answer back.
 */
export class Wire {
  requests = [];
  tamper = () => undefined;

  static async create(target) {
    const wire = new Wire();
    wire.server = http.createServer((request, response) => wire.#carry(new URL(request.url, target), request, response));
    wire.server.listen(0, '127.0.0.1');
    await once(wire.server, 'listening');
    wire.url = `http://127.0.0.1:${wire.server.address().port}`;
    return wire;
  }

  async #carry(url, incoming, outgoing) {
    try {
      const chunks = [];
      for await (const chunk of incoming) chunks.push(chunk);
      const request = {
        method: incoming.method,
        path: url.pathname,
        headers: incoming.headers,
        body: Buffer.concat(chunks),
        at: Date.now(),
      };
      this.requests.push(request);
      const verdict = request.method === 'POST' ? await this.tamper(request) : undefined;
      if (verdict === 'cut') return outgoing.destroy();
      const { host, connection, 'content-length': _, ...headers } = request.headers;
      const answer = await fetch(url, {
        method: request.method,
        headers,
        body: request.method === 'POST' ? request.body : undefined,
        redirect: 'manual',
      });
      const body = Buffer.from(await answer.arrayBuffer());
      request.status = answer.status;
      request.answer = body;
      if (typeof verdict === 'function') await verdict(request);
      if (verdict === 'lose') return outgoing.destroy();
      const { 'content-encoding': __, 'content-length': ___, 'transfer-encoding': ____, ...answered } = Object.fromEntries(answer.headers);
      outgoing.writeHead(answer.status, answered).end(body);
    } catch {
      // The page went away, or the edge did: for the other side both are a broken connection.
      outgoing.destroy();
    }
  }

  /** What passed, a line each. */
  lines() {
    return this.requests.map(({ method, path, body, status, answer }) => {
      const said = status >= 400 ? ` ${answer}` : '';
      return `${method} ${path} ${body.length} bytes -> ${status ?? 'no answer'}${said}`;
    });
  }

  /** The frames that passed, as they came from the page. */
  frames() {
    return this.requests.filter((request) => request.method === 'POST' && request.path === '/v1/f');
  }

  async dispose() {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }
}

/** The shop and the test page. */
export const startPages = () => servePages({ '/shop/': path.join(ROOT, 'examples/shop'), '/': fileURLToPath(new URL('.', import.meta.url)) });

/** What became of a test's events, as a table row. */
export class Tally {
  static rows = [];

  constructor(test, figures) {
    Object.assign(this, { test, ...figures });
    Tally.rows.push(this);
    console.log(Tally.line(Object.keys(this)));
    console.log(Tally.line(Object.values(this)));
  }

  static line(cells) {
    return cells.map((cell, i) => (i === 0 ? String(cell).padEnd(44) : String(cell).padStart(13))).join('');
  }

  static print() {
    if (Tally.rows.length === 0) return;
    console.log(`\n${Tally.line(Object.keys(Tally.rows[0]))}`);
    for (const row of Tally.rows) console.log(Tally.line(Object.values(row)));
  }
}
