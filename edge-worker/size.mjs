// What is uploaded to Cloudflare, and whether it is as little as was promised:
//
//     node edge-worker/size.mjs
//
// The free plan takes 3 MB (gzip). The promise is tighter for the sake of cold starts: every point of presence loads all of it.
import { readFileSync } from 'node:fs';
import { brotliCompressSync, gzipSync } from 'node:zlib';

const LIMIT = 250 * 1024;

const rows = ['index_bg.wasm', 'index.js'].map((name) => {
  const bytes = readFileSync(new URL(`build/${name}`, import.meta.url));
  return { name, raw: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length, brotli: brotliCompressSync(bytes).length };
});
const sum = (key) => rows.reduce((total, row) => total + row[key], 0);
rows.push({ name: 'the Worker', raw: sum('raw'), gzip: sum('gzip'), brotli: sum('brotli') });

const line = (name, ...numbers) => console.log(name.padEnd(16) + numbers.map((number) => String(number).padStart(9)).join(''));
line('', 'raw', 'gzip', 'brotli');
for (const { name, raw, gzip, brotli } of rows) line(name, raw, gzip, brotli);

const { gzip } = rows.at(-1);
if (gzip > LIMIT) {
  console.error(`the Worker is ${gzip} bytes gzip, ${gzip - LIMIT} more than the ${LIMIT} promised`);
  process.exit(1);
}
