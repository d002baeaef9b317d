// From JavaScript values to frames: walks what a page hands over, and tells the core entry by entry.
//
// Values mean what `JSON.stringify` would write of them. What it would throw at is left out instead: a cycle, nesting beyond the core's
// bound, what cannot be read. A BigInt is a whole number, or text where 64 bits do not hold it.

import { bytesOf } from './uuid.ts';
import { At, Code, Key, REASONS, Type, type Kind, type Wasm } from './wasm.ts';

/** The texts of a context by `Field`. Never changed: another context is another array. */
export type Context = readonly (string | undefined)[];

/** A call of `track` or its like, as it was when it was made. */
export interface Call {
  kind: Kind;
  name: string;
  properties: unknown;
  /** What the caller adds to the context. */
  extra: unknown;
  time: number;
  place: Context;
  purposes: number;
}

/** A frame, signed. However often it is sent, it stays as it is. */
export interface Frame {
  bytes: Uint8Array<ArrayBuffer>;
  batch: number;
  firstSeq: number;
  count: number;
  /** How many events it says were given up. */
  dropped: number;
}

/** A session, as a receipt brings it. */
export interface Session {
  alg: number;
  keyId: number;
  epoch: number;
  region: string;
  grant: string;
  secret: string;
  expires: number;
}

const enum Limit {
  /** A frame that is this long is closed: two of them are within the 64 KiB that outlive a page. */
  Frame = 28_000,
  /** Open maps and lists, the properties themselves included. */
  Nesting = 9,
  /** Longer texts are of no use in a context. */
  ContextText = 2048,
  /** Up to here a string is written byte by byte: calling `encodeInto` would cost more. */
  Short = 64,
}

export const isObject = (value: unknown): value is Record<string, any> => typeof value === 'object' && !!value && !Array.isArray(value);

export type Encoder = ReturnType<typeof createEncoder>;

/**
 * @param region the region that may read the events, if the page says
 * @param flushAt most events in a frame
 * @param leftOut hears why something of an event was
 */
