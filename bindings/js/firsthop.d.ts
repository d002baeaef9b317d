// The public types of the npm package `firsthop`. The sources implement these, so they cannot drift apart.

/** An object whose values are what `JSON.stringify` takes; others are left out, as it does. */
export type Properties = object;

/** Called once the event was acknowledged or given up, and after 300 ms at the latest: to follow a link, say. */
export type Callback = () => void;

/** The purposes that a visitor has agreed to. What is not said stays as it was. */
export interface Consent {
  /** Needed for what the visitor asked for: taken as given once anything was said. */
  readonly necessary?: boolean;
  /** Measuring use. Granted, it also lets `anonymousId` and the visit outlive the page, in `localStorage`. */
  readonly analytics?: boolean;
  /** Remembering preferences. */
  readonly preferences?: boolean;
  /** Advertising. Never on where the browser sends Global Privacy Control. */
  readonly marketing?: boolean;
}

export interface LoadOptions {
  /** Where events go: the URL of the edge or the server. */
  readonly endpoint: string;
  /** `fh_…`, as `firsthop tenant list` shows it. It is public, like every key on a page. */
  readonly writeKey: string;
  /** What the visitor has agreed to, if that is known already: see `consent()`. */
  readonly consent?: Consent;
  /** Keep `anonymousId` and the visit in `localStorage` although no consent was asked for. Default: false. */
  readonly persist?: boolean;
  /** Follow the browser's Global Privacy Control: nothing persistent, no marketing. Default: true. */
  readonly gpc?: boolean;
  /** The region that may read the events, such as `"EU"`. Default: any, then the region of the session. */
  readonly region?: string;
  /** How long events may wait for company, in milliseconds. Default: 1000. */
  readonly flushInterval?: number;
  /** Most events in one request. Default: 300. */
  readonly flushAt?: number;
  /** Most bytes that wait on the page. What comes then is given up, counted and told. Default: 1,000,000. */
  readonly maxQueueBytes?: number;
}

/** What analytics.js calls options. Others than these are ignored. */
export interface EventOptions {
  /** When it happened. Default: now. */
  readonly timestamp?: Date | number | string;
  /** Added to the event's context. */
  readonly context?: Properties;
  /** For this event alone. */
  readonly userId?: string;
  /** For this event alone. */
  readonly anonymousId?: string;
  readonly [name: string]: unknown;
}

/** Events that the endpoint acknowledged: they are on disk. */
export interface Delivered {
  /** The page, as a UUID. With it, an event's number is its id. */
  readonly source: string;
  /** The request, counted from 0. */
  readonly batch: number;
  /** Number of the first event in it. The events of a page count from 0, in the order of the calls. */
  readonly firstSeq: number;
  readonly count: number;
  readonly stored: number;
  readonly duplicates: number;
  readonly conflicts: number;
}

/** A request failed, and will be sent again, byte for byte. */
export interface Retry {
  readonly batch: number;
  readonly attempt: number;
  /** Milliseconds until then. */
  readonly delay: number;
  /** The HTTP status, or 0 if there was no answer. */
  readonly status: number;
}

/** Events that were given up. The next request tells how many. */
export interface Dropped {
  readonly count: number;
  /** `queue-full`, `not-loaded`, `wasm`, the `code` of the error that was told too, or the problem code that the endpoint refused them with. */
  readonly reason: string;
  /** Of a request that was refused: its number, that of its first event, and the HTTP status. */
  readonly batch?: number;
  readonly firstSeq?: number;
  readonly status?: number;
}

/** Something did not work. Without a listener, the console says so once for each code. */
export interface Failure {
  /** What: the README lists them. */
  readonly code: string;
  /** The exception, the endpoint's answer, the event's name: whatever explains it. */
  readonly cause?: unknown;
}

export interface Events {
  readonly delivered: Delivered;
  readonly retry: Retry;
  readonly dropped: Dropped;
  readonly error: Failure;
}

/** No method throws. */
export interface Firsthop {
  /** Starts. Calls before it wait for it. */
  load(options: LoadOptions): void;

  /** Something happened. */
  track(event: string, properties?: Properties | null, options?: EventOptions | null, callback?: Callback): void;
  track(event: string, properties: Properties | null | undefined, callback: Callback): void;
  track(event: string, callback: Callback): void;
  track(call: { readonly event: string; readonly properties?: Properties }, options?: EventOptions | Callback, callback?: Callback): void;

  /** A page was seen. URL, title and referrer are told without being named. */
  page(category: string | null, name: string | null, properties?: Properties | null, options?: EventOptions | null, callback?: Callback): void;
  page(category: string | null, name: string | null, properties: Properties | null | undefined, callback: Callback): void;
  page(name: string, properties?: Properties | null, options?: EventOptions | Callback | null, callback?: Callback): void;
  page(properties: Properties, options?: EventOptions | Callback | null, callback?: Callback): void;
  page(name: string, callback: Callback): void;
  page(category: string, name: string, callback: Callback): void;
  page(callback?: Callback): void;

  /** Who the visitor is. Later events say so too, until `reset()`. */
  identify(userId: string | number | null, traits?: Properties | null, options?: EventOptions | Callback | null, callback?: Callback): void;
  identify(traits: Properties, options?: EventOptions | Callback | null, callback?: Callback): void;
  identify(userId: string | number, callback: Callback): void;

  /** Which group the visitor belongs to: a company, a team. */
  group(groupId: string | number, traits?: Properties | null, options?: EventOptions | Callback | null, callback?: Callback): void;
  group(groupId: string | number, callback: Callback): void;

  /** Two ids are one user. Without `previousId`, the id that the visitor has now. */
  alias(userId: string | number, previousId?: string | number | null, options?: EventOptions | Callback | null, callback?: Callback): void;
  alias(userId: string | number, options: EventOptions, callback?: Callback): void;
  alias(userId: string | number, callback: Callback): void;

  /** What the visitor has agreed to. */
  consent(purposes: Consent): void;
  /** Forgets the visitor: a new `anonymousId`, no user id, a new visit. */
  reset(): void;
  /** Sends what waits. Fulfilled when all events so far were acknowledged or given up; never rejected. */
  flush(): Promise<void>;

  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): void;
  off<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): void;
}

export const load: Firsthop['load'];
export const track: Firsthop['track'];
export const page: Firsthop['page'];
export const identify: Firsthop['identify'];
export const group: Firsthop['group'];
export const alias: Firsthop['alias'];
export const consent: Firsthop['consent'];
export const reset: Firsthop['reset'];
export const flush: Firsthop['flush'];
export const on: Firsthop['on'];
export const off: Firsthop['off'];

declare const firsthop: Firsthop;
export default firsthop;
