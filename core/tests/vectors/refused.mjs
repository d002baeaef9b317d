// Frames that are refused, each with the step that refuses it and why. A case is a good frame with one thing wrong; what would be wrong
// besides (CRC, tag) is put right again, so that it is that one thing which is found.
import * as wire from "./wire.mjs";
import { bytes, context, crc32, event, seal, tag, TAG_LEN, u32, varint } from "./wire.mjs";

export function refused({ TENANT, SOURCE, CREATED, KEY, frames, envelopes, sessions, sealed }) {
  const cases = [];
  const add = (description, step, error, frame, more = {}) =>
    cases.push({ description, step, error, ...more, hex: Buffer.isBuffer(frame) ? frame.toString("hex") : frame });

  const signed = () => Buffer.from(frames[3].hex, "hex");
  const CRC = 80;
  const header = { flags: [], tenant: TENANT, source: SOURCE, created_ms: CREATED };
  const empty = context();
  const least = event({ kind: "track" });
  const unsigned = () => seal({ ...header, count: 1 }, [{ kind: 1000, value: "0a0b" }], bytes(empty, least));

  /// Changes a frame and puts CRC and tag right.
  const changed = (frame, change) => {
    const alg = frame[42];
    const body = frame.subarray(0, frame.length - TAG_LEN[alg]);
    change(body);
    body.writeUInt32LE(0, CRC);
    body.writeUInt32LE(crc32(body), CRC);
    return bytes(body, tag(alg, KEY, body));
  };
  const fill = (frame, value, length) => Buffer.from(frame, "hex").fill(value, frame.length / 2 - length);
  const byte = (at, value) => (body) => body.writeUInt8(value, at);

  // Header. The CRC is right, and is not asked.
  add("nothing at all", "parse", "truncated", "");
  add("the first two bytes of a frame", "parse", "truncated", "4648");
  add("a header cut short", "parse", "truncated", unsigned().subarray(0, 87));
  add("another magic", "parse", "bad-magic", changed(unsigned(), byte(3, 0x51)));
  add("text", "parse", "bad-magic", Buffer.from("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
  add("version 0", "parse", "unknown-version", changed(unsigned(), byte(4, 0)));
  add("version 2", "parse", "unknown-version", changed(unsigned(), byte(4, 2)));
  add("a flag that is not assigned", "parse", "reserved-bits", changed(unsigned(), byte(5, 8)));
  add("the first reserved field", "parse", "reserved-bits", changed(unsigned(), byte(46, 1)));
  add("the second reserved field", "parse", "reserved-bits", changed(unsigned(), byte(87, 0x80)));
  add("a header shorter than the shortest", "parse", "bad-header-length", changed(unsigned(), (b) => b.writeUInt16LE(87, 6)));
  add("a header longer than the longest", "parse", "bad-header-length", changed(unsigned(), (b) => b.writeUInt16LE(1025, 6)));
  add("an algorithm that is not assigned", "parse", "unknown-algorithm", bytes(unsigned().fill(5, 42, 43)));
  add("a payload as long as a number can say", "parse", "too-large", changed(unsigned(), (b) => b.writeUInt32LE(0xffffffff, 76)));
  add("a payload that with its header is one byte too long", "parse", "too-large", changed(unsigned(), (b) => b.writeUInt32LE(512 * 1024 - b.readUInt16LE(6) + 1, 76)));
  add("a region in small letters", "parse", "bad-region", changed(unsigned(), (b) => b.write("eu", 40)));
  add("a region of a letter and a dash", "parse", "bad-region", changed(unsigned(), (b) => b.write("E-", 40)));
  add("more events than a frame may have", "parse", "bad-count", changed(unsigned(), (b) => b.writeUInt16LE(4097, 44)));
  add("a frame's number over 63 bits", "parse", "bad-count", changed(unsigned(), (b) => b.writeBigUInt64LE(1n << 63n, 48)));
  add("an event's number over 63 bits", "parse", "bad-count", changed(unsigned(), (b) => b.writeBigUInt64LE((1n << 63n) - 1n, 56)));
  add("an event's number over 64 bits", "parse", "bad-count", changed(unsigned(), (b) => b.writeBigUInt64LE((1n << 64n) - 1n, 56)));

  // Lengths and CRC
  add("the last byte missing", "parse", "truncated", signed().subarray(0, -1));
  add("the tag missing", "parse", "truncated", signed().subarray(0, -16));
  add("one byte more", "parse", "trailing-bytes", bytes(signed(), [0]));
  add("two frames", "parse", "trailing-bytes", bytes(signed(), signed()));
  add("a changed payload", "parse", "bad-crc", unsigned().fill("X", 96, 97));
  add("a changed CRC", "parse", "bad-crc", unsigned().fill(0, CRC, CRC + 4));
  add("a changed header", "parse", "bad-crc", unsigned().fill(0xee, 15, 16));

  // What a right CRC covers
  const raw = (payload, more = {}, extensions = []) => seal({ ...header, ...more }, extensions, payload);
  add("an extension without its length", "parse", "bad-extension", changed(unsigned(), (b) => {
    b.writeUInt32LE(b.readUInt32LE(76) + b.readUInt16LE(6) - 91, 76);
    b.writeUInt16LE(91, 6);
  }));
  add("an extension longer than the header", "parse", "bad-extension", changed(unsigned(), (b) => b.writeUInt16LE(b.readUInt16LE(90) + 1, 90)));
  add("an extension twice", "parse", "bad-extension", raw(bytes(), {}, [{ kind: 1, value: "00" }, { kind: 1, value: "00" }]));

  add("a sealed frame that does not say to which key", "parse", "bad-extension", changed(unsigned(), byte(5, 1)));
  add("a sealed frame whose key has five bytes", "parse", "bad-extension", raw(Buffer.alloc(61), { flags: ["sealed"] }, [{ kind: 5, value: "0500000000" }]));
  add("a sealed frame that is shorter than a seal", "parse", "malformed-payload", raw(Buffer.alloc(47), { flags: ["sealed"] }, [{ kind: 5, value: "05000000" }]));
  add("a sealed envelope", "parse", "reserved-bits", changed(unsigned(), byte(5, 5)));

  // Signature
  const wrong = signed();
  wrong[wrong.length - 1] ^= 1;
  add("a changed tag", "verify", "bad-signature", wrong, { alg: 1, key: KEY });
  add("another key", "verify", "bad-signature", signed(), { alg: 1, key: `01${KEY.slice(2)}` });
  add("a payload and a CRC that were changed together", "verify", "bad-signature", (() => {
    const frame = signed();
    frame[300] ^= 1;
    frame.writeUInt32LE(0, CRC);
    frame.writeUInt32LE(crc32(frame.subarray(0, -16)), CRC);
    return frame;
  })(), { alg: 1, key: KEY });
  add("a key for another algorithm", "verify", "unknown-algorithm", signed(), { alg: 2, key: KEY });
  add("a signature under Ed25519 that is none", "verify", "bad-signature", fill(frames[5].hex, 0xff, 64), { alg: 3, key: frames[5].public });
  add("a tag of keyed BLAKE3 that is none", "verify", "bad-signature", fill(frames[6].hex, 0, 32), { alg: 4, key: KEY });

  // Payload
  const one = (payload) => raw(bytes(empty, payload), { count: 1 });
  const withBlock = (text, shape) => one(bytes(least.subarray(0, -2), varint(text.length), text, varint(shape.length), shape));
  const shape = (description, error, text, ...parts) => add(description, "open", error, withBlock(Buffer.from(text), bytes(...parts)));
  add("no context", "open", "malformed-payload", raw(bytes(), { count: 1 }));
  add("an option that is neither 0 nor 1", "open", "malformed-payload", raw(bytes([2], empty.subarray(1))));
  add("a context that is cut short", "open", "malformed-payload", raw(empty.subarray(0, -1)));
  add("a context whose text is longer than the payload", "open", "malformed-payload", raw(bytes([1, 5], "abc")));
  add("a length with a needless group", "open", "malformed-payload", raw(bytes([1, 0x83, 0], "abc", empty.subarray(1))));
  add("a length over 64 bits", "open", "malformed-payload", raw(bytes([1], Buffer.alloc(10, 0xff), [1], empty.subarray(1))));
  add("a context that is not UTF-8", "open", "malformed-payload", raw(bytes([1, 1, 0xff], empty.subarray(1))));
  add("a screen of more than 32 bits", "open", "malformed-payload", raw(bytes(Buffer.alloc(9), [1], varint(1n << 32n), [0, 0, 0, 0])));
  add("a context of more than 16 KiB", "open", "too-large", raw(context({ url: "u".repeat(16 * 1024) })));
  add("fewer events than the header says", "open", "bad-count", raw(bytes(empty, least), { count: 2 }));
  add("more events than the header says", "open", "bad-count", raw(bytes(empty, least, least), { count: 1 }));
  add("events where the header says none", "open", "bad-count", raw(bytes(empty, least)));
  add("a kind of event that is not assigned", "open", "malformed-payload", one(bytes([6], least.subarray(1))));
  add("a vendor that is not assigned", "open", "malformed-payload", one(bytes([0, 0, 1, 1, 0], least.subarray(3))));
  add("an event that is cut short", "open", "malformed-payload", one(least.subarray(0, -1)));
  add("a name that is not UTF-8", "open", "malformed-payload", one(bytes([0, 0, 0, 2, 0xc3, 0x28], least.subarray(4))));
  add("a name of 513 bytes", "open", "too-large", one(event({ kind: "track", name: "n".repeat(513) })));
  add("a foreign id of 257 bytes", "open", "too-large", one(event({ kind: "track", id: { vendor: "segment", id: "i".repeat(257) } })));
  add("a context of the event's own that is cut short", "open", "malformed-payload", one(bytes(least.subarray(0, 4), [1, 0], least.subarray(5))));
  add("a context of the event's own with something behind it", "open", "malformed-payload", one(bytes(least.subarray(0, 4), varint(empty.length + 1), empty, [0], least.subarray(5))));
  add("an event of more than 32 KiB", "open", "too-large", one(event({ kind: "track", name: "n", properties: [["k", "v".repeat(32 * 1024)]] })));

  // Sealed frames
  add("a sealed frame, read without its key", "open", "sealed-unsupported", sealed[0].hex);
  const unseal = (description, error, frame, key = sealed[0].region_key) => add(description, "unseal", error, frame, { region_key: key });
  const first = () => Buffer.from(sealed[0].hex, "hex");
  const end = (frame) => frame.length - TAG_LEN[frame[42]];
  unseal("a frame that is not sealed", "wrong-state", signed());
  unseal("a frame sealed to another key of the region", "unknown-key", first(), sealed[2].region_key);
  unseal("another secret under the same id", "bad-seal", first(), { ...sealed[2].region_key, id: sealed[0].region_key.id });
  unseal("a changed encapsulated key", "bad-seal", changed(first(), (b) => (b[b.readUInt16LE(6)] ^= 1)));
  unseal("an encapsulated key of zeros", "bad-seal", changed(first(), (b) => b.fill(0, b.readUInt16LE(6), b.readUInt16LE(6) + 32)));
  unseal("a changed ciphertext", "bad-seal", changed(first(), (b) => (b[b.readUInt16LE(6) + 32] ^= 1)));
  unseal("a changed tag of the seal", "bad-seal", changed(first(), (b) => (b[end(first()) - 1] ^= 0x80)));
  unseal("another tenant", "bad-seal", changed(first(), (b) => (b[8] ^= 1)));
  unseal("another region", "bad-seal", changed(first(), (b) => b.write("US", 40)));
  unseal("another source", "bad-seal", changed(first(), (b) => (b[31] ^= 1)));
  unseal("another number of the first event", "bad-seal", changed(first(), (b) => (b[56] ^= 1)));
  unseal("another consent", "bad-seal", changed(first(), (b) => (b[43] ^= 1)));
  unseal("another extension", "bad-seal", changed(first(), (b) => (b[b.readUInt16LE(6) - 9] ^= 1)));
  unseal("sealed by the book, and cut short", "malformed-payload", wire.sealed(sealed[0], Buffer.from(sealed[0].payload, "hex").subarray(0, -1)).hex);
  unseal("sealed by the book, with one event less than the header says", "bad-count", wire.sealed(sealed[0], Buffer.from(wire.context(sealed[0].context))).hex);
  unseal("nothing, sealed by the book", "malformed-payload", wire.sealed(sealed[0], Buffer.alloc(0)).hex);

  // Properties
  shape("a tag that is not assigned", "malformed-payload", "k", [11, 1]);
  shape("the end of a container that was not opened", "malformed-payload", "k", [10, 1]);
  shape("a key that is longer than the text", "malformed-payload", "k", [0, 2]);
  shape("text that nothing uses", "malformed-payload", "kx", [0, 1]);
  shape("a string that is longer than the text", "malformed-payload", "kx", [6, 1, 2]);
  shape("a cut through a character", "malformed-payload", "kü", [6, 2, 1]);
  shape("a cut through a character, between two entries", "malformed-payload", "kü", [6, 1, 1, 0, 1]);
  shape("a cut through a character, in a list", "malformed-payload", "kü", [8, 1, 6, 1, 6, 1, 10]);
  shape("text that is not UTF-8", "malformed-payload", bytes("k", [0xff]), [6, 1, 1]);
  shape("a number without its last byte", "malformed-payload", "k", [3, 1, 0x80]);
  shape("a whole number from 0 under the tag of negative ones", "malformed-payload", "k", [4, 1, 2]);
  shape("a double without its last byte", "malformed-payload", "k", [5, 1, 0, 0, 0, 0, 0, 0, 0]);
  shape("bytes that are longer than the block", "malformed-payload", "k", [7, 1, 2, 0]);
  shape("a list without its end", "malformed-payload", "k", [8, 1, 0]);
  shape("a map in a list without its end", "malformed-payload", "k", [8, 1, 9, 10]);
  shape("nine lists in each other", "too-deep", "k", [8, 1], Buffer.alloc(8, 8), Buffer.alloc(9, 10));
  shape("nine maps in each other", "too-deep", "k", [9, 1], Buffer.from([9, 0, 9, 0, 9, 0, 9, 0, 9, 0, 9, 0, 9, 0, 9, 0]), Buffer.alloc(9, 10));
  shape("1,025 values", "too-large", "", Buffer.alloc(2 * 1025));
  shape("1,025 values in two lists", "too-large", "", [8, 0], Buffer.alloc(511), [10, 8, 0], Buffer.alloc(512), [10]);

  // Envelopes
  const envelope = () => Buffer.from(envelopes[0].hex, "hex");
  add("a frame that is no envelope", "envelope", "wrong-state", signed());
  add("an envelope, opened as a frame of events", "open", "wrong-state", envelope());
  add("an envelope that names no hop", "envelope", "bad-extension", changed(envelope(), (b) => b.writeUInt16LE(1000, 88)));
  add("an envelope whose hop has five bytes", "envelope", "bad-extension", seal({ ...header, flags: ["envelope"] }, [{ kind: 4, value: "0700000000" }], Buffer.from(envelopes[0].annotation_hex, "hex")));
  const note = (payload) => seal({ ...header, flags: ["envelope"] }, [{ kind: 4, value: u32(7).toString("hex") }], payload);
  add("an annotation that is cut short", "envelope", "malformed-payload", note(bytes([1, 0, 0, 0, 0, 0, 0])));
  add("an annotation with a kind of client that is not assigned", "envelope", "malformed-payload", note(bytes([1, 0, 0, 0, 99, 0, 0, 0])));
  add("an annotation with a text of 65 bytes", "envelope", "too-large", note(bytes([1, 65], Buffer.alloc(65, 0x78), [0, 0, 0, 0, 0, 0])));

  const noted = (value) => seal({ ...header, flags: ["envelope"] }, [{ kind: 4, value: u32(7).toString("hex") }, { kind: 6, value }], bytes([1, 0, 0, 0, 0, 0, 0, 0]));
  add("notes that are cut short", "envelope", "malformed-payload", noted("0000000000"));
  add("notes with a kind of referrer that is not assigned", "envelope", "malformed-payload", noted("000000630000000000"));
  add("notes with a city of 65 bytes", "envelope", "too-large", noted("000000000000" + "41" + "78".repeat(65) + "0000"));

  // Sessions: as if the frame had come to the hop that granted the session in the first case of sessions.json.
  const session = sessions[0];
  const granted = (more, grant = session.grant_hex, key = session.session_secret) =>
    seal({ ...session.frame.header, count: 0, ...more }, grant === null ? [] : [{ kind: 3, value: grant }], empty, key);
  const ofSession = (description, error, frame) => add(description, "session", error, frame, { now_ms: "1700000000000" });
  const expires = (millis) => {
    const grant = Buffer.from(session.grant_hex, "hex");
    grant.writeBigUInt64LE(BigInt(millis), 6);
    return grant.toString("hex");
  };
  ofSession("no grant", "bad-session", granted({}, null));
  ofSession("a grant of 29 bytes", "bad-session", granted({}, session.grant_hex.slice(2)));
  ofSession("a grant whose region is none", "bad-session", granted({}, session.grant_hex.replace(/^(.{8}).{4}/, "$17878")));
  ofSession("a session that ended before it was granted", "bad-session", granted({}, expires(472222n * 3600000n - 1n)));
  ofSession("a session longer than 24 hours and two epochs", "bad-session", granted({}, expires((472222n + 26n) * 3600000n + 1n)));
  ofSession("a session from the epoch after the next", "epoch-out-of-range", granted({ epoch: 472224 }, expires(472225n * 3600000n)));
  ofSession("unsigned", "unknown-algorithm", granted({ alg: 0 }));
  ofSession("another source's session", "bad-signature", granted({ source: "018bcfe5-6800-7abc-8def-0123456789ac" }));
  ofSession("another end of the session", "bad-signature", granted({}, expires(1700003600001n)));
  ofSession("another holder", "bad-signature", granted({}, session.grant_hex.replace(/.$/, (c) => (c === "0" ? "1" : "0"))));

  return cases;
}
