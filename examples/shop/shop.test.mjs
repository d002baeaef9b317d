// Walks through the shop in Chromium, without an endpoint: is every call made, in order, with the right content?
//
//   node --test examples/shop/     (CHROMIUM_BIN=/path/to/chromium, if it is not where Debian puts it)

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { launchBrowser, servePages } from '../../tools/browser.mjs';
import { difference, visit } from './visit.mjs';

const KEY = 'pk_test';
const TYPED = ['visitor@example.com', 'A Visitor', 'Example Street', '00000', 'Exampletown'];

let pages, browser, origin;

before(async () => {
  pages = await servePages({ '/': fileURLToPath(new URL('.', import.meta.url)) });
  origin = pages.url;
  browser = await launchBrowser();
});

after(async () => {
  await browser?.close();
  await pages?.dispose();
});

/** A page at the shop; what goes wrong on it fails the test that opened it. */
async function open(t, { query = '', sdk, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('request', (request) => {
    if (!request.url().startsWith(origin) && !request.url().startsWith('data:')) problems.push(`asked for ${request.url()}`);
  });
  if (sdk) await page.route('**/sdk/firsthop.js', sdk);
  await page.goto(`${origin}/${query}#/`);
  t.after(() => context.close());
  return { page, problems };
}

/** The stub's queue as `{ type, event, properties }`, without what is not an event. */
const recorded = async (page) =>
  (await page.evaluate(() => Array.from(window.firsthop)))
    .filter(([method]) => ['track', 'page', 'identify'].includes(method))
    .map(([type, first, second]) => (type === 'identify' ? { type, userId: first, traits: second } : { type, event: first, properties: second }));

test('a visit with two orders makes every call, in order, with the right content', async (t) => {
  const { page, problems } = await open(t);
  const expected = await visit(page, { orders: 2 });
  const calls = await recorded(page);

  assert.equal(difference(expected, calls), null);
  assert.deepEqual(problems, []);
  for (const typed of TYPED) assert.ok(!JSON.stringify(calls).includes(typed), `${typed} was sent`);

  const orders = calls.filter(({ event }) => event === 'Order Completed').map(({ properties }) => properties);
  assert.equal(orders.length, 2);
  for (const { total, revenue, shipping, tax } of orders) assert.equal(Math.round((revenue + shipping + tax) * 100), Math.round(total * 100));
  assert.notEqual(orders[0].order_id, orders[1].order_id);
  assert.equal(orders[0].coupon, 'WELCOME10');
  assert.ok(!('coupon' in orders[1]), 'the coupon outlived its order');

  const ids = new Set(calls.filter(({ type }) => type === 'identify').map(({ userId }) => userId));
  assert.equal(ids.size, 1, 'one visitor, one id');
  const checkouts = (event) => calls.filter((c) => c.event === event).map((c) => c.properties.checkout_id);
  assert.equal(new Set(checkouts('Checkout Step Viewed')).size, 2);
  assert.deepEqual([...new Set(checkouts('Checkout Step Viewed'))], checkouts('Order Completed'));
});

test('a visit is stretched to exactly the number of calls asked for', async (t) => {
  const { page } = await open(t);
  const expected = await visit(page, { orders: 1, calls: 120 });
  assert.equal(expected.length, 120);
  assert.equal(difference(expected, await recorded(page)), null);
});

test('the SDK is loaded from the endpoint in the address, which is then clean', async (t) => {
  // Works off the queue and acknowledges each event a moment later, in a batch of its own.
  const sdk = `(() => {
    const queue = window.firsthop, on = {}, api = { calls: [] };
    let seq = 0;
    for (const method of Object.keys(queue).filter((key) => typeof queue[key] === 'function')) api[method] = (...args) => {
      api.calls.push([method, ...args]);
      if (method === 'on') on[args[0]] = args[1];
      if (!['track', 'page', 'identify'].includes(method)) return;
      const receipt = { source: 's', batch: seq, firstSeq: seq++, count: 1, stored: 1, duplicates: 0 };
      setTimeout(() => on.delivered(receipt));
    };
    window.firsthop = api;
    for (const [method, ...args] of queue) api[method](...args);
  })()`;
  const { page, problems } = await open(t, {
    query: `?endpoint=${encodeURIComponent('http://127.0.0.1:8787/')}&writeKey=${KEY}&theme=x`,
    sdk: (route) => route.fulfill({ contentType: 'text/javascript', body: sdk }),
  });
  await page.waitForFunction(() => window.firsthop.calls);
  assert.equal(page.url(), `${origin}/?theme=x#/`);
  assert.deepEqual(problems, ['asked for http://127.0.0.1:8787/sdk/firsthop.js']);
  assert.deepEqual(await page.evaluate(() => window.firsthop.calls[0]), ['load', { endpoint: 'http://127.0.0.1:8787', writeKey: KEY }]);

  await page.getByTestId('drawer-toggle').click();
  await page.getByTestId('add-field-notebook').click();
  await page.getByText('http://127.0.0.1:8787 · 4 stored', { exact: true }).waitFor();
  assert.equal(await page.getByTestId('drawer-list').locator('.fate.delivered').count(), 4);
  const newest = page.getByTestId('drawer-list').locator('li').first();
  assert.match(await newest.innerText(), /track\s+Product Added[\s\S]+"sku": "NK-FN5-MOS"/);
});

test('an endpoint that does not answer is named in the drawer, and the shop still sells', async (t) => {
  const { page } = await open(t, { query: `?endpoint=http://127.0.0.1:8787&writeKey=${KEY}`, sdk: (route) => route.abort('connectionrefused') });
  await page.getByTestId('drawer-toggle').click();
  await page.getByText('could not be loaded from http://127.0.0.1:8787').waitFor();
  await page.getByTestId('drawer-toggle').click();
  const expected = await visit(page, { orders: 1 });
  assert.equal(difference(expected, await recorded(page)), null);
});

test('a form that is not filled in says so and sends nothing', async (t) => {
  const { page } = await open(t);
  await page.getByTestId('add-brass-ruler').click();
  await page.goto(`${origin}/#/checkout/review`);
  await page.getByTestId('continue-contact').click();
  await page.getByText('Please enter an e-mail address, such as').waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), 'email');
  const calls = await recorded(page);
  assert.deepEqual(calls.slice(-3).map(({ event }) => event), ['Checkout Contact', 'Checkout Started', 'Checkout Step Viewed']);
  assert.ok(calls.every(({ type }) => type !== 'identify'));
});

