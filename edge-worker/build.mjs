// Builds the Worker into build/: what wrangler and tools/build call.
//
// cargo → wasm-bindgen → wasm-opt → esbuild. Needs Rust and Node. What else it takes (the page SDK, wasm-bindgen, wasm-opt, esbuild) it finds
// in the environment that tools/env.sh sets, or gets from crates.io and npm.

import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

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
const sdkIsOld = writtenAt(Math.min, 'bindings/dist') < writtenAt(Math.max, 'Cargo.toml', 'core/src', 'bindings/src', 'bindings/js', 'bindings/build.mjs');
if (!existsSync(path.join(ROOT, 'bindings/dist')) || sdkIsOld) run(process.execPath, ['bindings/build.mjs'], { env: environment });

/** Compiles the crate for WebAssembly and returns where the module is. */
function compile() {
  const out = run('cargo', ['build', '--package', 'firsthop-edge', '--target', 'wasm32-unknown-unknown', '--profile', 'worker', '--message-format', 'json-render-diagnostics'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 1 << 28,
  });
  const artifacts = out.toString().split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  const files = artifacts.filter(({ reason, target }) => reason === 'compiler-artifact' && target.name === 'firsthop_edge').flatMap(({ filenames }) => filenames);
  return files.find((file) => file.endsWith('.wasm'));
}

// What rustc emits for this target, and the exceptions that wasm-bindgen catches. By name: a newer wasm-opt must not use what workerd cannot read.
const FEATURES = ['bulk-memory', 'exception-handling', 'multivalue', 'mutable-globals', 'nontrapping-float-to-int', 'reference-types', 'sign-ext'];

const work = mkdtempSync(path.join(tmpdir(), 'firsthop-edge-'));
try {
  // If the Worker panics, wasm-bindgen starts it anew with the next call, where it would else be dead until the platform ends it.
  const recovery = ['--experimental-reset-state-function', '--force-enable-abort-handler'];
  run(environment.WASM_BINDGEN_BIN, ['--target', 'module', '--no-typescript', '--out-name', 'index', '--out-dir', work, ...recovery, compile()]);
  // The names of functions stay: a trace in the log is of no use without them.
  const wasm = path.join(work, 'index_bg.wasm');
  run(environment.WASM_OPT_BIN, ['-O', '--debuginfo', ...FEATURES.map((feature) => `--enable-${feature}`), wasm, '-o', wasm]);

  cpSync(path.join(HERE, 'js'), work, { recursive: true });
  const bindings = path.join(work, 'index.js');
  // workerd imports a module compiled, but does not know the proposal that wasm-bindgen writes it by.
  writeFileSync(bindings, readFileSync(bindings, 'utf8').replace('import source ', 'import '));
  const made = path.join(work, 'build');
  mkdirSync(made);
  run(environment.ESBUILD_BIN, ['worker.js', '--bundle', '--minify', '--format=esm', '--external:./index_bg.wasm', '--external:cloudflare:*', '--outfile=build/index.js', '--log-level=warning'], { cwd: work });
  cpSync(wasm, path.join(made, 'index_bg.wasm'));
  rmSync(path.join(HERE, 'build'), { recursive: true, force: true });
  cpSync(made, path.join(HERE, 'build'), { recursive: true });
} finally {
  rmSync(work, { recursive: true });
}
