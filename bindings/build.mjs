// Builds the page SDK into dist/ and says how large it is:
//
//     source tools/env.sh && node bindings/build.mjs
//
// cargo → wasm-bindgen → wasm-metadce (drops what the page does not call) → wasm-opt → esbuild. Fails if a size is over what was promised,
// or if the module imports anything, can grow its memory, or exports other things than js/wasm.ts says.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync, inflateRawSync } from 'node:zlib';

import zopfli from '@gfx/zopfli';

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, 'dist');
const modules = join(here, '..', 'node_modules');
const tools = {
  bindgen: process.env.WASM_BINDGEN_BIN ?? 'wasm-bindgen',
  opt: process.env.WASM_OPT_BIN ?? join(modules, 'binaryen', 'bin', 'wasm-opt'),
  esbuild: process.env.ESBUILD_BIN ?? join(modules, 'esbuild', 'bin', 'esbuild'),
};
const binaryen = (name) => join(dirname(tools.opt), name);

const LIMITS = { wasm: 6 * 1024, total: 10 * 1024, sealed: 18 * 1024 };

const FEATURES = ['bulk-memory', 'multivalue', 'mutable-globals', 'nontrapping-float-to-int', 'reference-types', 'sign-ext'].map((f) => `--enable-${f}`);

// Twice around: the second finds what the first has laid open.
const ROUND = ['-Oz', '--flatten', '--rereloop', '-Oz', '-Oz'];
const SMALLEST = [...ROUND, ...ROUND, '--strip-debug', '--strip-producers', '--strip-target-features'];

