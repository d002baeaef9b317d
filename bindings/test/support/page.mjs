// A page for the SDK to run on, in Node: as much of a browser as it uses, an endpoint, and virtual time.

import { readFileSync } from 'node:fs';
import { mock } from 'node:test';

import { decode } from './wire.mjs';

const dist = new URL('../../dist/', import.meta.url);
const wasm = readFileSync(new URL('firsthop.wasm', dist));

export const ENDPOINT = 'https://edge.example';
export const WRITE_KEY = 'fh_00000000000a11ce_Kq7Zp0c3Vn8Rb5Ls';
export const NOW = Date.UTC(2026, 2, 2, 9, 0, 0);

export const SECRET = Buffer.from(Array.from({ length: 32 }, (_, i) => i));
export const GRANT = Buffer.from(Array.from({ length: 30 }, (_, i) => 200 + i));

export const session = (more) => ({
  alg: 1,
  keyId: 7,
  epoch: 492222,
  region: 'EU',
  grant: GRANT.toString('base64'),
  secret: SECRET.toString('base64'),
  expires: Date.now() + 3_600_000,
  ...more,
});

/** The answer of an endpoint that stored everything. */
export const receipt = (frame, more) => ({
  status: 200,
  body: { source: frame.source, batch: frame.batch, first: frame.firstSeq, count: frame.count, stored: frame.count, duplicate: 0, conflict: 0, ...(frame.trust ? {} : { session: session() }), ...more },
});

export const problem = (status, code, more) => ({ status, body: { type: `https://firsthop.dev/problems/${code}`, title: code, status, code, ...more } });

const { random } = Math;

/** Like Math.random, but this, until the test ends. */
export function chance(t, value) {
  Math.random = () => value;
  t.after(() => (Math.random = random));
}

export const same = (a, b) => Buffer.compare(a.bytes, b.bytes) === 0;
export const sequence = (page) => page.events().map(({ seq }) => seq);
export const upTo = (count) => Array.from({ length: count }, (_, i) => i);

let pages = 0;

/**
 * A page with the SDK, not loaded yet.
 *
 * @param options.answer what the endpoint says to a frame: `{ status, body, headers }`, an Error for none at all, or 'nothing' to let it wait
 * @param options.navigator, options.location, options.document, options.globals what differs from an ordinary browser
 */
export async function open(t, { answer = receipt, navigator = {}, location = {}, document = {}, globals = {}, build = 'firsthop.mjs' } = {}) {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: NOW });
  const page = { requests: [], beacons: [], warnings: [], delivered: [], dropped: [], retries: [], errors: [], stored: new Map(), answer };
  const target = new EventTarget();
  const broken = [];
  t.after(() => {
    for (const error of broken) throw error;
  });

  const put = (name, value) => {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    t.after(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
  };
  page.document = { title: 'A page', referrer: 'https://search.example/', visibilityState: 'visible', querySelector: () => null, ...document };
  page.location = { href: 'https://shop.example/a?utm_source=news&utm_campaign=spring', search: '?utm_source=news&utm_campaign=spring', ...location };
  page.navigator = {
    onLine: true,
    language: 'de-CH',
    sendBeacon: (url, body) => {
      page.beacons.push(body.arrayBuffer().then((buffer) => new Uint8Array(buffer)));
      return true;
    },
    ...navigator,
  };
  put('window', globalThis);
  put('document', page.document);
  put('location', page.location);
  put('navigator', page.navigator);
  put('screen', { width: 1440, height: 900 });
  put('localStorage', {
    getItem: (key) => page.stored.get(key) ?? null,
    setItem: (key, value) => page.stored.set(key, String(value)),
    removeItem: (key) => page.stored.delete(key),
  });
  put('addEventListener', target.addEventListener.bind(target));
  put('console', Object.assign(Object.create(console), { warn: (...args) => page.warnings.push(args) }));

  let compiled;
  const { instantiate } = WebAssembly;
  WebAssembly.instantiate = (...args) => (compiled = instantiate(...args));
  t.after(() => (WebAssembly.instantiate = instantiate));

  put('fetch', (url, options = {}) => {
    if (`${url}`.endsWith('.wasm')) return page.module?.() ?? Promise.resolve(new Response(wasm));
    const bytes = Uint8Array.from(options.body);
    let frame;
    try {
      frame = decode(bytes);
    } catch (error) {
      broken.push(error);
      throw error;
    }
    const request = { url: `${url}`, options, bytes, frame, at: Date.now() };
    page.requests.push(request);
    return new Promise((resolve, reject) => {
      request.answer = (said) => {
        if (said instanceof Error) return reject(said);
        const { status, body, headers } = said;
        resolve(new Response(typeof body === 'string' ? body : JSON.stringify(body), { status, headers }));
      };
      const said = page.answer === receipt ? receipt(frame) : page.answer(frame, request, page.requests.length - 1);
      if (said !== 'nothing') request.answer(said);
    });
  });
  for (const [name, value] of Object.entries(globals)) put(name, value);

  /** Lets promises settle. */
  page.settle = async () => {
    for (let i = 0; i < 12; i++) await new Promise(setImmediate);
  };
  /** Lets time pass, and promises settle on the way. */
  page.pass = async (ms, step = Math.max(1, Math.min(50, ms / 20))) => {
    for (let left = ms; left > 0; left -= step) {
      mock.timers.tick(Math.min(step, left));
      await new Promise(setImmediate);
    }
    await page.settle();
  };
  /** Lets time pass until a promise settles: what it waits for may take real time, such as a module that is compiled. */
  page.passUntil = async (promise) => {
    let settled = false;
    const settle = () => (settled = true);
    promise.then(settle, settle);
    for (const end = performance.now() + 60_000; !settled; await page.pass(1000)) if (performance.now() > end) throw new Error('it never settled');
    return promise;
  };
  page.fire = (type, more) => target.dispatchEvent(Object.assign(new Event(type), more));
  page.hide = () => {
    page.document.visibilityState = 'hidden';
    page.fire('visibilitychange');
  };
  page.show = () => {
    page.document.visibilityState = 'visible';
    page.fire('visibilitychange');
  };
  page.frames = () => page.requests.map(({ frame }) => frame);
  /** The events that arrived, each once, in order. */
  page.events = () => [...new Map(page.frames().flatMap(({ events }) => events).map((event) => [event.seq, event])).values()].sort((a, b) => a.seq - b.seq);

  page.firsthop = (await import(new URL(`${build}?page=${pages++}`, dist))).default;
  page.firsthop.on('delivered', (event) => page.delivered.push(event));
  page.firsthop.on('dropped', (event) => page.dropped.push(event));
  page.firsthop.on('retry', (event) => page.retries.push(event));
  page.listen = () => page.firsthop.on('error', (event) => page.errors.push(event));
  page.load = async (options) => {
    page.firsthop.load({ endpoint: ENDPOINT, writeKey: WRITE_KEY, ...options });
    for (let i = 0; i < 100 && !compiled; i++) await new Promise(setImmediate);
    await compiled?.catch(() => {});
    await page.settle();
  };
  /** Waits for a module that has to be inflated first, which no virtual time hastens. */
  page.loaded = async () => {
    for (const end = performance.now() + 30_000; !compiled; await new Promise(setImmediate)) if (performance.now() > end) throw new Error('the module never came');
    await compiled;
    await page.settle();
  };
  t.after(() => mock.timers.reset());
  return page;
}
