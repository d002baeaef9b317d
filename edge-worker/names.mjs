// Function names of a module, apart from it: they are a tenth of what every point of presence would load, and only who reads a trace needs them.

const CUSTOM = 0;
const FUNCTIONS = 1;
/** What the compiler puts behind a name to tell it from others like it. */
const HASH = /::h[0-9a-f]{16}(?=$|\.\d+$)/;

/** The module without its names, and the names: one to a line, behind the number that a trace shows. */
export function withoutNames(module) {
  const parts = [module.subarray(0, 8)];
  let names = '';
  for (let at = 8; at < module.length; ) {
    const [length, start] = number(module, at + 1);
    const content = module.subarray(start, start + length);
    if (module[at] === CUSTOM && nameOf(content) === 'name') names += functionsOf(content);
    else parts.push(module.subarray(at, start + length));
    at = start + length;
  }
  return { module: Buffer.concat(parts), names };
}

/** What a custom section is called. */
function nameOf(section) {
  const [length, start] = number(section, 0);
  return section.toString('utf8', start, start + length);
}

/** The section consists of parts, of which one has the functions' names. */
function functionsOf(section) {
  let lines = '';
  const [length, first] = number(section, 0);
  for (let at = first + length; at < section.length; ) {
    const [size, start] = number(section, at + 1);
    if (section[at] === FUNCTIONS) {
      let [count, next] = number(section, start);
      while (count-- > 0) {
        const [index, behind] = number(section, next);
        const [bytes, from] = number(section, behind);
        next = from + bytes;
        lines += `${index} ${section.toString('utf8', from, next).replace(HASH, '')}\n`;
      }
    }
    at = start + size;
  }
  return lines;
}

/** An unsigned LEB128 number, and where it ends. */
function number(bytes, at) {
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++];
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return [value, at];
  }
}
