// The crossing: all that this Worker asks of the platform for an ordinary request.
//
// A call from WebAssembly into JavaScript is cheap, but what is handed over is not: every text is encoded or decoded, every promise
// that Rust awaits by itself costs two closures and a microtask. With a call for each header they cost more than reading, checking and signing a
// frame. So a request crosses four times, however much is known of it: its head as one text, its body as one block, the server's answer, and ours.
// What is the same for each request is made once.

/** For worker.js, which is put around the module that this is linked into. */
export const shared = () => ({ takeAwaited, WOKEN });

/** What is read of a request: names of headers and of Cloudflare's facts. Rust says which (`arrival.rs`). */
let wanted = { headers: [], facts: [] };

/** How often Rust was started in this isolate: after a failure it starts anew, and numbers its tasks from the beginning. */
let started = 0;

export function want(headers, facts) {
  // What was under way is not known to the new instance.
  sleeping.clear();
  rooms.clear();
  networks.clear();
  held = 0;
  wanted = { headers: headers.split('\n'), facts: facts.split('\n') };
  return started++;
}

/** What stands for a header or a fact that is not there. */
const NONE = '\0';

const encoder = new TextEncoder();

/**
 * Writes a request's head into Rust's memory: method, URL, headers and facts, one line each. No header can hold a line break; a fact that does is none.
 * Returns how long it is; where there is less room, as much as is enough.
 */
export function head(request, room) {
  const { headers, cf } = request;
  let text = `${request.method}\n${request.url}`;
  for (const name of wanted.headers) text += `\n${headers.get(name) ?? NONE}`;
  for (const name of wanted.facts) {
    const fact = cf?.[name];
    text += `\n${fact === undefined || fact === null || `${fact}`.includes('\n') ? NONE : fact}`;
  }
  const { read, written } = encoder.encodeInto(text, room);
  // A character is three bytes at most for each of its parts in JavaScript.
  return read === text.length ? written : 3 * text.length;
}

/** What the step of a request that is just being taken waits for: see src/steps.rs. */
let awaited;
/** How to wake tasks that wait for something else as well, by their numbers. */
const sleeping = new Map();

export function wait(promise) {
  awaited = promise;
}

export function sleep(task, now) {
  const woken = new Promise((resolve) => (now ? resolve(WOKEN) : sleeping.set(task, resolve)));
  awaited = awaited ? Promise.race([awaited, woken]) : woken;
}

export function wake(task) {
  sleeping.get(task)?.(WOKEN);
  sleeping.delete(task);
}

/** What is awaited is fulfilled with this where the task was woken. */
const WOKEN = Symbol('woken');

function takeAwaited() {
  const promise = awaited;
  awaited = undefined;
  return promise;
}

/** What can be wrong with a body: the numbers stand in glue.rs as well. */
const [TOO_LARGE, BROKEN, LATE, FULL] = [1, 2, 3, 4];

/** Bytes that the bodies of all requests under way may have together. */
const ROOM = 24 * 1024 * 1024;
/** A body of at most so many bytes is read all at once. Those that are larger get half of the room, so that they leave some to those that are not. */
const SMALL = 64 * 1024;
/** The room that a body begins with which is larger, or does not say its length. */
const FIRST = 16 * 1024;

/** Those that come from one network get so much, so that one who sends slowly takes the room of no other. */
const PART = ROOM / 4;

/** What each request under way has of the room, by its number; what those of each network have; and all of them. */
const rooms = new Map();
const networks = new Map();
let held = 0;

/** Takes room for a request, until it is given back. Not for number 0, which is ours. Whoever has given up gets none. */
function take(number, bytes) {
  if (number === 0) return true;
  const mine = rooms.get(number);
  if (!mine || !(bytes >= 0) || held + bytes > (mine.bytes + bytes > SMALL ? ROOM / 2 : ROOM)) return false;
  if (mine.network) {
    const theirs = (networks.get(mine.network) ?? 0) + bytes;
    if (theirs > PART) return false;
    networks.set(mine.network, theirs);
  }
  mine.bytes += bytes;
  held += bytes;
  return true;
}

/** Gives back what a request had. */
export function give(number) {
  const mine = rooms.get(number);
  if (!mine) return;
  rooms.delete(number);
  held -= mine.bytes;
  if (!mine.network) return;
  const theirs = networks.get(mine.network) - mine.bytes;
  if (theirs > 0) networks.set(mine.network, theirs);
  else networks.delete(mine.network);
}

/** A request's body: the bytes, or what was wrong with it. What it takes is given back by the request's number; its network is a number too, or 0. */
export function body(request, number, network, most, limit) {
  if (number) rooms.set(number, { network, bytes: 0 });
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, limit, LATE);
    read(request, number, most).then((bytes) => {
      clearTimeout(timer);
      resolve(bytes);
    });
  });
}

