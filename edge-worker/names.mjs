// Function names in a module, without the hash that the compiler puts behind each of them: it says nothing in a trace, and it does not
// compress, so that names would be a tenth of what is uploaded.

const NAME_SECTION = 0;
const FUNCTIONS = 1;
const HASH = /::h[0-9a-f]{16}(?=$|\.\d+$)/;

/** The module with shorter names. */
export function withoutHashes(module) {
  const parts = [module.subarray(0, 8)];
  for (let at = 8; at < module.length; ) {
    const id = module[at];
    const [length, start] = number(module, at + 1);
    const end = start + length;
    const content = module.subarray(start, end);
    parts.push(Buffer.of(id), ...sized(id === NAME_SECTION ? custom(content) : content));
    at = end;
  }
  return Buffer.concat(parts);
}

/** A custom section: the one that is called `name` consists of parts, of which one has the functions' names. */
function custom(content) {
  const [length, start] = number(content, 0);
  if (content.toString('utf8', start, start + length) !== 'name') return content;
  const parts = [content.subarray(0, start + length)];
  for (let at = start + length; at < content.length; ) {
    const id = content[at];
    const [size, from] = number(content, at + 1);
    const part = content.subarray(from, from + size);
    parts.push(Buffer.of(id), ...sized(id === FUNCTIONS ? functions(part) : part));
    at = from + size;
  }
  return Buffer.concat(parts);
}

function functions(part) {
  let [count, at] = number(part, 0);
  const parts = [leb(count)];
  while (count-- > 0) {
    const [index, behind] = number(part, at);
    const [length, start] = number(part, behind);
    at = start + length;
    parts.push(leb(index), ...sized(Buffer.from(part.toString('utf8', start, at).replace(HASH, ''))));
  }
  return Buffer.concat(parts);
}

const sized = (bytes) => [leb(bytes.length), bytes];

/** An unsigned LEB128 number, and where it ends. */
function number(bytes, at) {
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++];
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return [value, at];
  }
}

function leb(value) {
  const bytes = [];
  do {
    bytes.push((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
    value = Math.floor(value / 128);
  } while (value > 0);
  return Buffer.from(bytes);
}
