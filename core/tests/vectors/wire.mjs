// The wire format a second time, in plain JavaScript, from docs/wire-format.md and nothing else: what the vectors are made with.
// Values are written as the vectors write them; README.md says how.
import { createHash, createHmac, createPrivateKey, createPublicKey, hkdfSync, sign } from "node:crypto";
import { keyed } from "./blake3.mjs";
import * as hpke from "./hpke.mjs";

// --- postcard ---

export const bytes = (...parts) => Buffer.concat(parts.map((part) => (Array.isArray(part) ? Buffer.from(part) : Buffer.from(part))));

export function varint(value) {
  const out = [];
  for (let rest = BigInt(value); ; rest >>= 7n) {
    const low = Number(rest & 0x7fn);
    if (rest < 0x80n) return Buffer.from([...out, low]);
    out.push(low | 0x80);
  }
}

export const zigzag = (value) => varint(BigInt.asUintN(64, (BigInt(value) << 1n) ^ (BigInt(value) >> 63n)));
const block = (value) => bytes(varint(Buffer.byteLength(value)), value);
const option = (value, write) => (value === undefined || value === null ? Buffer.from([0]) : bytes([1], write(value)));
const text = (value) => option(value, block);

// --- properties ---

function f64(value) {
  const out = Buffer.alloc(8);
  out.writeDoubleLE(Number(value));
  return out;
}

/// The two halves of a block: entries of a map as `[key, value]`, or items of a list.
export function halves(entries, isMap = true) {
  let [string, shape] = [Buffer.alloc(0), Buffer.alloc(0)];
  for (const entry of entries) {
    const [key, value] = isMap ? entry : [undefined, entry];
    const put = (tag, body = [], words = "") => {
      shape = bytes(shape, [tag], isMap ? varint(Buffer.byteLength(key)) : [], body);
      string = bytes(string, isMap ? key : "", words);
    };
    const nested = (tag, items) => {
      const inner = halves(items, tag === 9);
      put(tag, bytes(inner.shape, [10]), inner.string);
    };
    if (value === null) put(0);
    else if (value === false) put(1);
    else if (value === true) put(2);
    else if (typeof value === "string") put(6, varint(Buffer.byteLength(value)), value);
    else if ("u64" in value) put(3, varint(value.u64));
    else if ("i64" in value) put(4, zigzag(value.i64));
    else if ("f64" in value) put(5, f64(value.f64));
    else if ("bytes" in value) put(7, block(Buffer.from(value.bytes, "hex")));
    else if ("list" in value) nested(8, value.list);
    else if ("map" in value) nested(9, value.map);
    else throw new Error(`not a value: ${JSON.stringify(value)}`);
  }
  return { string, shape };
}

export function properties(entries = []) {
  const { string, shape } = halves(entries);
  return bytes(block(string), block(shape));
}

// --- context and event ---

export function context(c = {}) {
  return bytes(
    ...["anonymous_id", "user_id", "session_id", "locale", "timezone", "user_agent", "url", "title", "referrer"].map((field) => text(c[field])),
    option(c.screen, ({ width, height }) => bytes(varint(width), varint(height))),
    option(c.campaign, (campaign) => bytes(...["source", "medium", "name", "term", "content"].map((field) => text(campaign[field])))),
    properties(c.extra),
  );
}

const KINDS = ["track", "page", "screen", "identify", "group", "alias"];
const VENDORS = ["segment"];

export function event(e) {
  return bytes(
    varint(KINDS.indexOf(e.kind)),
    zigzag(e.offset_ms ?? 0),
    option(e.id, ({ vendor, id }) => bytes(varint(VENDORS.indexOf(vendor)), block(id))),
    block(e.name ?? ""),
    block(e.context ? context(e.context) : ""),
    properties(e.properties),
  );
}

// --- frame ---

