// The public methods: the forms in which people call them, and what is done before the module is there.

import { createDelivery, type Delivery } from './delivery.ts';
import { createEncoder, isObject } from './encoder.ts';
import type { EventOptions, Firsthop, LoadOptions } from './firsthop.d.ts';
import type { SealedLoadOptions } from './firsthop-sealed.d.ts';
import { createReporter } from './reporter.ts';
import { createSealing, isSealable } from './sealing.ts';
import { createUuid } from './uuid.ts';
import { createVisitor, type Visitor } from './visitor.ts';
import { Field, Kind, type Wasm } from './wasm.ts';

const enum Limit {
  /** How long a callback waits for the acknowledgement: as long as a visitor waits who follows a link. */
  CallbackMs = 300,
  FlushMs = 1000,
  FlushAt = 300,
  QueueBytes = 1_000_000,
  /** Calls that wait for `load` and for the module. */
  Held = 1000,
  /** How often the module is asked for. */
  Loads = 6,
}

type Args = any[];

/** When and where a call was made. */
export interface Moment {
  now: number;
  url: string;
  title: string;
  /** The event is acknowledged: what wanted to be called then is. */
  done?: () => void;
}

const isFunction = (value: unknown): boolean => typeof value === 'function';
const textual = (value: unknown): string => (typeof value === 'string' || typeof value === 'number' ? `${value}` : '');

/** What the page said, whatever it does to its objects meanwhile. What JSON cannot say stays as it is. */
const snapshot = (args: Args): Args => {
  try {
    return JSON.parse(JSON.stringify(args));
  } catch {
    return args;
  }
};

/**
 * @param instantiate makes an instance of the module
 * @param queued of the call at hand, if it was made before this code was there
 */
