// Keyed BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs), as plain as it can be: Node has none. 32 bytes of output.

const IV = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
const PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
const [CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED] = [1, 2, 4, 8, 16];
const [BLOCK, CHUNK] = [64, 1024];

const words = (bytes) => Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readUInt32LE(4 * i));
const rotate = (x, n) => (x >>> n) | (x << (32 - n));

function compress(chaining, block, counter, length, flags) {
  const v = [...chaining, ...IV.slice(0, 4), counter, 0, length, flags];
  let m = block;
  const mix = (a, b, c, d, x, y) => {
    v[a] = (v[a] + v[b] + x) | 0;
    v[d] = rotate(v[d] ^ v[a], 16);
    v[c] = (v[c] + v[d]) | 0;
    v[b] = rotate(v[b] ^ v[c], 12);
    v[a] = (v[a] + v[b] + y) | 0;
    v[d] = rotate(v[d] ^ v[a], 8);
    v[c] = (v[c] + v[d]) | 0;
    v[b] = rotate(v[b] ^ v[c], 7);
  };
  for (let round = 0; round < 7; round++) {
    for (let i = 0; i < 4; i++) mix(i, 4 + i, 8 + i, 12 + i, m[2 * i], m[2 * i + 1]);
    for (let i = 0; i < 4; i++) mix(i, 4 + ((i + 1) % 4), 8 + ((i + 2) % 4), 12 + ((i + 3) % 4), m[8 + 2 * i], m[9 + 2 * i]);
    m = PERMUTATION.map((i) => m[i]);
  }
  return v.slice(0, 8).map((x, i) => (x ^ v[i + 8]) | 0);
}

export function keyed(key, input) {
  const start = words(key);
  // The last compression of a tree is the root's: it is done once it is known to be the last.
  const chunk = (bytes, counter) => {
    let chaining = start;
    const blocks = Math.max(1, Math.ceil(bytes.length / BLOCK));
    for (let i = 0; ; i++) {
      const block = bytes.subarray(i * BLOCK, (i + 1) * BLOCK);
      const padded = Buffer.concat([block, Buffer.alloc(BLOCK - block.length)]);
      const flags = KEYED | (i === 0 ? CHUNK_START : 0) | (i === blocks - 1 ? CHUNK_END : 0);
      const node = [chaining, words(padded), counter, block.length, flags];
      if (i === blocks - 1) return node;
      chaining = compress(...node);
    }
  };
  const tree = (bytes, counter) => {
    if (bytes.length <= CHUNK) return chunk(bytes, counter);
    // The left half is the largest power of two of whole chunks that leaves something for the right.
    let left = CHUNK;
    while (2 * left < bytes.length) left *= 2;
    const halves = [tree(bytes.subarray(0, left), counter), tree(bytes.subarray(left), counter + left / CHUNK)];
    return [start, halves.flatMap((node) => compress(...node)), 0, BLOCK, KEYED | PARENT];
  };
  const [chaining, block, counter, length, flags] = tree(input, 0);
  const out = Buffer.alloc(32);
  compress(chaining, block, counter, length, flags | ROOT).forEach((word, i) => out.writeInt32LE(word, 4 * i));
  return out;
}
