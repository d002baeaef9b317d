// The built Worker on workerd, as wrangler would start it.

import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import http from 'node:http';
import { fileURLToPath } from 'node:url';

import { Log, LogLevel, Miniflare } from 'miniflare';

const EDGE = fileURLToPath(new URL('..', import.meta.url));
const [, COMPATIBILITY_DATE] = readFileSync(`${EDGE}/wrangler.toml`, 'utf8').match(/^compatibility_date = "(.*)"/m);

// A connection for each request. workerd closes one that was idle for five seconds or whose body it has not read: on a busy machine in the
// very moment in which the next request goes out on it. A browser would send that again; here it is an error.
const DISPATCHER = Symbol.for('undici.globalDispatcher.1');
await fetch('data:,');
globalThis[DISPATCHER] = new globalThis[DISPATCHER].constructor({ pipelining: 0 });
http.globalAgent = new http.Agent({ keepAlive: false });

/** The Worker's modules. */
export function modules() {
  if (!existsSync(`${EDGE}/build/index.js`)) throw new Error('the Worker is not built: make worker');
  return [
    { type: 'ESModule', path: `${EDGE}/build/index.js`, contents: readFileSync(`${EDGE}/build/index.js`) },
    { type: 'CompiledWasm', path: `${EDGE}/build/index_bg.wasm`, contents: readFileSync(`${EDGE}/build/index_bg.wasm`) },
  ];
}

/** What Cloudflare says of a request; a request can say otherwise in the header `mf-cf-blob`. */
export const CF = { colo: 'ZRH', country: 'CH', asn: 65000, city: 'Zurich', postalCode: '8001' };

/** The process that listens on this edge's port (Linux): the runtime itself, to be killed. */
export function workerdOf({ url }) {
  const port = Number(new URL(url).port).toString(16).toUpperCase().padStart(4, '0');
  const LISTENING = '0A';
  const sockets = readFileSync('/proc/net/tcp', 'utf8').split('\n').map((line) => line.trim().split(/\s+/));
  const socket = sockets.find(([, local, , state]) => local?.endsWith(`:${port}`) && state === LISTENING);
  const name = `socket:[${socket[9]}]`;
  const has = (pid) => {
    try {
      if (!readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('workerd')) return false;
      return readdirSync(`/proc/${pid}/fd`).some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === name);
    } catch {
      // It ended meanwhile, or is somebody else's.
      return false;
    }
  };
  const pid = readdirSync('/proc').filter((entry) => /^\d+$/.test(entry)).find(has);
  if (!pid) throw new Error(`no workerd listens at ${url}`);
  return Number(pid);
}

/** A Worker of the operator's own, at `inside.test`, which hands what it is sent to the edge through a service binding: without `cf` and address. */
export const INSIDE = {
  name: 'inside',
  modules: true,
  script: `export default { async fetch(request, env) {
    const answer = await env.EDGE.fetch(new Request('https://edge.internal/v1/f', { method: 'POST', body: await request.arrayBuffer() }));
    return new Response(answer.body, answer);
  } }`,
  serviceBindings: { EDGE: 'edge' },
  routes: ['inside.test/*'],
};

/**
 * Starts the Worker with these variables and secrets.
 *
 * Returns its `url`, the lines that it has logged, and `dispose`.
 */
export async function startWorker(bindings, { port = 0, more = [], folder, entry, inspectorPort } = {}) {
  const log = [];
  const edge = {
    name: 'edge',
    // A module of the test's, which stands before the Worker's.
    modules: [...(entry ? [{ type: 'ESModule', path: `${EDGE}/build/entry.js`, contents: entry }] : []), ...modules()],
    modulesRoot: `${EDGE}/build`,
    compatibilityDate: COMPATIBILITY_DATE,
    durableObjects: { SPOOL: { className: 'Spool', useSQLite: true }, LEASE_STORE: { className: 'Leases', useSQLite: true } },
    bindings,
  };
  const miniflare = new Miniflare({
    host: '127.0.0.1',
    port,
    cf: false,
    ...(inspectorPort !== undefined && { inspectorPort }),
    log: new Log(LogLevel.NONE),
    // Where its objects keep what they keep; otherwise it goes with them.
    ...(folder && { durableObjectsPersist: folder }),
    workers: [edge, ...more],
    // console.log and console.error of the Worker, one line each.
    handleRuntimeStdio(stdout, stderr) {
      for (const stream of [stdout, stderr]) {
        let rest = '';
        stream.setEncoding('utf8').on('data', (text) => {
          const lines = (rest + text).split('\n');
          rest = lines.pop();
          log.push(...lines);
        });
      }
    },
  });
  const url = (await miniflare.ready).href.replace(/\/$/, '');
  return { url, log, miniflare, dispose: () => miniflare.dispose() };
}
