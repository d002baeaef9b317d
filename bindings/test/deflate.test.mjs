// What the build deflates, anybody's inflate has to give back.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { deflateRawSync, inflateRawSync } from 'node:zlib';

import { deflate } from '../deflate.mjs';

let seed = 1951;
const random = (below) => ((seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) >>> 8) % below;
const noise = (length, alphabet) => Buffer.from(Array.from({ length }, () => random(alphabet)));

for (const [what, bytes] of [
  ['nothing', Buffer.alloc(0)],
  ['one byte', Buffer.from('x')],
  ['two bytes', Buffer.from('xy')],
  ['one byte often', Buffer.alloc(1000, 7)],
  ['a match of every length', Buffer.concat(Array.from({ length: 260 }, (_, i) => Buffer.concat([Buffer.alloc(i, i & 255), Buffer.from([255 - (i & 255)])]))).subarray(0, 6000)],
  ['noise', noise(3000, 256)],
  ['few letters', noise(3000, 3)],
  ['noise, and itself again', ((part) => Buffer.concat([part, part, part.subarray(100)]))(noise(900, 256))],
  ['text', readFileSync(new URL('../README.md', import.meta.url))],
]) {
  test(what, () => {
    const deflated = deflate(bytes);
    assert.ok(inflateRawSync(deflated).equals(bytes));
    assert.ok(deflated.length <= deflateRawSync(bytes, { level: 9 }).length + 80, 'a block of its own kind costs its head, and no more');
  });
}

test('less than zlib makes of it', () => {
  const bytes = readFileSync(new URL('../dist/firsthop.wasm', import.meta.url));
  const deflated = deflate(bytes);
  assert.ok(inflateRawSync(deflated).equals(bytes));
  assert.ok(deflated.length < 0.98 * deflateRawSync(bytes, { level: 9, memLevel: 9 }).length);
});
