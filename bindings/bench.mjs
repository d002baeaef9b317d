// What an event costs a page: from the call of track() to a signed frame that is ready to be sent, by the build that ships, in Node.
//
//     node bindings/bench.mjs [--json]
//
// Beside it, in the same run, what cannot be had for less: the event as JSON, and that with the MAC which the frame carries.

import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';

const EVENTS = 300;
const ROUNDS = 400;

const dist = new URL('./dist/', import.meta.url);
const wasm = readFileSync(new URL('firsthop.wasm', dist));
const secret = Buffer.alloc(32, 7);

// As much of a browser as the SDK uses. The endpoint answers at once.
const session = { alg: 1, keyId: 1, epoch: 492222, region: 'EU', grant: Buffer.alloc(30).toString('base64'), secret: secret.toString('base64'), expires: Date.now() + 3_600_000 };
let frames = 0;
let bytes = 0;
let signed = 0;
Object.assign(globalThis, {
  location: { href: 'https://shop.example/products/507f1f77bcf86cd799439011', search: '' },
  document: { title: 'Monopoly: 3rd Edition', referrer: 'https://www.example.com/' },
  screen: { width: 1440, height: 900 },
  addEventListener() {},
  async fetch(url, { body } = {}) {
    if (`${url}`.endsWith('.wasm')) return new Response(wasm);
    frames++;
    bytes += body.length;
    signed += body[42];
    const source = Buffer.from(body.buffer, 16, 16).toString('hex').replace(/(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
    const batch = Number(new DataView(body.buffer).getBigUint64(48, true));
    return { ok: true, status: 200, json: async () => ({ source, batch, session: body[42] ? undefined : session }) };
  },
});

const { default: firsthop } = await import(new URL('firsthop.mjs', dist));
firsthop.on('error', ({ code, cause }) => {
  throw new Error(code, { cause });
});
firsthop.load({ endpoint: 'https://edge.example', writeKey: 'fh_00000000000a11ce_Kq7Zp0c3Vn8Rb5Ls', flushAt: EVENTS });
firsthop.page();
await firsthop.flush();

// The event of the other benchmarks. Each is an object of its own, as on a page.
const product = (i) => ({ product_id: '507f1f77bcf86cd799439011', sku: 'G-32', name: 'Monopoly: 3rd Edition', price: 18.99, quantity: i & 7, category: 'Games', in_stock: true });

async function track(products) {
  for (const properties of products) firsthop.track('Product Viewed', properties);
  await firsthop.flush();
}

let length = 0;
const json = (products) => {
  for (const properties of products) length += JSON.stringify({ type: 'track', event: 'Product Viewed', timestamp: Date.now(), properties }).length;
};
const jsonAndMac = (products) => {
  const events = products.map((properties) => JSON.stringify({ type: 'track', event: 'Product Viewed', timestamp: Date.now(), properties }));
  length += createHmac('sha256', secret).update(events.join()).digest().length;
};

/** Microseconds an event, of each, round by round in turn, so that all meet the same machine. */
const rows = [
  { name: 'track() to a signed frame', act: track },
  { name: 'JSON.stringify', act: json },
  { name: 'JSON.stringify, one HMAC-SHA256 of node:crypto over all', act: jsonAndMac },
].map((row) => ({ ...row, times: [] }));
for (let round = 0; round < ROUNDS; round++) {
  for (const { act, times } of rows) {
    const products = Array.from({ length: EVENTS }, (_, i) => product(i));
    const begin = process.hrtime.bigint();
    await act(products);
    times.push(Number(process.hrtime.bigint() - begin) / 1000 / EVENTS);
  }
}
if (signed !== frames - 1 || length === 0) throw new Error('not what was to be measured');

const result = rows.map(({ name, times }) => {
  // The first quarter is for the compiler.
  const sorted = times.slice(ROUNDS / 4).sort((a, b) => a - b);
  return { name, microsPerEvent: sorted[sorted.length >> 1], best: sorted[0] };
});
const [ours, theirs] = result;
const summary = {
  microsPerEvent: ours.microsPerEvent,
  timesJson: ours.best / theirs.best,
  bytesPerEvent: bytes / (ROUNDS * EVENTS),
  eventsPerFrame: (ROUNDS * EVENTS) / (frames - 1),
  rows: result,
};

if (process.argv.includes('--json')) console.log(JSON.stringify(summary, undefined, 2));
else {
  const width = Math.max(...result.map(({ name }) => name.length));
  console.log(`${'microseconds an event'.padEnd(width)}  median    best`);
  for (const { name, microsPerEvent, best } of result) console.log(`${name.padEnd(width)} ${microsPerEvent.toFixed(2).padStart(7)} ${best.toFixed(2).padStart(7)}`);
  console.log(`${summary.timesJson.toFixed(1)} times JSON.stringify; ${summary.bytesPerEvent.toFixed(0)} bytes an event, ${summary.eventsPerFrame.toFixed(0)} events a frame`);
}