export function createFirsthop(instantiate: () => Promise<Wasm>, queued?: () => Moment | undefined): Firsthop {
  const reporter = createReporter();
  const { emit, fail, guard } = reporter;
  const losses = { untold: 0, fresh: 0 };
  let visitor: Visitor;
  /** Of the sealed build. */
  let sealed: SealedLoadOptions;
  let delivery: Delivery | undefined;
  let loaded: Promise<void> | undefined;
  /** Calls that wait for `load`, for the module, or for the one before them. */
  const held: (() => void)[] = [];
  let ready = false;
  /** The page is going: what is tracked now is sent now. */
  let leaving = false;
  /** Of the call that is being carried out. */
  let moment: Moment | undefined;

  const giveUp = (reason: string): void => {
    losses.untold++;
    losses.fresh++;
    // Later: a listener that tracks what was dropped, and is dropped in turn, must not hold up the page.
    setTimeout(() => emit('dropped', { count: 1, reason }), 1);
  };

  /** A public method. It waits for its turn, and finds its callback wherever that stands. */
  const method = (act: (args: Args) => void, mostHeld = Limit.Held as number) =>
    guard((...args) => {
      const made: Moment = { now: Date.now(), url: location.href, title: document.title, ...queued?.() };
      const callback = args.find(isFunction);
      if (callback) {
        // Whatever becomes of the event: a visitor may be waiting.
        new Promise<void>((done) => setTimeout((made.done = done), Limit.CallbackMs))
          .then(() => callback())
          .catch((cause) => fail('callback', cause));
      }
      args = args.filter((arg) => !isFunction(arg));
      if (!ready) args = snapshot(args);
      if (held.length >= mostHeld) return giveUp('not-loaded');
      held.push(() => {
        moment = made;
        try {
          act(args);
        } catch (cause) {
          giveUp('internal');
          fail('internal', cause);
        }
        moment = undefined;
      });
      carryOut();
    });

  /** A listener or a getter of the page's may call a method in the middle of another: one is carried out after the other. */
  const carryOut = (): void => {
    while (ready && !moment && held.length) held.shift()!();
  };

  const start = async ({ endpoint, writeKey, region, flushAt, flushInterval, maxQueueBytes }: LoadOptions): Promise<void> => {
    const source = createUuid();
    for (let load = 1; !delivery && load < Limit.Loads; load++) {
      try {
        const encoder = createEncoder(SEALED ? createSealing(await instantiate(), sealed) : await instantiate(), source, writeKey, region, flushAt ?? Limit.FlushAt, fail);
        const url = `${endpoint}`.replace(/\/*$/, '/v1/f');
        delivery = createDelivery(encoder, reporter, url, source, losses, giveUp, flushInterval ?? Limit.FlushMs, maxQueueBytes ?? Limit.QueueBytes);
      } catch (cause) {
        fail('wasm', cause);
        await new Promise((resolve) => setTimeout(resolve, 500 << load));
      }
    }
    ready = true;
    carryOut();
  };

  const flush = async (): Promise<void> => {
    await loaded;
    await delivery?.flush();
  };

  const capture = (kind: Kind, name: string, properties: unknown, options: unknown, also?: object): void => {
    const { timestamp, userId, anonymousId, context: extra }: EventOptions = isObject(options) ? options : {};
    const { now, url, title, done } = moment!;
    let place = visitor.place(now, url, title);
    if (userId || anonymousId || also) {
      place = Object.assign([...place], userId && { [Field.UserId]: `${userId}` }, anonymousId && { [Field.AnonymousId]: `${anonymousId}` }, also);
    }
    const time = +new Date(timestamp ?? now) || now;
    if (delivery) delivery.deliver({ kind, name, properties, extra, time, place, purposes: visitor.purposes() });
    else giveUp('wasm');
    if (leaving) delivery?.leave();
    if (done) flush().then(done, done);
  };

  /** The id and what comes behind it; an object in its place means that there is none. */
  const withId = (args: Args): Args => (isObject(args[0]) ? ['', ...args] : [textual(args[0]), ...args.slice(1)]);

  return {
    load: guard((options) => {
      if (loaded) fail('loaded');
      else if (!/^fh_[\da-f]{16}_[\da-zA-Z]{16,44}$/.test(options.writeKey)) fail('write-key');
      else if (!options.endpoint) fail('endpoint');
      else if (SEALED && !isSealable(options)) fail('region-keys');
      else {
        if (SEALED) sealed = options as SealedLoadOptions;
        visitor = createVisitor(options);
        loaded = start(options).catch((cause) => fail('internal', cause));
        const leave = guard(({ type }) => {
          leaving = type === 'pagehide';
          delivery?.leave();
        });
        const resume = guard(({ persisted }) => {
          leaving = false;
          delivery?.resume(persisted);
        });
        addEventListener('pagehide', leave);
        // It bubbles up to here, after the page's own listeners have tracked their last.
        addEventListener('visibilitychange', (event) => document.visibilityState === 'hidden' && leave(event));
        addEventListener('pageshow', resume);
        addEventListener('online', resume);
      }
    }),

    track: method(([name, properties, options]) => {
      if (isObject(name)) [name, properties, options] = [name.event, name.properties, properties];
      if (textual(name)) capture(Kind.Track, `${name}`, properties, options);
      else fail('invalid', name);
    }),

    page: method((args) => {
      // Up to two texts stand first: one is the name, wherever it stands; two are the category and the name.
      const texts = isObject(args[0]) ? 0 : isObject(args[1]) ? 1 : 2;
      const [first = '', second = ''] = args.slice(0, texts).map(textual);
      const [properties, options] = args.slice(texts);
      capture(Kind.Page, second || first, first && second ? { category: first, ...properties } : properties, options);
    }),

    identify: method((args) => {
      const [userId, traits, options] = withId(args);
      if (userId) visitor.change({ [Field.UserId]: userId });
      capture(Kind.Identify, '', traits, options);
    }),

    group: method((args) => {
      const [groupId, traits, options] = withId(args);
      capture(Kind.Group, groupId, traits, options);
    }),

    alias: method(([to, from, options]) => {
      if (isObject(from)) [from, options] = ['', from];
      const userId = textual(to);
      const { [Field.UserId]: known, [Field.AnonymousId]: unknown = '' } = visitor.change({});
      if (userId) capture(Kind.Alias, textual(from) || known || unknown, undefined, options, { [Field.UserId]: userId });
      else fail('invalid', to);
    }),

    // What the visitor has said is never too much.
    consent: method(([purposes]) => visitor.agree(purposes), Infinity),
    reset: method(() => visitor.forget(), Infinity),
    flush,
    on: guard(reporter.on),
    off: guard(reporter.off),
  };
}
