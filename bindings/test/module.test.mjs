// The WebAssembly module by itself: what it needs and what it withstands.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

const dist = new URL('../dist/', import.meta.url);
const compiled = new WebAssembly.Module(readFileSync(new URL('firsthop.wasm', dist)));
const names = JSON.parse(readFileSync(new URL('test/exports.json', dist)));

const STACK = 8 * 1024;

function instance() {
  const { exports } = new WebAssembly.Instance(compiled);
  const wasm = Object.fromEntries(Object.entries(names).map(([name, short]) => [name, exports[short]]));
  const memory = new Uint8Array(wasm.memory.buffer);
  const stage = (text, at = 0) => {
    const bytes = typeof text === 'string' ? Buffer.from(text) : text;
    memory.set(bytes, wasm.stagingAt() + at);
    return bytes.length;
  };
  return { wasm, memory, stage };
}

const KEY = 'fh_00000000000a11ce_Kq7Zp0c3Vn8Rb5Ls';

/** Everything that a page does, at its largest. */
function exercise({ wasm, stage }) {
  stage(Buffer.alloc(16, 1));
  wasm.startPage(0xa11ce, 0, stage(KEY, 16));
  for (const signed of [false, true]) {
    if (signed) {
      stage(Buffer.alloc(62, 3));
      assert.equal(wasm.startSession(1, 1, 492222), 0);
    }
    for (let field = 0; field < 14; field++) assert.equal(wasm.setText(field, stage('x'.repeat(900))), 0);
    wasm.beginBlock();
    assert.equal(wasm.beginFrame(3, 0x5545, 1.7e12, 1440, 900), 0);
    for (let event = 0; event < 5; event++) {
      wasm.beginBlock();
      for (let depth = 0; depth < 8; depth++) assert.equal(wasm.putEntry(stage('map'), 6, 0, 0), 0);
      for (let i = 0; i < 50; i++) {
        assert.equal(wasm.putEntry(stage('text'), 4, stage('y'.repeat(50), 4), 0), 0);
        assert.equal(wasm.putEntry(stage('number'), 3, i / 7, 0), 0);
        assert.equal(wasm.putEntry(stage('whole'), 9, 4294967295, 4294967295), 0);
      }
      for (let depth = 0; depth < 8; depth++) assert.equal(wasm.putEntry(-1, 7, 0, 0), 0);
      assert.ok(wasm.putEvent(0, stage('Event'), 1.7e12) > 1000);
    }
    assert.ok(wasm.finishFrame(7, 0) > 20_000);
  }
}

test('it needs nothing from outside, and little memory', () => {
  assert.deepEqual(WebAssembly.Module.imports(compiled), []);
  const { memory } = instance();
  assert.ok(memory.length <= 256 * 1024, `${memory.length} bytes`);
});

test('its stack is larger than what it uses by half', () => {
  const module = instance();
  const paint = 0xa5;
  module.memory.fill(paint, 0, STACK);
  exercise(module);
  const deepest = module.memory.findIndex((byte) => byte !== paint);
  assert.ok(deepest > 0 && deepest < STACK, `${deepest}`);
  const used = STACK - deepest;
  assert.ok(used * 1.5 < STACK, `${used} bytes of stack`);
});

test('calls in any order, with any numbers, do not trap it, and leave it working', () => {
  const module = instance();
  const { wasm, memory, stage } = module;
  let seed = 7;
  const random = () => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0);
  const numbers = [0, 1, 2, 7, 9, 13, 14, 62, 255, 512, 513, 32_767, 32_768, 33_791, 33_792, 33_793, 65_535, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, -1, -2, NaN, Infinity, -Infinity, 1.5, 1e300, 1.7e12];
  const any = () => numbers[random() % numbers.length];
  const calls = Object.entries(wasm).filter(([, call]) => typeof call === 'function');
  const end = wasm.stagingAt() + 33 * 1024;
  for (let i = 0; i < 60_000; i++) {
    if (i % 100 === 0) for (let at = wasm.stagingAt(); at < end; at++) memory[at] = 32 + (random() % 90);
    const [, call] = calls[random() % calls.length];
    call(any(), any(), any(), any(), any());
  }
  // A random number of 32 bits as a screen's width is what JavaScript makes of it; nothing was read or written beyond the buffers.
  stage(Buffer.alloc(62, 3));
  wasm.startSession(0, 0, 0);
  wasm.finishFrame(0, 0);
  wasm.beginBlock();
  for (let field = 0; field < 14; field++) wasm.setText(field, 0);
  wasm.beginFrame(0, 0x2d2d, 1.7e12, 1, 1);
  wasm.finishFrame(0, 0);
  exercise(module);
});
