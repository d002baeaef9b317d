// Function names of a module, apart from it: they are a tenth of what every point of presence would load, and only who reads a trace needs them.

const CUSTOM = 0;
export const CODE = 10;
const FUNCTIONS = 1;
/** What the compiler puts behind a name to tell it from others like it. */
const HASH = /::h[0-9a-f]{16}(?=$|\.\d+$)/;

/** The module without what tools have written into it, names above all, and the names: one to a line, behind the number that a trace shows. */
export function withoutNames(module) {
  const parts = [module.subarray(0, 8)];
  for (const { id, start, end } of sections(module)) {
    if (id !== CUSTOM) parts.push(module.subarray(start, end));
  }
  const names = [...functionNames(module)].map(([index, name]) => `${index} ${name}\n`).join('');
  return { module: Buffer.concat(parts), names };
}

/** The names of a module's functions, by their numbers. */
export function functionNames(module) {
  const names = new Map();
  for (const { id, content } of sections(module)) {
    if (isNames(id, content)) functionsOf(content, names);
  }
  return names;
}

/** The sections of a module, each with where it begins and ends. */
export function* sections(module) {
  for (let start = 8; start < module.length; ) {
    const [length, first] = number(module, start + 1);
    const end = first + length;
    yield { id: module[start], start, end, content: module.subarray(first, end) };
    start = end;
  }
}

const isNames = (id, content) => id === CUSTOM && nameOf(content) === 'name';

/** What a custom section is called. */
function nameOf(section) {
  const [length, start] = number(section, 0);
  return section.toString('utf8', start, start + length);
}

/** The section consists of parts, of which one has the functions' names. */
function functionsOf(section, names) {
  const [length, first] = number(section, 0);
  for (let at = first + length; at < section.length; ) {
    const [size, start] = number(section, at + 1);
    if (section[at] === FUNCTIONS) {
      let [count, next] = number(section, start);
      while (count-- > 0) {
        const [index, behind] = number(section, next);
        const [bytes, from] = number(section, behind);
        next = from + bytes;
        names.set(index, section.toString('utf8', from, next).replace(HASH, ''));
      }
    }
    at = start + size;
  }
}

/** An unsigned LEB128 number, and where it ends. */
export function number(bytes, at) {
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++];
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return [value, at];
  }
}
