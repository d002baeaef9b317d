// The builds that ship, in Chromium, against an endpoint of another origin.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';

import { launchBrowser } from '../../tools/browser.mjs';
import { GRANT, SECRET, WRITE_KEY } from './support/page.mjs';
import { decode, regionKey, signedWith } from './support/wire.mjs';

const dist = new URL('../dist/', import.meta.url);
const TYPES = { js: 'text/javascript', mjs: 'text/javascript', wasm: 'application/wasm' };

// The snippet of README.md, as a reader would paste it.
const [, SNIPPET] = readFileSync(new URL('../README.md', import.meta.url), 'utf8').match(/<script>\n([^]*?)firsthop\.load\(/);

let browser, shop, edge;

/** Stands for edge or server: takes frames, gives receipts, and hands out the SDK. */
class Edge {
  requests = [];
  methods = [];
  /** How long an answer takes. */
  delay = 0;
  status = 200;

  async listen() {
    this.server = createServer((request, response) => this.handle(request, response));
    await new Promise((done) => this.server.listen(0, '127.0.0.1', done));
    this.origin = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  async handle(request, response) {
    const headers = { 'access-control-allow-origin': '*', 'access-control-expose-headers': 'Retry-After', 'cache-control': 'no-store' };
    // From `/npm/` as from one of the hosts that serve what npm has.
    const [, file] = request.url.match(/^\/(?:sdk|npm)\/([\w.-]+)$/) ?? [];
    if (file) return response.writeHead(200, { ...headers, 'content-type': TYPES[file.split('.').pop()] }).end(readFileSync(new URL(file, dist)));
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    this.methods.push(request.method);
    if (request.method !== 'POST') return response.writeHead(204, headers).end();
    const bytes = Buffer.concat(chunks);
    const frame = decode(bytes);
    this.requests.push({ bytes, frame, headers: request.headers, url: request.url });
    if (this.delay) await new Promise((resolve) => setTimeout(resolve, this.delay));
    const { source, batch, firstSeq: first, count, trust } = frame;
    const session = { alg: 1, keyId: 7, epoch: 492222, region: 'EU', grant: GRANT.toString('base64'), secret: SECRET.toString('base64'), expires: Date.now() + 3_600_000 };
    const body = { source, batch, first, count, stored: count, duplicate: 0, conflict: 0, ...(trust ? {} : { session }) };
    response.writeHead(this.status, { ...headers, 'content-type': 'application/json' }).end(JSON.stringify(this.status === 200 ? body : { status: this.status, code: 'unavailable', retryable: true }));
  }

  /** The events of one source, each once, in order. */
  events() {
    return [...new Map(this.requests.flatMap(({ frame }) => frame.events).map((event) => [event.seq, event])).values()].sort((a, b) => a.seq - b.seq);
  }

  async until(what, limit = 60_000) {
    for (const end = Date.now() + limit; !what(); ) {
      if (Date.now() > end) throw new Error(`never came: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** What the sealed build is given besides: a key that is in force, and one that will be. */
const SEALED = `, region: 'EU', regionKeys: ${JSON.stringify([regionKey(5, 0), regionKey(6, 4e12)])}`;

const HTML = {
  script: (file = 'firsthop.js', more = '') => `<!doctype html><title>Shop</title>
    <script>${SNIPPET}firsthop.load({ endpoint: '${edge.origin}', writeKey: '${WRITE_KEY}'${more} }); firsthop.page('Home');</script>
    <script async src="${edge.origin}/sdk/${file}"></script>`,
  module: (file, more = '') => `<!doctype html><title>Shop</title>
    <script type="module">
      import firsthop, { load, track, flush } from '${edge.origin}/sdk/${file}';
      load({ endpoint: '${edge.origin}', writeKey: '${WRITE_KEY}'${more} });
      firsthop.page('Home');
      window.firsthop = firsthop;
      window.same = firsthop.track === track && firsthop.flush === flush;
    </script>`,
};

before(async () => {
  edge = await new Edge().listen();
  shop = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://shop');
    const headers = { 'content-type': 'text/html', 'set-cookie': 'shop=1' };
    const csp = searchParams.get('csp');
    if (csp) headers['content-security-policy'] = csp;
    const html = { '/script': () => HTML.script(), '/module': () => HTML.module('firsthop.mjs'), '/inline': () => HTML.module('firsthop.inline.mjs'), '/sealed': () => HTML.script('firsthop-sealed.js', SEALED), '/sealed-module': () => HTML.module('firsthop-sealed.mjs', SEALED), '/bare': () => '<!doctype html><title>Bare</title>' }[pathname];
    response.writeHead(html ? 200 : 404, headers).end(html?.() ?? '');
  });
  await new Promise((done) => shop.listen(0, '127.0.0.1', done));
  shop.origin = `http://127.0.0.1:${shop.address().port}`;
  browser = await launchBrowser();
});

after(async () => {
  await browser?.close();
  shop?.close();
  edge?.server.close();
});

async function visit(t, path, { wait = true, from = browser } = {}) {
  Object.assign(edge, { requests: [], methods: [], delay: 0, status: 200 });
  const context = await from.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const problems = [];
  page.on('pageerror', (error) => problems.push(error));
  await page.goto(`${shop.origin}${path}`);
  if (wait) await edge.until(() => edge.requests.length > 0);
  return { context, page, problems };
}

/** A page that was told to go to the bare one is there. To close a context in the middle of that now and then never ends in Chromium. */
const arrival = (page) => page.waitForURL(`${shop.origin}/bare`);

for (const path of ['/script', '/module', '/inline', '/sealed', '/sealed-module']) {
  test(`${path}: from a call to a frame, signed from the second on`, async (t) => {
    const { page, problems } = await visit(t, path);
    await page.evaluate(async () => {
      await firsthop.flush();
      for (let i = 0; i < 200; i++) firsthop.track('Product Viewed', { i, name: 'Tasse № 1 🍵', price: 18.99, tags: ['a', null], at: new Date(0) });
      await firsthop.flush();
    });
    const events = edge.events();
    assert.deepEqual(events.map(({ seq, kind, name }) => [seq, kind, name]), [[0, 'page', 'Home'], ...Array.from({ length: 200 }, (_, i) => [i + 1, 'track', 'Product Viewed'])]);
    assert.deepEqual(events[7].properties, { i: 6, name: 'Tasse № 1 🍵', price: 18.99, tags: ['a', null], at: '1970-01-01T00:00:00.000Z' });
    const { url, title, screen, locale } = events[0].context;
    assert.deepEqual({ url, title, screen, locale }, { url: `${shop.origin}${path}`, title: 'Shop', screen: { width: 1280, height: 720 }, locale: 'en-US' });
    assert.equal(edge.requests[0].frame.writeKey, WRITE_KEY);
    assert.ok(edge.requests.slice(1).every(({ bytes }) => signedWith(bytes, SECRET)) && edge.requests.length > 1);
    for (const { headers, url } of edge.requests) assert.deepEqual([url, headers['content-type'], headers.cookie, headers.origin], ['/v1/f', 'text/plain', undefined, shop.origin]);
    const key = path.startsWith('/sealed') ? 5 : undefined;
    for (const { bytes, frame } of edge.requests) assert.deepEqual([frame.sealedTo, bytes.includes('Home') || bytes.includes('Product')], [key, !key]);
    assert.ok(edge.methods.every((method) => method === 'POST'), 'no preflight');
    assert.deepEqual(problems, []);
    assert.equal(await page.evaluate(() => window.same ?? true), true);
  });
}

test('what a page tracks before the script has come arrives, and whoever kept the snippet is heard', async (t) => {
  const { page } = await visit(t, '/bare', { wait: false });
  await page.evaluate(async ({ snippet, endpoint, writeKey }) => {
    new Function(snippet)();
    window.kept = firsthop;
    firsthop.load({ endpoint, writeKey });
    firsthop.track('early', { n: 1 });
    window.called = Date.now();
    // A page that moves on before the script is there.
    while (Date.now() < called + 20);
    history.pushState(null, '', '/bare#elsewhere');
    document.title = 'Elsewhere';
    const script = document.createElement('script');
    script.src = `${endpoint}/sdk/firsthop.js`;
    await new Promise((resolve) => {
      script.onload = resolve;
      document.head.append(script);
    });
    kept.track('through the snippet');
    kept.push(['track', 'pushed', { n: 2 }], null, [], ['no such method'], 7);
    firsthop.push(['track', 'pushed too']);
    const again = firsthop;
    await new Promise((resolve) => {
      const second = document.createElement('script');
      second.src = script.src;
      second.onload = resolve;
      document.head.append(second);
    });
    window.replaced = firsthop !== again;
    await firsthop.flush();
  }, { snippet: SNIPPET, endpoint: edge.origin, writeKey: WRITE_KEY });
  assert.deepEqual(edge.events().map(({ name }) => name), ['early', 'through the snippet', 'pushed', 'pushed too']);
  assert.equal(await page.evaluate(() => window.replaced), false, 'the second script changes nothing');
  const [early, ...later] = edge.events();
  const place = ({ context: { url, title } }) => [url, title];
  assert.deepEqual(place(early), [`${shop.origin}/bare`, 'Bare'], 'where it was called');
  assert.ok(early.time <= (await page.evaluate(() => called)), 'when it was called');
  for (const event of later) assert.deepEqual(place(event), [`${shop.origin}/bare#elsewhere`, 'Elsewhere']);
});

/** Puts a tag that says all itself on a page, and waits until it has run. */
const putTag = (page, src, data = {}) =>
  page.evaluate(({ src, data }) => {
    const tag = Object.assign(document.createElement('script'), { src });
    Object.assign(tag.dataset, data);
    document.head.append(tag);
    return new Promise((resolve) => (tag.onload = resolve));
  }, { src, data: { writeKey: WRITE_KEY, ...data } });

for (const [what, path, endpoint, error] of [
  ['from /sdk/ sends to where it came from', '/sdk/firsthop.js', false],
  ['from elsewhere sends to nobody, and says so', '/npm/firsthop.js', false, 'endpoint'],
  ['from elsewhere sends to where it says', '/npm/firsthop.js', true],
]) {
  test(`a tag ${what}`, async (t) => {
    const { page } = await visit(t, '/bare', { wait: false });
    const said = [];
    page.on('console', (message) => said.push(message.text()));
    await putTag(page, `${edge.origin}${path}`, endpoint ? { endpoint: edge.origin } : {});
    await page.evaluate(() => firsthop.flush());
    if (error) await edge.until(() => said.some((text) => text.startsWith(`firsthop: ${error}`)));
    else assert.deepEqual(said, []);
    assert.deepEqual([edge.events().map(({ kind }) => kind), edge.methods], error ? [[], []] : [['page'], ['POST']]);
  });
}

test('a tag follows Global Privacy Control unless it says false', async (t) => {
  for (const [gpc, purposes] of [[undefined, 0b0011], ['', 0b0011], ['true', 0b0011], ['false', 0b1011]]) {
    const { page } = await visit(t, '/bare', { wait: false });
    await page.evaluate(() => Object.defineProperty(navigator, 'globalPrivacyControl', { value: true }));
    await putTag(page, `${edge.origin}/sdk/firsthop.js`, gpc === undefined ? {} : { gpc });
    await page.evaluate(() => {
      firsthop.consent({ analytics: true, marketing: true });
      firsthop.track('Agreed');
      return firsthop.flush();
    });
    const { frame } = edge.requests.find(({ frame }) => frame.events.some(({ name }) => name === 'Agreed'));
    assert.equal(frame.consent, purposes, `data-gpc: ${gpc}`);
  }
});

test('a page that goes to another sends what it had', async (t) => {
  const { page } = await visit(t, '/script');
  await page.evaluate(() => firsthop.flush());
  edge.delay = 300;
  await page.evaluate((bare) => {
    for (let i = 0; i < 100; i++) firsthop.track('last words', { i });
    addEventListener('pagehide', () => firsthop.track('page hides'));
    document.addEventListener('visibilitychange', () => firsthop.track('visibility changes'));
    location.href = bare;
  }, `${shop.origin}/bare`);
  await arrival(page);
  await edge.until(() => edge.events().length >= 103);
  assert.deepEqual(edge.events().slice(1).map(({ name }) => name), [...Array(100).fill('last words'), 'page hides', 'visibility changes']);
});

test('a tab that is closed sends what it had, a request under way included', async (t) => {
  const { page } = await visit(t, '/script');
  await page.evaluate(() => firsthop.flush());
  edge.delay = 500;
  await page.evaluate(() => {
    firsthop.track('under way');
    void firsthop.flush();
    for (let i = 0; i < 50; i++) firsthop.track('queued', { i });
  });
  const closed = page.waitForEvent('close');
  await page.close({ runBeforeUnload: true });
  await closed;
  await edge.until(() => edge.events().length >= 52);
  assert.equal(edge.events().length, 52);
});

test('some 60 KB leave with the page', async (t) => {
  const { page } = await visit(t, '/script');
  await page.evaluate(() => firsthop.flush());
  edge.delay = 1000;
  const sent = await page.evaluate((bare) => {
    const text = 'x'.repeat(1000);
    for (let i = 0; i < 52; i++) firsthop.track('bulk', { i, text });
    location.href = bare;
    return 52;
  }, `${shop.origin}/bare`);
  await arrival(page);
  await edge.until(() => edge.events().length >= sent + 1);
});

test('back to a page that the browser no longer has: it begins anew', async (t) => {
  const { page } = await visit(t, '/script');
  await page.evaluate(() => firsthop.flush());
  await page.evaluate(() => void firsthop.track('before'));
  await page.goto(`${shop.origin}/bare`);
  await page.goBack();
  await edge.until(() => edge.events().some(({ name }) => name === 'before'));
  const before = edge.requests.length;
  await page.evaluate(() => {
    firsthop.track('after');
    return firsthop.flush();
  });
  assert.ok(edge.requests.length > before);
});

test('back to a page from the back/forward cache: it goes on where it was', async (t) => {
  // The driver turns that cache off unless told otherwise.
  const caching = await launchBrowser({ ignoreDefaultArgs: ['--disable-back-forward-cache'] });
  t.after(() => caching.close());
  const { page, problems } = await visit(t, '/script', { from: caching });
  await page.evaluate(async () => {
    await firsthop.flush();
    addEventListener('pageshow', ({ persisted }) => firsthop.track(persisted ? 'back' : 'anew'));
    firsthop.track('before');
  });
  await page.goto(`${shop.origin}/bare`);
  await edge.until(() => edge.events().some(({ name }) => name === 'before'));
  // Not by the driver: it waits for a load, and there is none.
  await page.evaluate(() => void setTimeout(() => history.back()));
  await edge.until(() => edge.events().some(({ name }) => name === 'back'));
  assert.equal(new Set(edge.requests.map(({ frame }) => frame.source)).size, 1, 'the same source');
  assert.deepEqual(edge.events().map(({ seq, name }) => [seq, name]), [[0, 'Home'], [1, 'before'], [2, 'back']]);
  assert.deepEqual(problems, []);
});

test('offline and online again', async (t) => {
  const { page, context } = await visit(t, '/script');
  await page.evaluate(() => firsthop.flush());
  await context.setOffline(true);
  await page.evaluate(() => {
    for (let i = 0; i < 20; i++) firsthop.track('offline', { i });
  });
  await page.waitForTimeout(1500);
  assert.equal(edge.events().length, 1);
  await context.setOffline(false);
  await edge.until(() => edge.events().length === 21);
});

test('an endpoint that is down for a while', async (t) => {
  const { page } = await visit(t, '/script');
  await page.evaluate(() => firsthop.flush());
  edge.status = 503;
  await page.evaluate(() => {
    firsthop.on('retry', (retry) => (window.retried = retry));
    firsthop.track('patient');
    void firsthop.flush();
  });
  await page.waitForFunction(() => window.retried);
  edge.status = 200;
  await page.evaluate(() => firsthop.flush());
  const [{ status, attempt }] = [await page.evaluate(() => window.retried)];
  assert.deepEqual([status, attempt >= 1], [503, true]);
  assert.equal(edge.events().length, 2);
});

test('under a Content-Security-Policy with wasm-unsafe-eval', async (t) => {
  const policy = `default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' ${edge.origin}; connect-src ${edge.origin}`;
  for (const path of ['/script', '/module', '/inline']) {
    const { page, problems } = await visit(t, `${path}?csp=${encodeURIComponent(policy)}`);
    await page.evaluate(() => firsthop.flush());
    assert.deepEqual(problems, []);
    assert.equal(edge.events().length, 1, path);
  }
});

test('under one without it, the page hears why nothing is sent, and nothing else happens', async (t) => {
  const policy = `default-src 'none'; script-src 'unsafe-inline' ${edge.origin}; connect-src ${edge.origin}`;
  const { page, problems } = await visit(t, `/script?csp=${encodeURIComponent(policy)}`, { wait: false });
  const heard = await page.evaluate(() => new Promise((resolve) => firsthop.on('error', ({ code, cause }) => resolve([code, `${cause}`]))));
  assert.equal(heard[0], 'wasm');
  assert.match(heard[1], /CompileError/);
  assert.deepEqual(problems, []);
  assert.equal(edge.requests.length, 0);
});

test('tracking does not hold up the page', async (t) => {
  const { page } = await visit(t, '/script');
  const { longest, total } = await page.evaluate(() => {
    const event = (i) => ({ product_id: '507f1f77bcf86cd799439011', sku: 'G-32', category: 'Games', name: 'Monopoly: 3rd Edition', price: 18.99, quantity: i, in_stock: true });
    // The best of some rounds: what else the machine does in the meantime says nothing of the SDK.
    const best = { longest: Infinity, total: Infinity };
    for (let round = 0; round < 5; round++) {
      let longest = 0;
      const begin = performance.now();
      for (let i = 0; i < 2000; i++) {
        const before = performance.now();
        firsthop.track('Product Viewed', event(i));
        longest = Math.max(longest, performance.now() - before);
      }
      best.longest = Math.min(best.longest, longest);
      best.total = Math.min(best.total, performance.now() - begin);
    }
    return best;
  });
  assert.ok(longest < 50, `${longest} ms at most`);
  assert.ok(total / 2000 < 0.1, `${total / 2000} ms each`);
});
