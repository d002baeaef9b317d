// What a page downloads, compressed, and whether that is as little as was promised:
//
//     node tools/sdk-size.mjs
//
// An entry is a script of bindings/dist that no other one loads; its weight is its own and that of all files that it names, directly or not.
import { readFileSync, readdirSync } from "node:fs";
import { brotliCompressSync, gzipSync } from "node:zlib";

const WASM_LIMIT = 6 * 1024;
const TOTAL_LIMIT = 10 * 1024;
// The build that seals pays for X25519 and ChaCha20-Poly1305, and is the only one that does.
const SEALED_LIMIT = 18 * 1024;

const dist = new URL("../bindings/dist/", import.meta.url);
const files = new Map(
  readdirSync(dist)
    .filter((name) => /\.(js|mjs|wasm)$/.test(name))
    .map((name) => {
      const bytes = readFileSync(new URL(name, dist));
      return [name, { name, bytes, raw: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length, brotli: brotliCompressSync(bytes).length }];
    }),
);

const names = ({ name, bytes }) =>
  name.endsWith(".wasm") ? [] : [...files.values()].filter((other) => other.name !== name && bytes.includes(other.name));

function closure(file, seen = new Set()) {
  if (!seen.has(file)) {
    seen.add(file);
    for (const other of names(file)) closure(other, seen);
  }
  return seen;
}

const scripts = [...files.values()].filter(({ name }) => !name.endsWith(".wasm"));
const loaded = new Set(scripts.flatMap(names));
const entries = scripts.filter((script) => !loaded.has(script));

const rows = [];
const faults = [];
const hold = (what, gzip, limit) => {
  if (gzip > limit) faults.push(`${what} is ${gzip} bytes gzip, ${gzip - limit} more than the ${limit} promised`);
};
for (const file of files.values()) {
  rows.push({ file: file.name, raw: file.raw, gzip: file.gzip, brotli: file.brotli });
  if (file.name.endsWith(".wasm")) hold(file.name, file.gzip, WASM_LIMIT);
}
for (const entry of entries) {
  const all = [...closure(entry)];
  const sum = (key) => all.reduce((total, file) => total + file[key], 0);
  rows.push({ file: `page with ${all.map((f) => f.name).join(" + ")}`, raw: sum("raw"), gzip: sum("gzip"), brotli: sum("brotli") });
  hold(`a page with ${entry.name}`, sum("gzip"), entry.name.includes("sealed") ? SEALED_LIMIT : TOTAL_LIMIT);
}
if (![...files.values()].some((file) => file.name.endsWith(".wasm") && WebAssembly.validate(file.bytes))) {
  faults.push("bindings/dist has no WebAssembly: nothing was measured");
}
if (entries.length === 0) faults.push("bindings/dist has no script: nothing was measured");

const pad = Math.max(...rows.map((row) => row.file.length));
console.log(`${"".padEnd(pad)}     raw    gzip  brotli`);
for (const { file, raw, gzip, brotli } of rows) {
  console.log(`${file.padEnd(pad)} ${String(raw).padStart(7)} ${String(gzip).padStart(7)} ${String(brotli).padStart(7)}`);
}
console.log(`promised: ${WASM_LIMIT} for the wasm, ${TOTAL_LIMIT} for a page, ${SEALED_LIMIT} for one that seals, gzip`);
for (const fault of faults) console.error(`error: ${fault}`);
process.exit(faults.length > 0 ? 1 : 0);
