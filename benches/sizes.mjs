// What a page and a point of presence load, in bytes, as JSON: the page SDK's files as its build weighed them, and the Worker's.
import { readFileSync } from 'node:fs';
import { brotliCompressSync, gzipSync } from 'node:zlib';

const root = new URL('../', import.meta.url);
const read = (path) => readFileSync(new URL(path, root));

const sdk = Object.entries(JSON.parse(read('bindings/dist/sizes.json'))).map(([name, sizes]) => ({ name, ...sizes }));
const worker = ['index_bg.wasm', 'index.js'].map((name) => {
  const bytes = read(`edge-worker/build/${name}`);
  return { name: `Worker: ${name}`, raw: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length, brotli: brotliCompressSync(bytes).length };
});
const sum = (key) => worker.reduce((total, row) => total + row[key], 0);
worker.push({ name: 'the Worker', raw: sum('raw'), gzip: sum('gzip'), brotli: sum('brotli') });
console.log(JSON.stringify({ rows: [...sdk, ...worker] }, null, 2));
