// The vectors of core/tests/vectors/ in WebAssembly: read and written anew by a build that can do both, and, as far as a page can make
// them, written by the very module that ships.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { ENDPOINT, open } from './support/page.mjs';

const json = (name) => JSON.parse(readFileSync(new URL(`../../core/tests/vectors/${name}.json`, import.meta.url)));
const { instance } = await WebAssembly.instantiate(readFileSync(new URL('../dist/test/vectors.wasm', import.meta.url)), {
  './firsthop_web_bg.js': { __wbindgen_init_externref_table() {} },
});
const wasm = instance.exports;
const memory = () => new Uint8Array(wasm.memory.buffer);

/** Calls with these bytes and this key, and returns the error's code, or null. */
function ask(call, bytes, key, ...args) {
  memory().set(bytes, wasm.vector_frame());
  if (key) memory().set(key, wasm.vector_key());
  const length = wasm[call](bytes.length, ...args);
  return length ? Buffer.from(memory().subarray(wasm.vector_key(), wasm.vector_key() + length)).toString() : null;
}

const hex = (text) => Buffer.from(text, 'hex');

function good({ hex: bytes, header, key, public: publicKey, description }) {
  const alg = header.alg ?? 0;
  assert.equal(ask('vector_parse', hex(bytes)), null, description);
  assert.equal(ask('vector_open', hex(bytes)), null, description);
  if (alg) assert.equal(ask('vector_verify', hex(bytes), hex(publicKey ?? key), alg), null, description);
  assert.equal(ask('vector_rewrite', hex(bytes), hex(key ?? '00'.repeat(32)), alg), null, `${description}: written anew`);
}

test('frames', () => {
  const cases = json('frames');
  assert.ok(cases.length > 5);
  cases.forEach(good);
});

test('sessions', () => {
  const cases = json('sessions');
  assert.ok(cases.length > 1);
  for (const { frame, lease, checks } of cases) {
    good(frame);
    for (const { now_ms, error } of checks) assert.equal(ask('vector_session', hex(frame.hex), hex(lease), Number(now_ms)), error);
  }
});

test('envelopes', () => {
  const cases = json('envelopes');
  assert.ok(cases.length > 2);
  for (const { hex: bytes, header, key, description } of cases) {
    assert.equal(ask('vector_envelope', hex(bytes)), null, description);
    assert.equal(ask('vector_verify', hex(bytes), hex(key), header.alg), null, description);
  }
});

test('sealed frames', () => {
  const cases = json('sealed');
  assert.ok(cases.length > 3);
  for (const { hex: bytes, region_key, header, key, description } of cases) {
    assert.equal(ask('vector_open', hex(bytes)), 'sealed-unsupported', description);
    assert.equal(ask('vector_unseal', hex(bytes), hex(region_key.secret), region_key.id), null, description);
    if (header.alg) assert.equal(ask('vector_verify', hex(bytes), hex(key), header.alg), null, description);
  }
});

test('what is refused', () => {
  const cases = json('refused');
  const [{ lease }] = json('sessions');
  assert.ok(cases.length > 80);
  for (const { description, step, error, hex: bytes, alg, key, now_ms, region_key } of cases) {
    if (step !== 'parse') assert.equal(ask('vector_parse', hex(bytes)), null, description);
    const args = { verify: [hex(key ?? ''), alg], session: [hex(lease), Number(now_ms)], unseal: [hex(region_key?.secret ?? ''), region_key?.id] }[step] ?? [];
    assert.equal(ask(`vector_${step}`, hex(bytes), ...args), error, description);
  }
});

test('the check can fail', () => {
  const [, frame] = json('frames');
  const bytes = hex(frame.hex);
  assert.equal(ask('vector_verify', bytes, hex(frame.key), 1), null);
  assert.equal(ask('vector_verify', bytes, Buffer.alloc(32), 1), 'bad-signature');
  assert.equal(ask('vector_rewrite', bytes, Buffer.alloc(32), 1), 'malformed-payload');
});

// ---- What ships

const value = (given) => {
  if (given === null || typeof given !== 'object') return given;
  const [[kind, content]] = Object.entries(given);
  if (kind === 'u64' || kind === 'i64') return BigInt(content);
  if (kind === 'f64') return Number(content);
  if (kind === 'list') return content.map(value);
  if (kind === 'map') return object(content);
  return undefined;
};
const object = (entries) => Object.fromEntries(entries.map(([key, given]) => [key, value(given)]));

/** What a JavaScript object cannot say, or says otherwise: bytes, doubles that are no JSON or are whole, a key twice, keys that are put in order. */
function sayable(entries) {
  const keys = entries.map(([key]) => key);
  if (new Set(keys).size < keys.length || keys.some((key) => /^\d+$/.test(key))) return false;
  const ok = (given) => {
    if (given === null || typeof given !== 'object') return true;
    const [[kind, content]] = Object.entries(given);
    if (kind === 'bytes') return false;
    if (kind === 'f64') return Number.isFinite(Number(content)) && (!Number.isInteger(Number(content)) || Math.abs(Number(content)) > Number.MAX_SAFE_INTEGER);
    if (kind === 'list') return content.every(ok);
    return kind !== 'map' || sayable(content);
  };
  return entries.every(([, given]) => ok(given));
}

test('properties, by the module that ships', async (t) => {
  const page = await open(t);
  await page.load();
  const cases = json('properties').filter(({ entries }) => sayable(entries));
  assert.ok(cases.length >= 8, `${cases.length}`);
  for (const { entries } of cases) page.firsthop.track('x', object(entries));
  await page.firsthop.flush();
  const events = page.events();
  for (const [i, { description, hex: expected }] of cases.entries()) assert.equal(events[i].block, expected, description);
});

test("a page's first frame, byte for byte, by the module that ships", async (t) => {
  const [{ header, context, events, extensions, hex: expected, description }] = json('frames');
  assert.equal(description, "a page's first frame: unsigned, with its write key");
  const created = Number(header.created_ms);
  const { DateTimeFormat } = Intl;
  // Random enough for the vector: the last 18 digits of its source, without the variant.
  const words = `000000${header.source.replaceAll('-', '').slice(13).replace(/^(...)8/, '$1')}`.match(/.{8}/g).map((word) => parseInt(word, 16));
  const { source, medium, name } = context.campaign;
  const page = await open(t, {
    location: { href: context.url, search: `?utm_source=${source}&utm_medium=${medium}&utm_campaign=${name}` },
    document: { title: context.title, referrer: context.referrer },
    navigator: { language: context.locale },
    globals: {
      screen: context.screen,
      crypto: { getRandomValues: (array) => (array.set(words), array) },
      Intl: { DateTimeFormat: () => ({ resolvedOptions: () => ({ ...new DateTimeFormat().resolvedOptions(), timeZone: context.timezone }) }) },
    },
  });
  t.mock.timers.reset();
  const { mock } = await import('node:test');
  mock.timers.setTime(created);
  page.stored.set(`fh_${header.tenant}`, `${context.anonymous_id} ${context.session_id} ${created}`);
  page.firsthop.load({ endpoint: ENDPOINT, writeKey: hex(extensions[0].value).toString(), region: header.region, consent: { analytics: true } });
  const [first, second] = events;
  page.firsthop.page(first.name, object(first.properties));
  page.firsthop.track(second.name, object(second.properties), { timestamp: created + Number(second.offset_ms) });
  await page.load();
  await page.firsthop.flush();
  assert.equal(Buffer.from(page.requests[0].bytes).toString('hex'), expected);
});
