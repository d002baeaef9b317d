// What becomes of frames: they wait in order, go out one at a time, and stay until the endpoint has said what became of them.
//
// A request that failed is repeated with the same bytes, so that the endpoint can tell a repetition. When the page is left, everything
// goes at once by requests that outlive it; what was not acknowledged stays, in case the page does.

import type { Call, Encoder, Frame, Session } from './encoder.ts';
import type { Reporter } from './reporter.ts';

/** A frame on its way. */
interface Parcel extends Frame {
  attempts: number;
  refusals: number;
  /** A request with it is under way. */
  flying?: boolean;
  /** That request outlives the page. */
  lasting?: boolean;
  /** It left by beacon, from which nothing is heard. */
  beaconed?: boolean;
  /** Fulfilled by `done`, when it was acknowledged or given up. */
  gone?: Promise<void>;
  done?: () => void;
}

/** A receipt, or a problem (RFC 9457): whatever came, as far as it could be read. */
interface Answer {
  source?: string;
  batch?: number;
  stored?: number;
  duplicate?: number;
  conflict?: number;
  session?: Session;
  code?: string;
  detail?: string;
  retryable?: boolean;
}

type Timer = ReturnType<typeof setTimeout> | 0;

const enum Limit {
  /** Requests that outlive a page have 64 KiB between them. A part is left to the page's own. */
  KeepaliveBytes = 60_000,
  RequestMs = 30_000,
  ShortestBackoffMs = 1000,
  LongestBackoffMs = 60_000,
  LongestRetryAfterMs = 300_000,
  /** How often a frame is sent that is refused as damaged, or whose answer is. */
  Refusals = 5,
  SessionMs = 3_600_000,
  /** No more is believed of what one unsigned frame says was given up. */
  Told = 4096,
}

export type Delivery = ReturnType<typeof createDelivery>;

/**
 * @param url where frames are posted
 * @param source the page's id, as receipts write it
 * @param losses how many events were given up and not told yet, and how many of those have no number yet
 */
