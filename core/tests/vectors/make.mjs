// Writes the vectors beside it, and from them the seeds of the fuzz targets:
//
//     node core/tests/vectors/make.mjs            # write them
//     node core/tests/vectors/make.mjs --check    # fail if they are not what stands there
//
// It uses nothing of the crate: a second implementation made these bytes. The same input gives the same files, always. Add cases at the
// end of a list; a case whose bytes change is a change of the format, which needs a new version.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as hpke from "./hpke.mjs";
import * as wire from "./wire.mjs";
import { refused } from "./refused.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const fuzz = join(here, "../../../fuzz/seeds");
const check = process.argv.includes("--check");
const hex = (bytes) => bytes.toString("hex");

// --- inputs that several cases share ---

export const TENANT = "00000000000a11ce";
export const SOURCE = "018bcfe5-6800-7abc-8def-0123456789ab";
export const CREATED = "1700000000000";
export const KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const WRITE_KEY = hex(Buffer.from(`fh_${TENANT}_Kq7Zp0c3Vn8Rb5Ls`));
const TRACEPARENT = hex(Buffer.from("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));

const VISIT = {
  anonymous_id: "9f0c7a52-3f5e-4a44-9d0a-1c2b3d4e5f60",
  session_id: "1700000000000",
  locale: "de-CH",
  timezone: "Europe/Zurich",
  url: "https://shop.example/games/monopoly?ref=home",
  title: "Monopoly – Spiele",
  referrer: "https://search.example/",
  screen: { width: 1440, height: 900 },
  campaign: { source: "newsletter", medium: "email", name: "spring" },
};
const PRODUCT_VIEWED = {
  kind: "track",
  offset_ms: "1250",
  name: "Product Viewed",
  properties: [
    ["product_id", "507f1f77bcf86cd799439011"],
    ["sku", "G-32"],
    ["name", "Monopoly: 3rd Edition"],
    ["price", { f64: "18.99" }],
    ["quantity", { u64: "1" }],
    ["category", "Games"],
    ["in_stock", true],
  ],
};
const ORDER_COMPLETED = {
  kind: "track",
  offset_ms: "65000",
  name: "Order Completed",
  properties: [
    ["order_id", "50314b8e9bcf000000000000"],
    ["revenue", { f64: "37.98" }],
    ["coupon", null],
    [
      "products",
      {
        list: [
          { map: [["sku", "G-32"], ["price", { f64: "18.99" }], ["tags", { list: ["board", "family"] }]] },
          { map: [["sku", "F-9"], ["price", { f64: "18.99" }], ["tags", { list: [] }]] },
        ],
      },
    ],
  ],
};
const PAGE = { kind: "page", offset_ms: "0", name: "Monopoly", properties: [["section", "games"]] };

const nest = (depth, inner) => (depth === 0 ? inner : { list: [nest(depth - 1, inner)] });

// --- properties ---

const propertyCases = [
  ["none", []],
  ["null and truth", [["a", null], ["b", false], ["c", true]]],
  ["whole numbers from 0", ["0", "1", "127", "128", "16383", "16384", "9007199254740992", "18446744073709551615"].map((u64) => [u64, { u64 }])],
  ["negative whole numbers", ["-1", "-64", "-65", "-9007199254740992", "-9223372036854775808"].map((i64) => [i64, { i64 }])],
  ["doubles", ["0", "-0", "18.99", "-1.5", "5e-324", "1.7976931348623157e308", "Infinity", "-Infinity", "NaN"].map((f64) => [f64, { f64 }])],
  ["text: empty, of two, three and four bytes a character, with a zero byte", [["", ""], ["größe", "Zürich"], ["価格", "千円"], ["🎲", "🎩\u0000x"]]],
  ["a key of 128 bytes and text of 300", [["k".repeat(128), "v".repeat(300)]]],
  ["bytes", [["empty", { bytes: "" }], ["some", { bytes: "00ff80" }], ["long", { bytes: "ab".repeat(130) }]]],
  ["empty list and empty map", [["list", { list: [] }], ["map", { map: [] }]]],
  ["a list of everything", [["all", { list: [null, true, { u64: "7" }, { i64: "-7" }, { f64: "0.5" }, "x", { bytes: "01" }, { list: [] }, { map: [["k", "v"]] }] }]]],
  ["the same key twice", [["a", { u64: "1" }], ["a", { u64: "2" }]]],
  ["as deep as it may be", [["deep", nest(8, true).list ? nest(8, true) : null]]],
  ["a map after a deep list, both closed", [["a", nest(3, "in")], ["b", { map: [["c", { map: [["d", null]] }], ["e", "out"]] }]]],
  ["an order", ORDER_COMPLETED.properties],
].map(([description, entries]) => {
  const { string, shape } = wire.halves(entries);
  return { description, entries, text: string.toString(), shape: hex(shape), hex: hex(wire.properties(entries)) };
});

// --- contexts ---

const contextCases = [
  ["nothing", {}],
  ["a visit", VISIT],
  ["only a user", { user_id: "u-97980cfea0067" }],
  ["empty texts are not missing ones", { anonymous_id: "", url: "", campaign: { term: "", content: "" } }],
  ["a screen of the largest numbers", { screen: { width: 4294967295, height: 0 } }],
  ["all else", { user_agent: "analytics-node/2.1.3", extra: [["library", { map: [["name", "analytics-node"], ["version", "2.1.3"]] }]] }],
].map(([description, context]) => ({ description, context, hex: hex(wire.context(context)) }));

// --- events ---

const eventCases = [
  ["the least", { kind: "track" }],
  ["a product", PRODUCT_VIEWED],
  ["an order with nested products", ORDER_COMPLETED],
  ["a page with its own address", { ...PAGE, context: { url: "https://shop.example/cart", title: "Cart" } }],
  ["a user and traits", { kind: "identify", offset_ms: "12", properties: [["email", "a@example.com"], ["plan", null]] }],
  ["a screen, before the frame was begun", { kind: "screen", offset_ms: "-40", name: "Home" }],
  ["a group", { kind: "group", name: "0e8c78ea9d97a7b8185e8632", properties: [["employees", { u64: "329" }]] }],
  ["an alias", { kind: "alias", name: "previous-id", context: { user_id: "new-id" } }],
  ["one that came in Segment's format", { kind: "track", id: { vendor: "segment", id: "ajs-next-1700000000000-9f0c7a52" }, name: "Signed Up", context: VISIT }],
  ["the farthest times", { kind: "track", offset_ms: "-9223372036854775808" }],
].map(([description, event]) => ({ description, event, hex: hex(wire.event(event)) }));

// --- frames ---

const header = (more = {}) => ({ flags: [], tenant: TENANT, source: SOURCE, created_ms: CREATED, ...more });
const ED25519_PUBLIC = wire.ed25519Public(KEY);

const frameCases = [
  {
    description: "a page's first frame: unsigned, with its write key",
    header: header({ region: "EU", consent: 3 }),
    extensions: [{ kind: 2, value: WRITE_KEY }],
    context: VISIT,
    events: [PAGE, PRODUCT_VIEWED],
  },
  {
    description: "the smallest, signed",
    header: header({ alg: 1 }),
    key: KEY,
    events: [{ kind: "track", name: "Hi" }],
  },
  {
    description: "without events: well-formed, though hops refuse it",
    header: header({ alg: 1, batch_seq: "12", first_seq: "3456", dropped: 7 }),
    key: KEY,
    events: [],
  },
  ...[
    [1, "HMAC-SHA256, 128 bits"],
    [2, "HMAC-SHA256"],
    [3, "Ed25519"],
    [4, "keyed BLAKE3"],
  ].map(([alg, name]) => ({
    description: `${name}, with a trace and an extension that nobody knows`,
    header: header({ flags: ["trust"], alg, key_id: 3, epoch: 472222, region: "CH", consent: 255, batch_seq: "1", first_seq: "2", dropped: 1 }),
    extensions: [{ kind: 1, value: TRACEPARENT }, { kind: 1000, value: "" }],
    key: KEY,
    ...(alg === 3 ? { public: ED25519_PUBLIC } : {}),
    context: VISIT,
    events: [PRODUCT_VIEWED, ORDER_COMPLETED],
  })),
  {
    description: "the largest numbers",
    header: header({
      alg: 2, tenant: "ffffffffffffffff", source: "ffffffff-ffff-ffff-ffff-ffffffffffff", key_id: 4294967295, epoch: 4294967295,
      batch_seq: "9223372036854775807", first_seq: "9223372036854775806", created_ms: "18446744073709551615", dropped: 4294967295,
    }),
    key: "ff".repeat(32),
    events: [{ kind: "track", offset_ms: "9223372036854775807" }],
  },
  {
    description: "BLAKE3 over more than one of its chunks",
    header: header({ alg: 4 }),
    key: KEY,
    events: Array.from({ length: 12 }, (_, i) => ({ ...PRODUCT_VIEWED, offset_ms: String(1000 * i) })),
  },
].map((frame) => ({ ...frame, hex: hex(wire.frame(frame)) }));

// --- envelopes ---

const ANNOTATION = {
  received_ms: "1700000001234", pop: "ZRH", country: "CH", network: { v4: "203.0.113" },
  agent: "desktop", traffic: "unknown", trust: "session", refused: "",
};
const edge = { tenant: TENANT, source: "018bcfe5-6c00-7000-8000-00000000edfe", key_id: 3, epoch: 472222, region: "CH", batch_seq: "41", created_ms: "1700000001234" };
const envelopeCases = [
  { description: "a session frame that the edge vouches for", header: { ...edge, alg: 2, count: 2 }, annotation: ANNOTATION, frame: frameCases[3].hex },
  { description: "a first frame, from a phone behind IPv6", header: { ...edge, alg: 2, count: 2 }, annotation: { ...ANNOTATION, network: { v6: "20:01:0d:b8:12:34" }, agent: "phone", trust: "write-key" }, frame: frameCases[0].hex },
  { description: "what is no frame, and what the edge says of it", header: { ...edge, alg: 4, count: 0 }, annotation: { ...ANNOTATION, pop: "", country: "", network: null, agent: "unknown", traffic: "bot", trust: "unchecked", refused: "bad-magic" }, frame: "68656c6c6f" },
  { description: "around nothing", header: { ...edge, alg: 1, count: 0 }, annotation: { ...ANNOTATION, traffic: "prefetch", agent: "tablet", refused: "truncated" }, frame: "" },
  {
    description: "with all that rules note", header: { ...edge, alg: 2, count: 2 }, annotation: { ...ANNOTATION, traffic: "ai-agent", agent: "tv" }, frame: frameCases[3].hex,
    notes: {
      rules: 3735928559, effects: ["gpc", "removed", "session"], withdrawn: 8, referrer: "campaign", skew_ms: -90000, subdivision: "ZH", city: "Zürich",
      campaign: { source: "newsletter", name: "spring" }, click_id: "gclid=Cj0KCQ",
    },
  },
  {
    description: "what the rules of a hop note on a visitor that they know nothing of", header: { ...edge, alg: 1, count: 2 }, annotation: { ...ANNOTATION, traffic: "human" }, frame: frameCases[3].hex,
    notes: { rules: 0, effects: [], withdrawn: 0, referrer: "unknown", skew_ms: 0, subdivision: "", city: "", click_id: "" },
  },
].map((e) => {
  const whole = { description: e.description, header: e.header, key: KEY, worker: 7, annotation: e.annotation, ...(e.notes && { notes: e.notes }), frame: e.frame };
  return { ...whole, annotation_hex: hex(wire.annotation(e.annotation)), ...(e.notes && { notes_hex: hex(wire.notes(e.notes)) }), hex: hex(wire.envelope(whole)) };
});

// --- keys: from a root to the frame that a session signs ---

const sessionCases = [
  { description: "a session that an edge granted", worker: 7, region: "EU", origin: "https://shop.example", alg: 1 },
  { description: "one that the server granted, to a client without an origin, any region", worker: 0, region: "--", origin: "", alg: 2 },
].map(({ description, worker, region, origin, alg }) => {
  const [root, epoch] = ["a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf", 472222];
  const scope = { tenant: TENANT, region, worker, epoch };
  const leaseInfo = wire.leaseInfo(scope);
  const lease = hex(wire.hkdf(root, leaseInfo));
  const envelopeInfo = wire.envelopeInfo();
  const grant = { worker, region, expires_ms: "1700003600000", origin, write_key: `fh_${TENANT}_Kq7Zp0c3Vn8Rb5Ls` };
  const sessionInfo = wire.sessionInfo(SOURCE, grant);
  const secret = hex(wire.hkdf(lease, sessionInfo));
  const frame = {
    header: header({ flags: ["trust"], alg, key_id: 1, epoch, region, batch_seq: "1", first_seq: "2" }),
    extensions: [{ kind: 3, value: hex(wire.grant(grant)) }],
    key: secret,
    events: [PRODUCT_VIEWED],
  };
  return {
    description, root, scope,
    lease_info: hex(leaseInfo), lease,
    envelope_info: hex(envelopeInfo), envelope_key: hex(wire.hkdf(lease, envelopeInfo)),
    source: SOURCE, grant, holder: hex(wire.holder(grant)), grant_hex: hex(wire.grant(grant)),
    session_info: hex(sessionInfo), session_secret: secret,
    frame: { ...frame, hex: hex(wire.frame(frame)) },
    // When the frame is checked, and what comes of it: null, or an error.
    checks: [
      { now_ms: "1700000000000", error: null },
      { now_ms: "1700003600001", error: null },
      { now_ms: "1700608400000", error: null },
      { now_ms: "1700608400001", error: "session-expired" },
      { now_ms: "1699990000000", error: "epoch-out-of-range" },
    ],
  };
});

// --- sealed frames ---

const rfc = JSON.parse(readFileSync(join(here, "primitives.json"))).hpke_base.map((c) => Object.fromEntries(Object.entries(c).map(([k, v]) => [k, Buffer.from(v, "hex")])));
for (const { skRm, pkRm, ikmE, ikmR, enc, info, aad, pt, ct } of rfc) {
  const { encapsulated, sealed } = hpke.seal({ recipient: pkRm, info, aad, message: pt, random: ikmE });
  const opened = hpke.open({ secret: skRm, encapsulated: enc, info, aad, sealed: ct });
  const same = [[hpke.deriveKey(ikmR), skRm], [hpke.publicOf(skRm), pkRm], [encapsulated, enc], [sealed, ct], [opened, pt]];
  if (!same.every(([ours, theirs]) => ours.equals(theirs))) throw new Error("hpke.mjs does not do what RFC 9180 says");
}

const regionKey = (id, secret) => ({ id, secret, public: hex(hpke.publicOf(Buffer.from(secret, "hex"))) });
const REGION_KEY = regionKey(5, "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf");
const sealedCases = [
  { description: "a first frame, which shows a write key", random: "e0".repeat(32), ...frameCases[0], header: { ...frameCases[0].header, region: "EU" } },
  { description: "a session's frame", random: "e1".repeat(32), ...sessionCases[0].frame },
  { description: "to another key of any region, signed by HMAC-SHA-256, without a context", random: "e2".repeat(32), header: header({ alg: 2, batch_seq: "7", first_seq: "9", dropped: 3 }), key: KEY, events: [ORDER_COMPLETED, PAGE], region_key: regionKey(4294967295, "00".repeat(31) + "01") },
  { description: "the smallest with an event: the worked example", random: "e4".repeat(32), header: header({ alg: 1, region: "EU" }), key: KEY, events: [{ kind: "track", name: "Hi" }] },
  { description: "without events", random: "e3".repeat(32), header: header({ region: "CH", tenant: "ffffffffffffffff" }), events: [] },
].map(({ description, random, header, extensions, key, context, events, region_key = REGION_KEY }) => {
  const whole = { description, header, extensions, key, context, events, region_key, random };
  const { payload, info, aad, hex: frame } = wire.sealed(whole);
  return { ...whole, payload: hex(payload), info: hex(info), aad: hex(aad), hex: hex(frame) };
});

// --- ids ---

const ids = {
  foreign: [
    [TENANT, "segment", "ajs-next-1700000000000-9f0c7a52"],
    [TENANT, "segment", ""],
    ["0000000000000001", "segment", "ajs-next-1700000000000-9f0c7a52"],
    [TENANT, "segment", "größe"],
  ].map(([tenant, vendor, id]) => ({ tenant, vendor, id, source: wire.foreignSource(tenant, vendor, id) })),
  v7: [
    ["1700000000000", "ffffffffffffffffffff"],
    ["0", "00000000000000000000"],
    ["281474976710655", "0123456789abcdef0123"],
  ].map(([millis, random]) => ({ millis, random, source: wire.sourceV7(millis, random) })),
  write_keys: {
    accepted: [`fh_${TENANT}_Kq7Zp0c3Vn8Rb5Ls`, `fh_ffffffffffffffff_${"x".repeat(44)}`],
    refused: [
      "", "fh_", `fh_${TENANT}`, `fh_${TENANT}_`, `fh_${TENANT}_Kq7Zp0c3Vn8Rb5L`, `fh_${TENANT}_${"x".repeat(45)}`, `FH_${TENANT}_Kq7Zp0c3Vn8Rb5Ls`,
      "fh_00000000000A11CE_Kq7Zp0c3Vn8Rb5Ls", "fh_0000000000a11ce_Kq7Zp0c3Vn8Rb5Ls", `fh_${TENANT}_Kq7Zp0c3Vn8Rb5L-`, `fh_${TENANT}_Kq7Zp0c3Vn8Rb5Lé`, ` fh_${TENANT}_Kq7Zp0c3Vn8Rb5Ls`,
    ],
  },
  event_ids: {
    accepted: [`${SOURCE}/0`, `${SOURCE}/18446744073709551615`],
    refused: ["", SOURCE, `${SOURCE}/`, `${SOURCE}/-1`, `${SOURCE}/+1`, `${SOURCE}/01`, `${SOURCE}/18446744073709551616`, `${SOURCE}/1/2`, `${SOURCE.slice(1)}/1`, `${SOURCE.replace("-", "0")}/1`],
  },
};

// --- files ---

/// JSON with whatever fits on a line on one line.
function format(value, indent = "") {
  const line = JSON.stringify(value);
  if (line.length + indent.length <= 118 || value === null || typeof value !== "object") {
    return line.replace(/("(?:[^"\\]|\\.)*")(:?)|,/g, (m, string, colon) => (string ? (colon ? `${string}: ` : string) : ", "));
  }
  const inner = `${indent}  `;
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const items = Array.isArray(value)
    ? value.map((item) => format(item, inner))
    : Object.entries(value).filter(([, v]) => v !== undefined).map(([key, v]) => `${JSON.stringify(key)}: ${format(v, inner)}`);
  return `${open}\n${items.map((item) => inner + item).join(",\n")}\n${indent}${close}`;
}

const refusedCases = refused({ TENANT, SOURCE, CREATED, KEY, frames: frameCases, envelopes: envelopeCases, sessions: sessionCases, sealed: sealedCases });
const files = { properties: propertyCases, contexts: contextCases, events: eventCases, frames: frameCases, envelopes: envelopeCases, sessions: sessionCases, sealed: sealedCases, ids, refused: refusedCases };
const output = new Map(Object.entries(files).map(([name, content]) => [join(here, `${name}.json`), Buffer.from(`${format(content)}\n`)]));

const whole = [...frameCases, ...sealedCases, ...envelopeCases, ...refusedCases].map(({ hex }) => hex);
const seeds = {
  frame: [...whole, ...sessionCases.map(({ frame }) => frame.hex)],
  header: [...whole.map((frame) => frame.slice(0, 176)), ...frameCases.map(({ hex }) => hex)],
  properties: propertyCases.map(({ hex }) => hex),
  event: [...eventCases, ...contextCases].map(({ hex }) => hex),
  annotation: envelopeCases.map(({ annotation_hex }) => annotation_hex),
  grant: sessionCases.map(({ grant_hex }) => grant_hex),
  ids: [ids.write_keys, ids.event_ids].flatMap(({ accepted, refused }) => [...accepted, ...refused]).map((text) => hex(Buffer.from(text))),
};
seeds.seal = sealedCases.map(({ hex }) => hex);
seeds.native = seeds.frame;
// What the first hop reads of Segment: the call's place in track, identify, page, screen, group, alias, batch; then the body.
const messages = [
  [0, { messageId: "m-1", anonymousId: "a", event: "Product Viewed", timestamp: "2023-11-14T22:13:20.000Z", properties: { sku: "G-32", price: 18.99, tags: ["board", null, { deep: [[]] }] } }],
  [1, { userId: "u", traits: { email: "a@example.com", plan: null }, context: { ip: "203.0.113.7", locale: "de-CH", library: { name: "analytics-node" } } }],
  [2, { anonymousId: "a", name: "Home", category: "Docs", properties: { url: "https://shop.example/", title: "Home" }, context: { page: { referrer: "https://search.example/" }, campaign: { source: "x" } } }],
  [3, { anonymousId: "a", name: "Welcome" }],
  [4, { userId: "u", groupId: "g", traits: { employees: 329 }, sentAt: "2023-11-14T22:13:21Z", originalTimestamp: "2023-11-14T22:13:20+01:00" }],
  [5, { previousId: "p", userId: "u" }],
];
const calls = ["track", "identify", "page", "screen", "group", "alias"];
const batch = { writeKey: `fh_${TENANT}_Kq7Zp0c3Vn8Rb5Ls`, batch: messages.map(([call, message]) => ({ type: calls[call], ...message })) };
seeds.segment = [...messages, [6, batch]].map(([call, message]) => hex(Buffer.from([call, ...Buffer.from(JSON.stringify(message))])));
const keys = [{ id: 1, region: "EU", public: Buffer.alloc(32, 1).toString("base64"), from: Number(CREATED), until: Number(CREATED) + 1 }];
const list = JSON.stringify({ kind: "region-keys", tenant: "00000000000a11ce", version: 7, issued: Number(CREATED), body: { keys } });
seeds.document = [list, JSON.stringify({ kind: "region-keys", text: list, signature: Buffer.alloc(64).toString("base64") })].map((text) => hex(Buffer.from(text)));
seeds.json = messages.map(([, message]) => hex(Buffer.from(JSON.stringify(message))));
for (const [target, inputs] of Object.entries(seeds)) {
  // A seed is a place to start from: large ones slow a fuzzer down. Named by its content, so that a new one renames no other.
  for (const input of inputs.filter((input) => input.length <= 8192).map((input) => Buffer.from(input, "hex"))) {
    output.set(join(fuzz, target, createHash("sha256").update(input).digest("hex").slice(0, 16)), input);
  }
}

if (check) {
  const stale = [...output].filter(([path, content]) => {
    try {
      return !readFileSync(path).equals(content);
    } catch {
      return true;
    }
  });
  for (const [path] of stale) console.error(`not what make.mjs writes: ${path}`);
  process.exit(stale.length > 0 ? 1 : 0);
}
for (const target of Object.keys(seeds)) rmSync(join(fuzz, target), { recursive: true, force: true });
for (const [path, content] of output) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}
console.log(`${output.size} files, of which ${readdirSync(here).filter((name) => name.endsWith(".json")).length} of vectors`);