/** Reads a body of at most so many bytes: of one that says its length, all at once; of another, up to there. */
async function read(message, number, most) {
  const { headers } = message;
  const length = headers.get('content-length');
  if (length > most) return TOO_LARGE;
  try {
    // A length that holds, unless it is that of what is unpacked on the way.
    if (length !== null && (length <= SMALL || !number) && !headers.has('content-encoding')) {
      return take(number, Number(length)) ? new Uint8Array(await message.arrayBuffer()) : FULL;
    }
    // One buffer, however small the pieces are, and no larger than what has come warrants: who sends slowly, or nothing, takes no room for it.
    let whole = new Uint8Array(FIRST);
    if (!take(number, FIRST)) return FULL;
    let total = 0;
    for await (const chunk of message.body ?? []) {
      // Whoever waited for it does not any more.
      if (number && !rooms.has(number)) return LATE;
      const before = total;
      total += chunk.length;
      // To leave the loop turns the rest of the body away.
      if (total > most) return TOO_LARGE;
      if (total > whole.length) {
        const larger = new Uint8Array(Math.min(most, Math.max(total, 2 * whole.length)));
        if (!take(number, larger.length - whole.length)) return FULL;
        larger.set(whole.subarray(0, before));
        whole = larger;
      }
      whole.set(chunk, before);
    }
    return whole.subarray(0, total);
  } catch {
    return BROKEN;
  }
}

/** The platform's key for HMAC-SHA256: it has that in machine code. Ours is some times slower, and here sooner for what is short. */
export const hmacKey = (secret) => crypto.subtle.importKey('raw', secret.slice(), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);

/** HMAC-SHA256 of bytes as they are now: the platform reads them before it returns. */
export const hmac = (key, message) => crypto.subtle.sign('HMAC', key, message);

/** What is kept or sent later must not stand in Rust's memory, which is used for something else by then. Bytes that fill their own stay where they are. */
const kept = (bytes) => (bytes && bytes.byteLength < bytes.buffer.byteLength ? bytes.slice() : bytes);

/** Name and value in turn. */
function pairs(lines) {
  const headers = {};
  for (let i = 0; i + 1 < lines.length; i += 2) headers[lines[i]] = lines[i + 1];
  return headers;
}

/** URL and headers. */
function headed(head) {
  const [url, ...lines] = head.split('\n');
  return { url, headers: pairs(lines) };
}

/** The same to be kept. Headers that are the platform's already it copies from one request to the next, and looks at no text again. */
function keptHead(head) {
  const { url, headers } = headed(head);
  return { url, headers: new Headers(headers) };
}

/** The head of the last request of our own, and the headers of our last answer: Rust says them only where they are others (`Last` in upstream.rs). */
let posted;
let answered;

/** What came back. Headers are looked at when they are wanted: most answers are wanted for their body alone. */
class Answer {
  constructor({ status, headers }, bytes) {
    this.status = status;
    this.headers = headers;
    this.bytes = bytes;
  }

  get media() {
    return this.headers.get('content-type');
  }

  get retryAfter() {
    return this.headers.get('retry-after');
  }

  get verdict() {
    return this.headers.get('firsthop-receipt');
  }
}

/** Posts to the network, or to a Durable Object: see `exchange`. */
export function post(whom, head, body, limit, most) {
  if (head !== undefined) posted = keptHead(head);
  return exchange(whom, posted, body, limit, most);
}

/** The same, and nothing of it is kept: what is passed on says whose it is. */
export const passOn = (head, body, limit, most) => exchange(undefined, headed(head), body, limit, most);

/**
 * Posts, and reads an answer of at most so many bytes. Nothing if nobody could be reached, it took longer than the limit, or they answered at greater
 * length. Redirects are not followed: a request goes to the host that it names.
 */
async function exchange(whom = globalThis, { url, headers }, body, limit, most) {
  try {
    const answer = await whom.fetch(url, {
      method: 'POST',
      redirect: 'manual',
      headers,
      body: kept(body),
      signal: AbortSignal.timeout(limit),
    });
    const bytes = await read(answer, 0, most);
    return typeof bytes === 'number' ? undefined : new Answer(answer, bytes);
  } catch {
    return undefined;
  }
}

/** What was deflated. */
export async function inflate(deflated) {
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Our answer; its body is a text, or bytes. */
export function respond(status, head, body) {
  if (head !== undefined) answered = new Headers(pairs(head.split('\n')));
  return new Response(typeof body === 'string' ? body : kept(body), { status, headers: answered });
}
