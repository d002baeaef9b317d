// Reads frames, by docs/wire-format.md alone: what the SDK writes is held against a second reading of the page.

import { createHmac, timingSafeEqual } from 'node:crypto';
import { crc32 } from 'node:zlib';

import * as hpke from '../../../core/tests/vectors/hpke.mjs';

const KINDS = ['track', 'page', 'screen', 'identify', 'group', 'alias'];
const TAG_LENGTHS = [0, 16, 32, 64, 32];
const CONTEXT = ['anonymous_id', 'user_id', 'session_id', 'locale', 'timezone', 'user_agent', 'url', 'title', 'referrer'];
const CAMPAIGN = ['source', 'medium', 'name', 'term', 'content'];

const utf8 = new TextDecoder('utf-8', { fatal: true });

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  take(length) {
    if (this.at + length > this.bytes.length) throw new Error('cut short');
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
  byte() {
    return this.take(1)[0];
  }
  varint() {
    let value = 0n;
    for (let group = 0n; ; group++) {
      const byte = this.byte();
      value |= BigInt(byte & 0x7f) << (7n * group);
      if (byte < 0x80) {
        if (byte === 0 && group > 0n) throw new Error('a needless group');
        if (value >= 1n << 64n) throw new Error('over 64 bits');
        return value;
      }
    }
  }
  length() {
    return Number(this.varint());
  }
  zigzag() {
    const value = this.varint();
    return value & 1n ? -((value + 1n) / 2n) : value / 2n;
  }
  str() {
    return utf8.decode(this.take(this.length()));
  }
  option(read) {
    const some = this.byte();
    if (some > 1) throw new Error('an option that is neither');
    return some ? read() : undefined;
  }
  get done() {
    return this.at === this.bytes.length;
  }
}

const integer = (value) => (value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value);

/** A block, as the object that it was written from. Whole numbers beyond what a double holds are BigInts. */
function properties(reader) {
  const text = reader.take(reader.length());
  utf8.decode(text);
  const shape = new Reader(reader.take(reader.length()));
  let at = 0;
  const words = (length) => utf8.decode(text.subarray(at, (at += length)));
  const value = (tag) => {
    switch (tag) {
      case 0: return null;
      case 1: return false;
      case 2: return true;
      case 3: return integer(shape.varint());
      case 4: return integer(shape.zigzag());
      case 5: return Buffer.from(shape.take(8)).readDoubleLE();
      case 6: return words(shape.length());
      case 8: return list();
      case 9: return map(false);
      default: throw new Error(`tag ${tag}`);
    }
  };
  const list = () => {
    const items = [];
    for (let tag; (tag = shape.byte()) !== 10; ) items.push(value(tag));
    return items;
  };
  const map = (top) => {
    const entries = [];
    while (!(top && shape.done)) {
      const tag = shape.byte();
      if (tag === 10) break;
      const key = words(shape.length());
      entries.push([key, value(tag)]);
    }
    return Object.fromEntries(entries);
  };
  const read = map(true);
  if (!shape.done || at !== text.length) throw new Error('a block with a rest');
  return read;
}

function context(reader) {
  const read = {};
  for (const field of CONTEXT) read[field] = reader.option(() => reader.str());
  read.screen = reader.option(() => ({ width: reader.length(), height: reader.length() }));
  read.campaign = reader.option(() => Object.fromEntries(CAMPAIGN.map((field) => [field, reader.option(() => reader.str())]).filter(([, text]) => text !== undefined)));
  read.extra = properties(reader);
  return Object.fromEntries(Object.entries(read).filter(([name, value]) => value !== undefined && !(name === 'extra' && Object.keys(value).length === 0)));
}

/** Private keys of regions, by their numbers, and the list of the public ones that pages have. */
const REGION_SECRETS = { 5: Buffer.alloc(32, 50), 6: Buffer.alloc(32, 60), 7: Buffer.alloc(32, 70) };
export const regionKey = (id, from, until, region = 'EU') =>
  ({ id, region, public: hpke.publicOf(REGION_SECRETS[id]).toString('base64'), from, ...(until === undefined ? {} : { until }) });

