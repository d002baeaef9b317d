// What is compiled in for messages that nobody reads, and what is exported for nobody, taken out of a module before wasm-opt looks for what is never
// called.
//
// The crate `worker` exports classes of JavaScript's, with all that stands behind them, whether a Worker has containers, streams and buckets or not.
//
// Stable Rust formats what a panic says, and keeps the names of all files for it, whatever the profile asks for. A Worker that panics is started
// anew, and the trace in its log names the functions (names.mjs), which says as much.

import { CODE, functionNames, number, sections } from './names.mjs';

const IMPORTS = 2;
const EXPORTS = 7;
const DATA = 11;
const FUNCTION = 0;
const TABLE = 1;
const MEMORY = 2;
const GLOBAL = 3;
const TAG = 4;

/** No locals, and a trap. */
const TRAP = Buffer.of(0, 0x00, 0x0b);
/** Functions that never return. */
const CUT = [
  /^core(\[\w+\])?::panicking::(panic|assert_failed|unreachable)/,
  /^core(\[\w+\])?::(option::(unwrap|expect)_failed|result::unwrap_failed|str::slice_error_fail|slice::index::slice_index_fail|slice::copy_from_slice_impl::len_mismatch_fail)/,
  /^<?std(\[\w+\])?::panicking::(panic_with_hook|begin_panic|default_hook|panic_handler::(FormatString|StaticStr)Payload)/,
];

/** Where a panic was: Rust ends such a text with a zero, and no other. */
const FILE = /[\w/.+@-]+\.rs\0/g;

/** The module without them, for this JavaScript around it. Its names must be in it. */
export function cut(module, around) {
  const names = functionNames(module);
  const parts = [module.subarray(0, 8)];
  let index = 0;
  for (const { id, start, end, content } of sections(module)) {
    if (id === IMPORTS) index = importedFunctions(content);
    if (id === EXPORTS) parts.push(section(EXPORTS, exported(content, (name) => new RegExp(`\\.${name}\\b`).test(around))));
    else if (id === CODE) parts.push(section(CODE, bodies(content, (at) => left(names.get(index + at)))));
    else if (id === DATA) parts.push(module.subarray(start, end - content.length), withoutFiles(content));
    else parts.push(module.subarray(start, end));
  }
  return Buffer.concat(parts);
}

const left = (name) => (name !== undefined && CUT.some((pattern) => pattern.test(name)) ? TRAP : undefined);

const withoutFiles = (data) => Buffer.from(data.toString('latin1').replace(FILE, (name) => '\0'.repeat(name.length)), 'latin1');

/** The exports that are wanted. */
function exported(content, isWanted) {
  const parts = [];
  let [count, at] = number(content, 0);
  while (count-- > 0) {
    const first = at;
    const [length, start] = number(content, at);
    // A name, a kind, and which of that kind.
    const name = content.toString('utf8', start, start + length);
    [, at] = number(content, start + length + 1);
    if (isWanted(name)) parts.push(content.subarray(first, at));
  }
  return Buffer.concat([leb(parts.length), ...parts]);
}

/** The bodies of functions, some of them replaced. */
function bodies(content, replacement) {
  const [count, first] = number(content, 0);
  const parts = [leb(count)];
  for (let i = 0, at = first; i < count; i++) {
    const [length, start] = number(content, at);
    at = start + length;
    const body = replacement(i) ?? content.subarray(start, at);
    parts.push(leb(body.length), body);
  }
  return Buffer.concat(parts);
}

/** How many functions a module imports: its own are numbered from there on. */
function importedFunctions(content) {
  let [count, at] = number(content, 0);
  let functions = 0;
  const skipText = () => {
    const [length, start] = number(content, at);
    at = start + length;
  };
  const skipNumber = () => ([, at] = number(content, at));
  while (count-- > 0) {
    skipText();
    skipText();
    const kind = content[at++];
    if (kind === FUNCTION) functions += 1;
    if (kind === TABLE || kind === GLOBAL || kind === TAG) at += 1;
    if (kind === TABLE || kind === MEMORY) {
      const hasEnd = content[at++] & 1;
      skipNumber();
      if (hasEnd) skipNumber();
    } else if (kind === GLOBAL) at += 1;
    else skipNumber();
  }
  return functions;
}

const section = (id, content) => Buffer.concat([Buffer.of(id), leb(content.length), content]);

function leb(value) {
  const bytes = [];
  do {
    bytes.push((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
    value >>>= 7;
  } while (value > 0);
  return Buffer.from(bytes);
}
