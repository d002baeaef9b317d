// Proves that a WebAssembly module has neither an allocator nor anything from outside:
//
//     node tools/no-alloc-proof.mjs proof.wasm
//
// A Rust program that allocates without naming an allocator does not link, so the build is most of the proof. This looks at what was
// linked: no imports (nothing borrowed from the host), no instruction that asks for memory (every allocator for WebAssembly needs
// `memory.grow`), and exports that call into the core (or the proof would be of an empty module). And it calls them: each takes a seed and
// returns 0, or the line of core/no-alloc-proof/src/lib.rs on which something was not as it should be.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const binaryen = (tool) => fileURLToPath(new URL(`../node_modules/binaryen/bin/${tool}`, import.meta.url));
const run = (tool, ...args) =>
  execFileSync(process.execPath, [binaryen(tool), ...args], { encoding: "utf8", maxBuffer: 1 << 28 });

function faults(path) {
  const bytes = readFileSync(path);
  const module = new WebAssembly.Module(bytes);
  const imports = WebAssembly.Module.imports(module).map((i) => `imports ${i.module}.${i.name}`);
  const text = run("wasm-dis", path);
  const found = [...imports];
  if (text.includes("memory.grow")) found.push("grows its memory: something in it allocates");
  const functions = WebAssembly.Module.exports(module).filter((e) => e.kind === "function");
  if (functions.length === 0) found.push("exports no function: nothing was linked that could be proved");
  return { found, functions, size: bytes.length };
}

// The check itself is checked first: it must refuse modules that do what it looks for.
const folder = mkdtempSync(join(tmpdir(), "no-alloc-"));
try {
  for (const [what, wat] of [
    ["imports", '(module (import "env" "f" (func)) (func (export "g") (call 0)))'],
    ["grows", '(module (memory 1) (func (export "g") (result i32) (memory.grow (i32.const 1))))'],
    ["exports no function", "(module (memory 1))"],
  ]) {
    const path = join(folder, "bad");
    writeFileSync(`${path}.wat`, wat);
    run("wasm-as", `${path}.wat`, "-o", `${path}.wasm`);
    if (!faults(`${path}.wasm`).found.some((f) => f.startsWith(what))) {
      throw new Error(`the check does not see a module that ${what}`);
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}

const path = process.argv[2];
const { found, functions, size } = faults(path);
for (const fault of found) console.error(`${path}: ${fault}`);
if (found.length > 0) process.exit(1);
const { instance } = await WebAssembly.instantiate(readFileSync(path));
for (const { name } of functions) {
  for (const seed of [0, 1, 0x1234567, -1]) {
    const line = instance.exports[name](seed);
    if (line !== 0) throw new Error(`${path}: ${name}(${seed}) failed on line ${line}`);
  }
}
console.log(`${size} bytes, ${functions.length} exported functions (${functions.map((f) => f.name).join(", ")}), no imports, no memory.grow, all as it should be`);