test('the basket outlives a reload, and nothing is tracked twice by it', async (t) => {
  const { page } = await open(t);
  await page.getByTestId('add-brass-ruler').click();
  await page.reload();
  assert.equal(await page.getByTestId('basket-count').innerText(), '1');
  assert.deepEqual((await recorded(page)).map(({ event }) => event), ['Home', 'Promotion Viewed', 'Product List Viewed']);
});

test('text from the address is shown as text', async (t) => {
  const { page } = await open(t);
  await page.goto(`${origin}/#/search?q=${encodeURIComponent('<img src=x onerror="document.title=1">')}`);
  await page.getByRole('heading', { level: 1, name: '<img src=x' }).waitFor();
  assert.equal(await page.locator('main img').count(), 0);
});

for (const width of [320, 390, 820, 1280]) {
  test(`no view is wider than a screen of ${width} pixels`, async (t) => {
    const { page } = await open(t, { viewport: { width, height: 844 } });
    await page.getByTestId('add-pocket-notebooks').click();
    for (const path of ['/', '/category/desk', '/product/graphite-pencils', '/search?q=zzz', '/basket', '/checkout/contact']) {
      await page.goto(`${origin}/#${path}`);
      await page.locator(`main[data-path="${path.split('?')[0]}"]`).waitFor();
      const { content, screen } = await page.evaluate(() => ({ content: document.documentElement.scrollWidth, screen: innerWidth }));
      assert.ok(content <= screen, `${path}: ${content} > ${screen}`);
    }
  });
}