/** What js/wasm.ts declares, and so what may be called. */
const exportsOf = (name) => [...readFileSync(join(here, 'js', 'wasm.ts'), 'utf8').match(new RegExp(`interface ${name} [^]*?\\{([^]*?)\\n\\}`))[1].matchAll(/^ {2}(\w+)[(:]/gm)].map(([, name]) => name);
const EXPORTS = exportsOf('Wasm');
const SEALING_EXPORTS = [...EXPORTS, ...exportsOf('SealingWasm')];

/** Names that never leave the script. */
const INTERNAL = [
  ...['agree', 'attempts', 'beaconed', 'bytes', 'change', 'deliver', 'done', 'dropped', 'emit', 'extra', 'fail', 'flying', 'forget', 'fresh', 'gone', 'guard', 'kind', 'lasting', 'leave', 'name', 'place', 'purposes', 'refusals'],
  ...['resume', 'seal', 'sign', 'time', 'untold', 'weight', 'write'],
];

const run = (command, args, options) => execFileSync(command, args, { stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28, ...options });

/** Compiles the crate for WebAssembly and returns where the module is. */
function compile(features) {
  const rustflags = [
    // SHA-256 in a loop: a seventh of the code of the unrolled one, and in WebAssembly no slower.
    '--cfg=sha2_backend_soft="compact"',
    // Of the thresholds, the one that makes the smallest module.
    '-Cllvm-args=-inline-threshold=8',
  ];
  const out = run('cargo', [
    ...['build', '--package', 'firsthop-web', '--target', 'wasm32-unknown-unknown', '--profile', 'web', '--message-format', 'json-render-diagnostics'],
    ...['--config', `target.wasm32-unknown-unknown.rustflags = ${JSON.stringify(rustflags)}`],
    ...(features ? ['--features', features] : []),
  ], { cwd: here, env: { ...process.env, CARGO_PROFILE_WEB_STRIP: 'false', RUSTFLAGS: undefined, CARGO_ENCODED_RUSTFLAGS: undefined } });
  const artifacts = out.toString().split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  const files = artifacts.filter(({ reason, target }) => reason === 'compiler-artifact' && target.name === 'firsthop_web').flatMap(({ filenames }) => filenames);
  return files.find((file) => file.endsWith('.wasm'));
}

const bindgen = (features, work) => {
  run(tools.bindgen, ['--target', 'web', '--no-typescript', '--out-dir', work, compile(features)]);
  return join(work, 'firsthop_web_bg.wasm');
};

/** Calls with a folder that is there for the time of the call. */
function aside(work) {
  const folder = mkdtempSync(join(tmpdir(), 'firsthop-web-'));
  try {
    return work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A page's module, and what its exports are called in it. */
const page = (features, exports) => aside((work) => {
  const [graph, reached, small] = ['graph.json', 'reached.wasm', 'small.wasm'].map((name) => join(work, name));
  writeFileSync(graph, JSON.stringify([{ name: 'page', root: true, reaches: exports }, ...exports.map((name) => ({ name, export: name }))]));
  run(binaryen('wasm-metadce'), [...FEATURES, '--graph-file', graph, bindgen(features, work), '-o', reached]);
  const mapping = run(tools.opt, [...FEATURES, ...SMALLEST, '--minify-imports-and-exports', reached, '-o', small]);
  return [readFileSync(small), Object.fromEntries(JSON.parse(mapping).exports)];
});

function check(wasm, names, wanted) {
  const compiled = new WebAssembly.Module(wasm);
  const imports = WebAssembly.Module.imports(compiled).map(({ module, name }) => `${module}.${name}`);
  const exports = WebAssembly.Module.exports(compiled).map(({ name }) => name);
  if (imports.length) throw new Error(`the module imports ${imports}`);
  const missing = wanted.filter((name) => !exports.includes(names[name]));
  if (missing.length || exports.length !== wanted.length) throw new Error(`js/wasm.ts and the module differ: ${missing} of ${exports}`);
  const text = execFileSync(binaryen('wasm-dis'), [...FEATURES, '-'], { input: wasm, maxBuffer: 1 << 28 }).toString();
  if (!text.includes('(memory ')) throw new Error('the module could not be read');
  if (text.includes('memory.grow')) throw new Error('the module asks for memory: something in it allocates');
}

/** Bundles a script for a build, with its module inside if that is wanted. */
function script({ sealed, exported, deflated }, entry, name, format, inside = true) {
  const bundle = (alphabet, text) => aside((work) => {
    // It begins with the names of the module's exports, and esbuild adds the others to it.
    writeFileSync(join(work, 'names.json'), JSON.stringify(exported));
    return run(tools.esbuild, [
      ...[join(here, 'js', entry), '--bundle', '--minify', `--format=${format}`, '--target=es2022', '--log-level=warning'],
      // Not js/tsconfig.json, whose `strict` would put a directive in front of a script that needs none.
      '--tsconfig-raw={}',
      ...[`--mangle-props=^(${[...INTERNAL, ...Object.keys(exported)].join('|')})$`, `--mangle-cache=${join(work, 'names.json')}`],
      ...[`--define:ALPHABET=${JSON.stringify(alphabet)}`, `--define:WASM=${JSON.stringify(text)}`, `--define:SEALED=${sealed}`],
    ]).toString();
  });
  const frequent = inside ? alphabetOf(bundle('', '')) : '';
  writeFileSync(join(dist, name), bundle(frequent, inside ? inSixBits(deflated, frequent) : ''));
}

/** The 64 characters that a script has most of, without those that could end a string or a script element. */
function alphabetOf(text) {
  const counts = new Map();
  for (const char of text) counts.set(char, (counts.get(char) ?? 0) + 1);
  const printable = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i)).filter((char) => !'"\'`\\$<'.includes(char));
  return printable.sort((a, b) => (counts.get(b) ?? 0) - (counts.get(a) ?? 0)).slice(0, 64).join('');
}

function inSixBits(bytes, alphabet) {
  let text = '';
  for (let bit = 0; bit < bytes.length * 8; bit += 6) {
    const pair = (bytes[bit >> 3] << 8) | (bytes[(bit >> 3) + 1] ?? 0);
    text += alphabet[(pair >> (10 - (bit & 7))) & 63];
  }
  return text;
}

rmSync(dist, { recursive: true, force: true });
mkdirSync(join(dist, 'test'), { recursive: true });

/** A build: its module, checked, as it is and deflated. */
async function build(sealed) {
  const exports = sealed ? SEALING_EXPORTS : EXPORTS;
  const [wasm, exported] = page(sealed ? 'seal' : '', exports);
  check(wasm, exported, exports);
  // Some per cent less than zlib's best, in every page.
  const deflated = await zopfli.deflateAsync(wasm, { numiterations: 50 });
  if (!inflateRawSync(deflated).equals(wasm)) throw new Error('what was deflated is not what comes out');
  return { sealed, wasm, exported, deflated };
}

const ordinary = await build(false);
writeFileSync(join(dist, 'firsthop.wasm'), ordinary.wasm);
writeFileSync(join(dist, 'test', 'exports.json'), JSON.stringify(ordinary.exported));
script(ordinary, 'module.ts', 'firsthop.mjs', 'esm', false);
script(ordinary, 'inline.ts', 'firsthop.inline.mjs', 'esm');
script(ordinary, 'script.ts', 'firsthop.js', 'iife');

// A build of its own, so that nobody else pays for it.
const sealed = await build(true);
writeFileSync(join(dist, 'test', 'sealed.wasm'), sealed.wasm);
writeFileSync(join(dist, 'test', 'sealed.json'), JSON.stringify(sealed.exported));
script(sealed, 'inline.ts', 'firsthop-sealed.mjs', 'esm');
script(sealed, 'script.ts', 'firsthop-sealed.js', 'iife');

aside((work) => run(tools.opt, [...FEATURES, ...SMALLEST, bindgen('vectors', work), '-o', join(dist, 'test', 'vectors.wasm')]));
for (const types of ['firsthop.d.ts', 'firsthop-sealed.d.ts']) copyFileSync(join(here, 'js', types), join(dist, types));

// What a tag's `integrity` says, for who writes tags, and for who serves these files: edge and server hold them to it.
const [, version] = readFileSync(join(here, '..', 'Cargo.toml'), 'utf8').match(/^\[workspace\.package\][^[]*^version = "(.+)"/m);
const shipped = ['firsthop.js', 'firsthop.mjs', 'firsthop.wasm', 'firsthop.inline.mjs', 'firsthop-sealed.js', 'firsthop-sealed.mjs'].map((name) => [name, readFileSync(join(dist, name))]);
// Stands for all of them: a module looks for its .wasm beside it.
const stamp = createHash('sha256');
for (const [name, bytes] of shipped) stamp.update(`${name} ${bytes.length}\n`).update(bytes);
const release = stamp.digest('hex').slice(0, 16);
const files = shipped.map(([name, bytes]) => [name, { path: `/sdk/${release}/${name}`, integrity: `sha384-${createHash('sha384').update(bytes).digest('base64')}`, size: bytes.length }]);
writeFileSync(join(dist, 'integrity.json'), `${JSON.stringify({ version, build: release, files: Object.fromEntries(files) }, undefined, 2)}\n`);

const weigh = (...names) => {
  const files = names.map((name) => readFileSync(join(dist, name)));
  const sum = (weight) => files.reduce((total, file) => total + weight(file), 0);
  return {
    raw: sum((file) => file.length),
    gzip: sum((file) => gzipSync(file, { level: 9 }).length),
    brotli: sum((file) => brotliCompressSync(file, { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: file.length } }).length),
  };
};
const sizes = {
  'firsthop.wasm': { ...weigh('firsthop.wasm'), limit: LIMITS.wasm },
  'firsthop.mjs': weigh('firsthop.mjs'),
  'ES module: firsthop.mjs + firsthop.wasm': { ...weigh('firsthop.mjs', 'firsthop.wasm'), limit: LIMITS.total },
  'script: firsthop.js': { ...weigh('firsthop.js'), limit: LIMITS.total },
  'ES module, all in one: firsthop.inline.mjs': { ...weigh('firsthop.inline.mjs'), limit: LIMITS.total },
  'sealed script: firsthop-sealed.js': { ...weigh('firsthop-sealed.js'), limit: LIMITS.sealed },
  'sealed ES module: firsthop-sealed.mjs': { ...weigh('firsthop-sealed.mjs'), limit: LIMITS.sealed },
};
writeFileSync(join(dist, 'sizes.json'), `${JSON.stringify(sizes, undefined, 2)}\n`);

const width = Math.max(...Object.keys(sizes).map((name) => name.length));
console.log(`${'bytes'.padEnd(width)}     raw    gzip  brotli   limit (gzip)`);
for (const [name, { raw, gzip, brotli, limit = '' }] of Object.entries(sizes)) {
  console.log(`${name.padEnd(width)} ${[raw, gzip, brotli, limit].map((number) => `${number}`.padStart(7)).join(' ')}`);
}
const over = Object.entries(sizes).filter(([, { gzip, limit }]) => gzip > limit);
for (const [name, { gzip, limit }] of over) console.error(`error: ${name} is ${gzip - limit} bytes over its limit`);
process.exitCode = over.length ? 1 : 0;
