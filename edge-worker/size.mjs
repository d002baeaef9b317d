// What is uploaded to Cloudflare, and whether it is as little as was promised:
//
//     node edge-worker/size.mjs
//
// The platform takes more (limits.mjs). The promise is tighter for the sake of cold starts: every point of presence loads all of it.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, gzipSync } from 'node:zlib';

/** The promise, in bytes, gzip. */
export const LIMIT = 250 * 1024;

/** Each file and their sum, in bytes. */
export function weigh() {
  const rows = ['index_bg.wasm', 'index.js'].map((name) => {
    const bytes = readFileSync(new URL(`build/${name}`, import.meta.url));
    return { name, raw: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length, brotli: brotliCompressSync(bytes).length };
  });
  const sum = (key) => rows.reduce((total, row) => total + row[key], 0);
  return [...rows, { name: 'the Worker', raw: sum('raw'), gzip: sum('gzip'), brotli: sum('brotli') }];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const line = (name, ...numbers) => console.log(name.padEnd(16) + numbers.map((number) => String(number).padStart(9)).join(''));
  line('', 'raw', 'gzip', 'brotli');
  const rows = weigh();
  for (const { name, raw, gzip, brotli } of rows) line(name, raw, gzip, brotli);

  const { gzip } = rows.at(-1);
  if (gzip > LIMIT) {
    console.error(`the Worker is ${gzip} bytes gzip, ${gzip - LIMIT} more than the ${LIMIT} promised`);
    process.exit(1);
  }
}
