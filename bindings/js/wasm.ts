// What the module exports (`../src/exports.rs`), and what its numbers mean.

export interface Wasm {
  memory: WebAssembly.Memory;
  /** Where text is staged, as UTF-8. `FRAME_AT` bytes further is the frame. */
  stagingAt(): number;
  /** Staged: source, write key. */
  startPage(tenantLow: number, tenantHigh: number, writeKeyLength: number): number;
  /** Staged: secret, grant. */
  startSession(alg: number, keyId: number, epoch: number): number;
  setText(field: number, length: number): number;
  beginFrame(consent: number, region: number, created: number, screenWidth: number, screenHeight: number): number;
  beginBlock(): void;
  putEntry(keyLength: number, type: number, value: number, high: number): number;
  putEvent(kind: number, nameLength: number, time: number): number;
  finishFrame(dropped: number, skipped: number): number;
}

/** What the module of the sealed build exports besides. Its `finishFrame` takes 32 random bytes, staged. */
export interface SealingWasm extends Wasm {
  /** Staged: the region's public key. */
  sealTo(id: number): number;
}

// Enums that leave nothing behind but their numbers.

export const enum At {
  /** The staging buffer's length. */
  Frame = 33 * 1024,
  /** Behind a source. */
  WriteKey = 16,
  /** Behind a secret. */
  Grant = 32,
  /** Behind a grant: all of a session. */
  Session = 62,
}

/** In place of a key's length: the item of a list. */
export const enum Key {
  None = -1,
}

/** What `put` writes. */
export const enum Type {
  Null,
  False,
  True,
  Number,
  /** The value is the length of the text that is staged behind the key. */
  Text,
  List,
  Map,
  /** Of the list or map that was opened last. */
  End,
  /** Of 64 bits, in two halves. */
  Whole,
  Signed,
}

/** What a call returns that failed. A frame is longer than any of these. */
export const enum Code {
  None,
  /** Of `event`: it belongs into the next frame. */
  Full,
  TooLarge,
  TooDeep,
  Invalid,
}
export const REASONS = ['', 'too-large', 'too-large', 'too-deep', 'invalid'];

/** Kinds of events. */
export const enum Kind {
  Track,
  Page,
  Screen,
  Identify,
  Group,
  Alias,
}

/** Texts of a context, as far as they are named here. */
export const enum Field {
  AnonymousId,
  UserId,
  Visit,
  Locale,
  TimeZone,
  UserAgent,
  Url,
  Title,
  Referrer,
  Campaign,
}