export function createEncoder(wasm: Wasm, source: string, writeKey: string, region: string | undefined, flushAt: number, leftOut: (code: string) => void) {
  const memory = new Uint8Array(wasm.memory.buffer);
  const staging = wasm.stagingAt();
  const utf8 = new TextEncoder();

  /** The call whose context and consent the open frame has. */
  let open: Call | undefined;
  let size = 0;
  let count = 0;
  let batch = 0;
  let firstSeq = 0;
  let sessionRegion = '--';

  const check = (code: Code): void => {
    if (code) throw code;
  };

  /** Writes text behind what is staged already, and returns its length. */
  const stage = (text: string, at = 0): number => {
    const { length } = text;
    at += staging;
    if (length < Limit.Short) {
      let i = 0;
      for (let unit; i < length && (unit = text.charCodeAt(i)) < 128; ) memory[at + i++] = unit;
      if (i === length) return i;
    }
    // What this lets through leaves room for a short string.
    const { read, written } = utf8.encodeInto(text, memory.subarray(at, staging + At.Frame - Limit.Short));
    if (read < length) throw Code.TooLarge;
    return written;
  };

  /** Writes the entries of a map or a list. `path` is what is open, `holder` last. */
  const entries = (holder: any, path: unknown[]): void => {
    const keys = Array.isArray(holder) ? undefined : Object.keys(holder);
    const { length } = keys ?? holder;
    for (let i = 0; i < length; i++) {
      const key: any = keys ? keys[i] : i;
      let reason = '';
      let value: any;
      try {
        value = holder[key];
        if (value && typeof value === 'object') {
          if (typeof value.toJSON === 'function') value = value.toJSON(`${key}`);
          if (value instanceof Number || value instanceof String || value instanceof Boolean) value = value.valueOf();
        }
      } catch {
        value = undefined;
        reason = 'unreadable';
      }
      if (typeof value === 'bigint' && BigInt.asIntN(64, value) !== value && BigInt.asUintN(64, value) !== value) value = `${value}`;
      const type = typeof value;
      const at = keys ? stage(key) : 0;
      const put = (what: Type, number = 0, high = 0): void => check(wasm.putEntry(keys ? at : Key.None, what, number, high));
      if (type === 'string') put(Type.Text, stage(value, at));
      else if (type === 'number') put(Type.Number, value);
      else if (type === 'boolean') put(+value + Type.False);
      else if (type === 'bigint') put(value < 0 ? Type.Signed : Type.Whole, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
      else if (type === 'object' && value && !(reason = path.includes(value) ? 'cyclic' : path.length < Limit.Nesting ? '' : 'too-deep')) {
        put(Array.isArray(value) ? Type.List : Type.Map);
        entries(value, [...path, value]);
        check(wasm.putEntry(Key.None, Type.End, 0, 0));
      } else {
        if (reason) leftOut(reason);
        // In a map, what JSON has no word for is left out; in a list it is null.
        if (value === null || !keys) put(Type.Null);
      }
    }
  };

  const block = (object: unknown): void => {
    wasm.beginBlock();
    if (isObject(object)) entries(typeof object.toJSON === 'function' ? object.toJSON('') : object, [object]);
  };

  memory.set(bytesOf(source), staging);
  // Two halves of the tenant's sixteen hex digits.
  const half = (from: number) => parseInt(writeKey.slice(from, from + 8), 16);
  wasm.startPage(half(11), half(3), stage(writeKey, At.WriteKey));

  return {
    /** Bytes of the open frame. */
    weight: () => (open ? size : 0),

    /**
     * Writes an event into the open frame or a new one. `seal` has to close the open one. Returns why the event was given up, if it was.
     *
     * The events of a frame share one context. To say with each what differs would take more than a new frame.
     */
    write(call: Call, seal: () => void): string | undefined {
      const { place, purposes, extra } = call;
      try {
        for (;;) {
          if (open && (open.place !== place || open.purposes !== purposes || open.extra || extra)) seal();
          const fresh = !open;
          if (!open) {
            const letters = region || sessionRegion;
            // The texts last: nothing may come between them and the frame that takes them.
            block(extra);
            place.forEach((text, field) => text && wasm.setText(field, stage(text.slice(0, Limit.ContextText))));
            check(wasm.beginFrame(purposes, letters.charCodeAt(0) | (letters.charCodeAt(1) << 8), Date.now(), screen.width, screen.height));
            open = call;
            count = 0;
          }
          block(call.properties);
          const result = wasm.putEvent(call.kind, stage(call.name), call.time);
          if (result > Code.Invalid) {
            size = result;
            if (++count >= flushAt || size > Limit.Frame) seal();
            return;
          }
          if (result > Code.Full || fresh) throw result;
          seal();
        }
      } catch (code) {
        return REASONS[code as Code] ?? 'unreadable';
      }
    },

    /**
     * Closes the open frame, if something is in it. `dropped` is how many events were given up since the last; of those, the `skipped`
     * get the numbers before the frame's: whatever was given up has one, so that no number that is missing can be taken for it.
     */
    seal(dropped: number, skipped: number): Frame | undefined {
      const length = open && count && wasm.finishFrame(dropped, skipped);
      open = undefined;
      if (!length) return;
      const at = staging + At.Frame;
      firstSeq += skipped + count;
      return { bytes: memory.slice(at, at + length), batch: batch++, firstSeq: firstSeq - count, count, dropped };
    },

    /** Signs the frames to come; without a session, ceases to. No frame may be open. */
    sign({ alg = 0, keyId = 0, epoch = 0, region = '--', secret = '', grant = '' }: Partial<Session>): void {
      const bytes = atob(secret) + atob(grant);
      for (let i = 0; i < At.Session; i++) memory[staging + i] = bytes.charCodeAt(i);
      wasm.startSession(bytes.length === At.Session ? alg : 0, keyId, epoch);
      sessionRegion = region;
    },
  };
}