/** What was sealed (docs/wire-format.md §16). */
function unseal(head, payload, id) {
  const aad = Buffer.from(head);
  aad.fill(0, 80, 84);
  const info = Buffer.concat([Buffer.from('firsthop-seal-v1'), head.subarray(8, 16), head.subarray(40, 42)]);
  return hpke.open({ secret: REGION_SECRETS[id], encapsulated: payload.subarray(0, 32), info, aad, sealed: Buffer.from(payload.subarray(32)) });
}

/** Reads a frame and checks its lengths, its CRC and that nothing is left over. */
export function decode(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const number = (at) => Number(view.getBigUint64(at, true));
  const hex = (from, to) => Buffer.from(bytes.subarray(from, to)).toString('hex');
  if (Buffer.from(bytes.subarray(0, 4)).toString() !== 'FHOP' || bytes[4] !== 1) throw new Error('no frame');
  const [headerLength, payloadLength] = [view.getUint16(6, true), view.getUint32(76, true)];
  const alg = bytes[42];
  const payloadEnd = headerLength + payloadLength;
  if (payloadEnd + TAG_LENGTHS[alg] !== bytes.length) throw new Error(`${bytes.length} bytes, not ${payloadEnd + TAG_LENGTHS[alg]}`);
  if (view.getUint16(46, true) || view.getUint32(84, true)) throw new Error('a reserved field');
  const zeroed = Uint8Array.from(bytes.subarray(0, payloadEnd));
  zeroed.fill(0, 80, 84);
  if (crc32(zeroed) !== view.getUint32(80, true)) throw new Error('CRC');

  const extensions = {};
  for (let at = 88; at < headerLength; ) {
    const length = view.getUint16(at + 2, true);
    extensions[view.getUint16(at, true)] = Buffer.from(bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  const source = hex(16, 32).replace(/(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  const header = {
    trust: (bytes[5] & 2) !== 0,
    flags: bytes[5],
    tenant: Buffer.from(bytes.subarray(8, 16)).reverse().toString('hex'),
    source,
    keyId: view.getUint32(32, true),
    epoch: view.getUint32(36, true),
    region: Buffer.from(bytes.subarray(40, 42)).toString(),
    alg,
    consent: bytes[43],
    count: view.getUint16(44, true),
    batch: number(48),
    firstSeq: number(56),
    created: number(64),
    dropped: view.getUint32(72, true),
  };

  const sealedTo = bytes[5] & 1 ? extensions[5].readUInt32LE() : undefined;
  const payload = bytes.subarray(headerLength, payloadEnd);
  const reader = new Reader(sealedTo === undefined ? payload : unseal(bytes.subarray(0, headerLength), payload, sealedTo));
  const shared = context(reader);
  const events = [];
  for (let i = 0; i < header.count; i++) {
    const kind = KINDS[reader.length()];
    const time = header.created + Number(reader.zigzag());
    if (reader.byte() !== 0) throw new Error('a foreign id, from a page');
    const name = reader.str();
    const delta = reader.take(reader.length());
    const block = reader.at;
    const read = properties(reader);
    events.push({ seq: header.firstSeq + i, kind, time, name, context: { ...shared, ...(delta.length && context(new Reader(delta))) }, properties: read, block: Buffer.from(reader.bytes.subarray(block, reader.at)).toString('hex') });
  }
  if (!reader.done) throw new Error('a rest behind the events');
  return { ...header, writeKey: extensions[2]?.toString(), grant: extensions[3], sealedTo, traceparent: extensions[1]?.toString(), context: shared, events, length: bytes.length };
}

/** Whether the frame was signed with this session's secret. */
export function signedWith(bytes, secret) {
  const length = TAG_LENGTHS[bytes[42]];
  const tag = createHmac('sha256', secret).update('firsthop/frame/1').update(bytes.subarray(0, bytes.length - length)).digest();
  return length > 0 && timingSafeEqual(tag.subarray(0, length), bytes.subarray(bytes.length - length));
}