export function crc32(input) {
  let crc = ~0;
  for (const byte of input) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

export const uuid = (text) => Buffer.from(text.replaceAll("-", ""), "hex");
export const u16 = (value) => Buffer.from([value & 0xff, value >> 8]);
export const u32 = (value) => {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
};
export const u64 = (value) => {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
};
const FLAGS = { sealed: 1, trust: 2, envelope: 4 };
export const TAG_LEN = [0, 16, 32, 64, 32];
const DOMAIN = Buffer.from("firsthop/frame/1");

/// The tag over a frame's signed bytes. `key` is what stands in the vectors: 32 bytes in hex, for Ed25519 the seed.
export function tag(alg, key, signed) {
  const secret = Buffer.from(key ?? "", "hex");
  const hmac = () => createHmac("sha256", secret).update(DOMAIN).update(signed).digest();
  switch (alg) {
    case 0:
      return Buffer.alloc(0);
    case 1:
      return hmac().subarray(0, 16);
    case 2:
      return hmac();
    case 3:
      return sign(null, bytes(DOMAIN, createHash("sha256").update(signed).digest()), ed25519(secret));
    case 4:
      return keyed(secret, bytes(DOMAIN, signed));
  }
}

/// PKCS #8 (RFC 8410) around the seed.
const ed25519 = (seed) => createPrivateKey({ key: bytes(Buffer.from("302e020100300506032b657004220420", "hex"), seed), format: "der", type: "pkcs8" });
export const ed25519Public = (seed) =>
  createPublicKey(ed25519(Buffer.from(seed, "hex"))).export({ format: "der", type: "spki" }).subarray(-32).toString("hex");

export const extension = ({ kind, value }) => bytes(u16(kind), u16(value.length / 2), Buffer.from(value, "hex"));

/// A header with its extensions, its CRC still zero.
function head(header, extensions, payloadLength) {
  const tail = bytes(...extensions.map(extension));
  return bytes(
    "FHOP",
    [1, (header.flags ?? []).reduce((sum, flag) => sum | FLAGS[flag], 0)],
    u16(88 + tail.length),
    u64(BigInt(`0x${header.tenant}`)),
    uuid(header.source),
    u32(header.key_id ?? 0),
    u32(header.epoch ?? 0),
    header.region ?? "--",
    [header.alg ?? 0, header.consent ?? 0],
    u16(header.count ?? 0),
    u16(0),
    u64(header.batch_seq ?? 0),
    u64(header.first_seq ?? 0),
    u64(header.created_ms),
    u32(header.dropped ?? 0),
    u32(payloadLength),
    u32(0),
    u32(0),
    tail,
  );
}

/// A whole frame around a payload.
export function seal(header, extensions, payload, key) {
  const alg = header.alg ?? 0;
  const signed = bytes(head(header, extensions, payload.length), payload);
  signed.writeUInt32LE(crc32(signed), 80);
  return bytes(signed, tag(alg, key, signed));
}

const payload = (f) => bytes(context(f.context), ...f.events.map(event));
export const frame = (f) => seal({ ...f.header, count: f.events.length }, f.extensions ?? [], payload(f), f.key);

// --- sealed frames ---

export const sealInfo = ({ tenant, region }) => bytes("firsthop-seal-v1", tenantId(tenant), region ?? "--");

/// A frame sealed to a region's key. `message` is in place of what the frame's context and events are, where it is given.
export function sealed(f, message = payload(f)) {
  const header = { ...f.header, flags: [...(f.header.flags ?? []), "sealed"], count: f.events.length };
  const extensions = [...(f.extensions ?? []), { kind: 5, value: u32(f.region_key.id).toString("hex") }];
  const [recipient, random] = [f.region_key.public, f.random].map((text) => Buffer.from(text, "hex"));
  const aad = head(header, extensions, 32 + message.length + 16);
  const { encapsulated, sealed } = hpke.seal({ recipient, info: sealInfo(header), aad, message, random });
  return { payload: message, info: sealInfo(header), aad, hex: seal(header, extensions, bytes(encapsulated, sealed), f.key) };
}

// --- annotation and envelope ---

function network(value) {
  if (value === null) return Buffer.from([0]);
  if ("v4" in value) return bytes([1], value.v4.split(".").map(Number));
  return bytes([2], Buffer.from(value.v6.replaceAll(":", ""), "hex"));
}

export function annotation(a) {
  return bytes(
    varint(a.received_ms),
    block(a.pop),
    block(a.country),
    network(a.network),
    varint(["unknown", "desktop", "phone", "tablet", "library", "robot", "tv"].indexOf(a.agent)),
    varint(["unknown", "bot", "prefetch", "human", "ai-agent", "scanner"].indexOf(a.traffic)),
    varint(["unchecked", "write-key", "session"].indexOf(a.trust)),
    block(a.refused),
  );
}

const EFFECTS = ["gpc", "unread", "rewritten", "suppressed", "anonymised", "removed", "hashed", "cut-click-ids", "session"];
const REFERRERS = ["unknown", "direct", "internal", "search", "social", "email", "ai-assistant", "campaign", "other"];

export function notes(n) {
  const option = (text) => (text === undefined ? Buffer.from([0]) : bytes([1], block(text)));
  const campaign = n.campaign;
  return bytes(
    varint(n.rules),
    varint(n.effects.reduce((bits, name) => bits | (1 << EFFECTS.indexOf(name)), 0)),
    [n.withdrawn],
    varint(REFERRERS.indexOf(n.referrer)),
    zigzag(n.skew_ms),
    block(n.subdivision),
    block(n.city),
    campaign ? bytes([1], ...["source", "medium", "name", "term", "content"].map((name) => option(campaign[name]))) : [0],
    block(n.click_id),
  );
}

export function envelope(e) {
  const header = { ...e.header, flags: [...(e.header.flags ?? []), "envelope"] };
  const worker = { kind: 4, value: u32(e.worker).toString("hex") };
  const noted = e.notes ? [{ kind: 6, value: notes(e.notes).toString("hex") }] : [];
  return seal(header, [worker, ...noted], bytes(annotation(e.annotation), Buffer.from(e.frame, "hex")), e.key);
}

// --- keys and ids ---

const field = (value) => bytes([Buffer.byteLength(value)], value);
export const info = (label, ...fields) => bytes(field(label), ...fields.map(field));
export const hkdf = (secret, info) => Buffer.from(hkdfSync("sha256", Buffer.from(secret, "hex"), Buffer.alloc(0), info, 32));
const tenantId = (hex) => u64(BigInt(`0x${hex}`));

export const leaseInfo = ({ tenant, region, worker, epoch }) => info("firsthop/lease/1", tenantId(tenant), region, u32(worker), u32(epoch));
export const envelopeInfo = () => info("firsthop/envelope/1");
export const sessionInfo = (source, grant) => info("firsthop/session/1", uuid(source), holder(grant), u64(grant.expires_ms));
export const holder = ({ origin, write_key }) => bytes(...[origin, write_key].map((text) => createHash("sha256").update(text).digest().subarray(0, 8)));
export const grant = (g) => bytes(u32(g.worker), g.region, u64(g.expires_ms), holder(g));

const asUuid = (b) => b.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
const stamped = (b, version) => {
  b[6] = (b[6] & 0x0f) | (version << 4);
  b[8] = (b[8] & 0x3f) | 0x80;
  return asUuid(b);
};

export const foreignSource = (tenant, vendor, id) =>
  stamped(createHash("sha256").update(bytes(tenantId(tenant), field(vendor), id)).digest().subarray(0, 16), 8);

export function sourceV7(millis, random) {
  const [time, r] = [Buffer.alloc(8), Buffer.from(random, "hex")];
  time.writeBigUInt64BE(BigInt(millis));
  return stamped(bytes(time.subarray(2), r), 7);
}