export function createDelivery(
  encoder: Encoder,
  { emit, fail, guard }: Reporter,
  url: string,
  source: string,
  losses: { untold: number; fresh: number },
  giveUp: (reason: string) => void,
  flushInterval: number,
  maxQueueBytes: number,
) {
  let queue: Parcel[] = [];
  /** The open frame's time has come. */
  let due = false;
  let closing: Timer = 0;
  let pausing: Timer = 0;
  /** How many requests failed since one did not. */
  let failures = 0;
  /** Until when the endpoint asked for peace. */
  let peace = 0;
  /** 0 before the first session. After it, while there is none, never: what an unsigned frame says was given up is not believed then, and waits. */
  let sessionEnds = 0;
  let begun = false;

  const bytes = (parcels: Parcel[]): number => parcels.reduce((sum, parcel) => sum + parcel.bytes.length, 0);
  const flying = (): Parcel[] => queue.filter((parcel) => parcel.flying);

  /** Closes the open frame. */
  const seal = (): void => {
    clearTimeout(closing);
    closing = 0;
    due = false;
    const dropped = Math.min(losses.untold, sessionEnds < Infinity ? Limit.Told : 0);
    const skipped = Math.min(losses.fresh, dropped);
    const frame = encoder.seal(dropped, skipped);
    if (!frame) return;
    losses.untold -= dropped;
    losses.fresh -= skipped;
    const parcel: Parcel = { ...frame, attempts: 0, refusals: 0 };
    parcel.gone = new Promise((done) => (parcel.done = done));
    queue.push(parcel);
  };

  const sign = (session: Partial<Session>): void => {
    const now = Date.now();
    seal();
    // The page's clock may be wrong: an end that has passed is taken for the hour that a session usually lasts.
    const left = session.expires! - now;
    sessionEnds = session.expires ? now + (left > 0 ? left : Limit.SessionMs) : sessionEnds && Infinity;
    encoder.sign(session);
  };

  const remove = (parcel: Parcel): void => {
    queue = queue.filter((other) => other !== parcel);
    parcel.done!();
  };

  const pause = (delay: number): void => {
    clearTimeout(pausing);
    pausing = setTimeout(
      guard(() => {
        pausing = 0;
        next(true);
      }),
      delay,
    );
  };

  /** Sends what is next, unless something is under way or has to wait. Offline, that is tried but now and then: the browser may be wrong. */
  const next = (anyway?: boolean): void => {
    if (pausing || flying().length) return;
    if (due && !queue.length) seal();
    const [parcel] = queue;
    if (!parcel) return;
    if (anyway || navigator.onLine !== false) send(parcel);
    else pause(Limit.LongestBackoffMs);
  };

  /** Whether a request with it may outlive the page. */
  const outlives = (parcel: Parcel): boolean =>
    'keepalive' in Request.prototype && bytes(flying()) + parcel.bytes.length <= Limit.KeepaliveBytes;

  const send = async (parcel: Parcel): Promise<void> => {
    let response: Response | undefined;
    let answer: Answer | undefined;
    try {
      const keepalive = outlives(parcel);
      parcel.flying = true;
      parcel.lasting = keepalive;
      response = await fetch(url, {
        method: 'POST',
        body: parcel.bytes,
        // The browser asks no leave first for text, and takes no cookie along.
        headers: { 'content-type': 'text/plain' },
        credentials: 'omit',
        keepalive,
        signal: AbortSignal.timeout?.(Limit.RequestMs)!,
      });
      answer = await response.json();
    } catch {
      // What is known then is enough to go on.
    }
    parcel.flying = false;
    guard(() => {
      // Another request with the same frame may have been answered before.
      if (queue.includes(parcel)) settle(parcel, response, answer || {});
      next();
    })();
  };

  const settle = (parcel: Parcel, response: Response | undefined, answer: Answer): void => {
    const { batch, firstSeq, count } = parcel;
    const status = response?.status ?? 0;
    const ok = response?.ok;
    if (ok && answer.batch === batch && answer.source === source) {
      failures = 0;
      remove(parcel);
      const { stored = count, duplicate: duplicates = 0, conflict: conflicts = 0, session } = answer;
      emit('delivered', { source, batch, firstSeq, count, stored, duplicates, conflicts });
      if (session) sign(session);
      return;
    }

    failures++;
    const backoff = Math.min(Limit.LongestBackoffMs, Limit.ShortestBackoffMs * 2 ** failures);
    // No answer, too slow, too many, or the endpoint's own trouble: that passes, however often it takes.
    // And a success without its receipt: the answer was damaged, and to ask again does no harm.
    const passing = ok || /^(0|408|429|5(?!01))/.test(`${status}`);
    if ((answer.retryable ?? passing) && (passing || ++parcel.refusals < Limit.Refusals)) {
      const asked = Math.min(Limit.LongestRetryAfterMs, waitOf(response?.headers.get('retry-after')));
      const delay = asked + Math.random() * (asked ? Limit.ShortestBackoffMs : backoff);
      peace = Date.now() + asked;
      pause(delay);
      emit('retry', { batch, attempt: ++parcel.attempts, delay, status });
      return;
    }

    remove(parcel);
    // What was set aside has its outcome there.
    losses.untold += (/quarantined=[1-9]/.test(response!.headers.get('firsthop-receipt')!) ? 0 : count) + parcel.dropped;
    const reason = answer.code ?? `http-${status}`;
    emit('dropped', { count, reason, batch, firstSeq, status });
    fail(reason, answer);
    if (status === 401) sign({});
    pause(Math.random() * backoff);
  };

  return {
    deliver(call: Call): void {
      if (bytes(queue) + encoder.weight() >= maxQueueBytes) return giveUp('queue-full');
      if (sessionEnds && Date.now() > sessionEnds) sign({});
      const reason = encoder.write(call, seal);
      if (reason) {
        giveUp(reason);
        fail(reason, call.name);
      } else {
        closing ||= setTimeout(
          guard(() => {
            due = true;
            next();
          }),
          // A page's first event goes out at once, and brings the session.
          begun ? flushInterval : 0,
        );
        begun = true;
      }
      if (queue.length) next();
    },

    flush(): Promise<unknown> {
      seal();
      next();
      return Promise.all(queue.map((parcel) => parcel.gone));
    },

    /** The page is being left, or hidden, which may be the last that it hears. */
    leave(): void {
      seal();
      for (const parcel of queue) {
        // A request that goes with the page counts for nothing.
        if (parcel.beaconed || (parcel.flying && parcel.lasting)) continue;
        if (outlives(parcel)) send(parcel);
        // One that is refused: the browser takes no more.
        else if (!(parcel.beaconed = navigator.sendBeacon(url, new Blob([parcel.bytes])))) break;
      }
      // If the page stays after all, what no request is under way with goes the ordinary way.
      if (queue.length && !pausing) pause(Limit.ShortestBackoffMs);
    },

    /** The network is back, or the page (`returned`): what was under way when it went may never be answered. */
    resume(returned?: boolean): void {
      if (returned) queue.forEach((parcel) => (parcel.flying = parcel.beaconed = false));
      if (Date.now() < peace) return;
      failures = 0;
      clearTimeout(pausing);
      pausing = 0;
      next();
    },
  };
}

/** Milliseconds that a `Retry-After` asks for, in seconds or as a date. */
const waitOf = (retryAfter: string | null | undefined): number => Math.max(+retryAfter! * 1000 || Date.parse(retryAfter!) - Date.now() || 0, 0);
