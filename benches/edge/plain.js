// What the edge is measured against: a Worker that does the same in plain JavaScript, as somebody would write it who knows the platform and
// wants it fast. It reads a JSON batch within bounds, validates it, leaves out what it has seen, notes where the request came from,
// signs what it hands on with WebCrypto, and answers once the server has answered. Nothing in it is slower than it need be: keys are imported once, the
// body is parsed once and written once, a request makes one Response.

const MAX_BODY = 512 * 1024;
const MAX_EVENTS = 300;
const REMEMBERED = 1 << 15;
const TIMEOUT = 10_000;

const CORS = {
  'content-type': 'application/json',
  'access-control-allow-origin': '*',
  'access-control-expose-headers': 'Retry-After',
  'cache-control': 'no-store',
};
const encoder = new TextEncoder();

/** The ids of the last events, oldest first: a Map keeps the order in which it was filled. */
const seen = new Map();
let key;

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname !== '/v1/batch') return refuse(404, 'not-found');
    if (request.method !== 'POST') return refuse(405, 'method-not-allowed');
    if (Number(request.headers.get('content-length')) > MAX_BODY) return refuse(413, 'body-too-large');

    let batch;
    try {
      batch = await request.json();
    } catch {
      return refuse(400, 'bad-json');
    }
    const wrong = check(batch, env);
    if (wrong) return refuse(400, wrong);

    const fresh = batch.events.filter(({ id }) => !seen.has(id));
    const duplicate = batch.events.length - fresh.length;
    if (fresh.length === 0) return Response.json({ stored: 0, duplicate }, { headers: CORS });

    const body = encoder.encode(JSON.stringify({ ...batch, events: fresh, note: note(request) }));
    key ??= await crypto.subtle.importKey('raw', encoder.encode(env.SECRET), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
    const signature = new Uint8Array(await crypto.subtle.sign('HMAC', key, body));
    let answer;
    try {
      answer = await fetch(`${env.UPSTREAM}/v1/batch`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-signature': signature.toHex() },
        body,
        redirect: 'manual',
        signal: AbortSignal.timeout(TIMEOUT),
      });
      if (!(await answer.json()).success) return refuse(503, 'unavailable');
    } catch {
      return refuse(503, 'unavailable');
    }
    for (const { id } of fresh) seen.set(id, true);
    for (const id of seen.keys()) {
      if (seen.size <= REMEMBERED) break;
      seen.delete(id);
    }
    return Response.json({ stored: fresh.length, duplicate }, { headers: CORS });
  },
};

/** What is wrong with a batch, if anything is. */
function check(batch, env) {
  if (typeof batch !== 'object' || batch === null) return 'bad-batch';
  if (batch.writeKey !== env.WRITE_KEY) return 'write-key';
  const { events, context } = batch;
  if (!isText(batch.anonymousId, 256) || !isText(batch.sentAt, 64)) return 'bad-batch';
  if (typeof context !== 'object' || context === null || !isValue(context, 0)) return 'bad-context';
  if (!Array.isArray(events) || events.length === 0 || events.length > MAX_EVENTS) return 'bad-events';
  for (const event of events) {
    if (typeof event !== 'object' || event === null) return 'bad-event';
    const { id, name, offset, properties } = event;
    if (!isText(id, 64) || !isText(name, 256) || !Number.isSafeInteger(offset)) return 'bad-event';
    if (typeof properties !== 'object' || properties === null || !isValue(properties, 0)) return 'bad-properties';
  }
}

const isText = (text, most) => typeof text === 'string' && text.length > 0 && text.length <= most;

/** Whether a value is within bounds; JSON has already made sure of its kind. */
function isValue(value, depth) {
  if (typeof value === 'string') return value.length <= 8192;
  if (typeof value !== 'object' || value === null) return true;
  if (depth === 8) return false;
  for (const name in value) {
    if (name.length > 256 || !isValue(value[name], depth + 1)) return false;
  }
  return true;
}

/** Where the request came from, without an address. */
function note(request) {
  const { country, colo } = request.cf ?? {};
  const address = request.headers.get('cf-connecting-ip') ?? '';
  const agent = request.headers.get('user-agent') ?? '';
  return {
    received: Date.now(),
    country,
    colo,
    network: address.includes(':') ? address.split(':', 3).join(':') : address.slice(0, address.lastIndexOf('.')),
    mobile: request.headers.get('sec-ch-ua-mobile') === '?1' || /Mobi/.test(agent),
    bot: /bot|crawl|spider/i.test(agent),
  };
}

const refuse = (status, code) => Response.json({ code, status }, { status, headers: CORS });
