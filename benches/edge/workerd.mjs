// Workers on `workerd serve`, without anything around them: what wrangler and miniflare put in front is not part of what is measured.
import { once } from 'node:events';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

import { middle, start } from '../server/kit.mjs';

const EDGE = fileURLToPath(new URL('../../edge-worker/', import.meta.url));
const { default: WORKERD } = createRequire(import.meta.url)('workerd');
// Above the first environment, which says it all again.
const [WRANGLER] = readFileSync(join(EDGE, 'wrangler.toml'), 'utf8').split(/^\[env\./m);
const [, COMPATIBILITY_DATE] = WRANGLER.match(/^compatibility_date = "(.*)"/m);
/** Our Worker's Durable Objects: binding and class. */
const OBJECTS = [...WRANGLER.matchAll(/^\[\[durable_objects\.bindings\]\]\nname = "(.*)"\nclass_name = "(.*)"/gm)].map(([, name, type]) => ({ name, type }));

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const OURS = [join(EDGE, 'build/index.js'), join(EDGE, 'build/index_bg.wasm')];
export const WORKERS = {
  firsthop: OURS,
  plain: [here('plain.js')],
  empty: [here('empty.js')],
  /** Ours, with a region policy. */
  governed: OURS,
  relay: [here('relay.js')],
};

/** The header that stands for Cloudflare's `request.cf`. */
export const CF_HEADER = 'x-bench-cf';

/** workerd's own configuration (Cap'n Proto) of one Worker at a port of its choosing. */
function config(files, bindings, objects) {
  const text = JSON.stringify;
  const texts = Object.entries(bindings).map(([name, value]) => `(name = ${text(name)}, text = ${text(value)})`);
  const namespaces = objects.map(({ name, type }) => `(name = ${text(name)}, durableObjectNamespace = ${text(type)})`);
  const modules = files.map((file) => {
    const name = basename(file);
    return `(name = ${text(name)}, ${name.endsWith('.wasm') ? 'wasm' : 'esModule'} = embed ${text(name)})`;
  });
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "worker", worker = .worker),
    (name = "internet", network = (allow = ["private", "public"])),
    (name = "objects", disk = (path = "objects", writable = true)),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (cfBlobHeader = ${text(CF_HEADER)}), service = "worker")],
);
const worker :Workerd.Worker = (
  modules = [${modules.join(', ')}],
  bindings = [${[...texts, ...namespaces].join(', ')}],
  durableObjectNamespaces = [${objects.map(({ type }) => `(className = ${text(type)}, uniqueKey = ${text(type)}, enableSql = true)`).join(', ')}],
  durableObjectStorage = (localDisk = "objects"),
  compatibilityDate = ${text(COMPATIBILITY_DATE)},
);
`;
}

/** Starts a Worker in a folder of its own: the process, its address, and how long it took until it answered. */
export async function startWorkerd(folder, files, bindings, more = []) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, 'objects'), { recursive: true });
  for (const file of files) copyFileSync(file, join(folder, basename(file)));
  writeFileSync(join(folder, 'config.capnp'), config(files, bindings, files === OURS ? OBJECTS : []));
  return restart(folder, more);
}

/** Starts what stands in the folder. */
async function restart(folder, more = []) {
  const began = performance.now();
  const child = start(WORKERD, ['serve', '--control-fd=3', ...more, 'config.capnp'], { cwd: folder, stdio: ['ignore', 'inherit', 'inherit', 'pipe'] });
  const port = await new Promise((resolve, reject) => {
    let told = '';
    child.stdio[3].on('data', (chunk) => {
      told += chunk;
      const found = told.match(/"event":"listen","socket":"http","port":(\d+)/);
      if (found) resolve(Number(found[1]));
    });
    child.on('exit', (code, signal) => reject(new Error(`workerd ended with ${code ?? signal}`)));
  });
  const address = `127.0.0.1:${port}`;
  await (await fetch(`http://${address}/livez`)).arrayBuffer();
  return { child, address, readyMs: performance.now() - began };
}

/** How long Workers that stand in folders of their names take until they have answered for the first time: started in turn, the middle of so many starts. */
export async function startUp(out, names, starts) {
  const times = Object.fromEntries(names.map((name) => [name, []]));
  for (let i = 0; i < starts; i++) {
    for (const name of names) {
      const { child, readyMs } = await restart(join(out, name));
      times[name].push(readyMs);
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  }
  return Object.fromEntries(names.map((name) => [`${name}Ms`, middle(times[name])]));
}
