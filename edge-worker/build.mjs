// Builds the Worker into build/: what wrangler and tools/build call.
//
// Needs Rust and Node. What else it takes (the page SDK, worker-build, wasm-bindgen, wasm-opt, esbuild) it finds in the environment that
// tools/env.sh sets, or gets from crates.io and npm.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { cut } from './cut.mjs';
import { withoutNames } from './names.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const ROOT = path.dirname(HERE);
const TOOLS = path.join(ROOT, '.tools');
const EXE = process.platform === 'win32' ? '.exe' : '';

const run = (command, args, options) => execFileSync(command, args, { cwd: ROOT, stdio: 'inherit', ...options });
const pinned = (file, pattern) => readFileSync(path.join(ROOT, file), 'utf8').match(pattern)[1];

/** The version that a program says it is, or nothing if it is not there. */
function versionOf(program) {
  try {
    return execFileSync(program, ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).match(/\d+\.\d+\.\d+/)?.[0];
  } catch {
    return undefined;
  }
}

/** A program of exactly this version: from the environment, from an earlier call, or compiled now. */
function program(name, crate, version, features = []) {
  const root = path.join(TOOLS, `${name}-${version}`);
  const own = path.join(root, 'bin', name + EXE);
  const given = process.env[`${name.toUpperCase().replaceAll('-', '_')}_BIN`];
  for (const candidate of [given, name, own]) {
    if (candidate && versionOf(candidate) === version) return candidate;
  }
  console.log(`edge: ${name} ${version} from crates.io (once; it compiles for a minute or two) …`);
  const compiling = path.join(TOOLS, 'compiling');
  run('cargo', ['install', '--quiet', crate, '--version', version, '--root', root, '--bin', name, ...features], {
    env: {
      ...process.env,
      CARGO_TARGET_DIR: compiling,
      // To be ready soon, not to run fast: it runs for a second or two.
      CARGO_PROFILE_RELEASE_OPT_LEVEL: '1',
      CARGO_PROFILE_RELEASE_LTO: 'off',
      CARGO_PROFILE_RELEASE_CODEGEN_UNITS: '16',
      CARGO_PROFILE_RELEASE_DEBUG: '0',
    },
  });
  rmSync(compiling, { recursive: true, force: true });
  return own;
}

/** A program that npm brings. */
function npmProgram(variable, file) {
  if (process.env[variable]) return process.env[variable];
  const own = path.join(ROOT, 'node_modules', file);
  if (!existsSync(own)) run('npm', ['ci'], { shell: process.platform === 'win32' });
  return own;
}

/** When the newest file of some files and folders was written, or the oldest. */
function writtenAt(choose, ...names) {
  const times = names.flatMap((name) => {
    const at = path.join(ROOT, name);
    if (!existsSync(at)) return [];
    if (!statSync(at).isDirectory()) return [statSync(at).mtimeMs];
    return readdirSync(at, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => statSync(path.join(entry.parentPath, entry.name)).mtimeMs);
  });
  return choose(...times);
}

const environment = {
  ...process.env,
  WASM_BINDGEN_BIN: program('wasm-bindgen', 'wasm-bindgen-cli', pinned('Cargo.toml', /^wasm-bindgen = .*"=([\d.]+)"/m), ['--no-default-features']),
  WASM_OPT_BIN: npmProgram('WASM_OPT_BIN', 'binaryen/bin/wasm-opt'),
  ESBUILD_BIN: npmProgram('ESBUILD_BIN', 'esbuild/bin/esbuild'),
};
const workerBuild = program('worker-build', 'worker-build', pinned('tools/versions.sh', /^WORKER_BUILD_VERSION=(\S+)/m), ['--locked']);

// The SDK's part in Rust is built before worker-build would see to this. Without rustup it is the machine's business.
if (versionOf('rustup')) run('rustup', ['target', 'add', 'wasm32-unknown-unknown']);

const sdkIsOld = writtenAt(Math.min, 'bindings/dist') < writtenAt(Math.max, 'Cargo.toml', 'core/src', 'bindings/src', 'bindings/js', 'bindings/build.mjs');
if (!existsSync(path.join(ROOT, 'bindings/dist')) || sdkIsOld) run(process.execPath, ['bindings/build.mjs'], { env: environment });

const made = path.join(HERE, 'build');
// The platform has SIMD, and SHA-256 is made for it. What is still to be taken out of the JavaScript is easier to find in lines.
run(workerBuild, ['--profile', 'worker', '--no-opt'], { cwd: HERE, env: { ...environment, RUSTFLAGS: '-C target-feature=+simd128', NO_MINIFY: '1' } });

// What goes around it: js/worker.js takes the place of worker-build's own entry point. Classes that it does not name go, once nothing is said to happen
// where they are made.
const index = path.join(made, 'index.js');
const around = path.join(made, 'around.js');
const lines = readFileSync(index, 'utf8');
writeFileSync(index, lines.replace(/^if \(Symbol\.dispose\) .*\n/gm, '').replace(/(?<=^var \w+ = |: )(?=new (Proxy|FinalizationRegistry)\()/gm, '/* @__PURE__ */ '));
run(environment.ESBUILD_BIN, ['js/worker.js', '--bundle', '--minify', '--format=esm', '--alias:worker-build=./build/index.js', '--external:*.wasm', '--external:cloudflare:*', `--outfile=${around}`, '--log-level=warning'], { cwd: HERE });
renameSync(around, index);

const wasm = path.join(made, 'index_bg.wasm');
writeFileSync(wasm, cut(readFileSync(wasm), readFileSync(index, 'utf8')));
// What workerd has, and no more: without the list, wasm-opt might use what only other engines know.
const features = ['bulk-memory', 'exception-handling', 'multivalue', 'mutable-globals', 'nontrapping-float-to-int', 'reference-types', 'sign-ext', 'simd'];
run(environment.WASM_OPT_BIN, [...features.map((name) => `--enable-${name}`), '-O3', '--gufa', '-O3', '--debuginfo', wasm, '-o', wasm]);
const { module, names } = withoutNames(readFileSync(wasm));
writeFileSync(wasm, module);
// `wasm-function[123]` in a trace is the line that begins with 123.
writeFileSync(path.join(made, 'names.txt'), names);
