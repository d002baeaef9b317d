// One tag on a page, and nothing else: what it sends, what a browser refuses, and what a Content-Security-Policy has to allow. From the
// Worker and from the server, in Chromium. What is refused here is refused by the browser itself.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { launchBrowser } from '../../tools/browser.mjs';
import { Server, startEdge, until } from './parts.mjs';

const DIST = fileURLToPath(new URL('../../bindings/dist', import.meta.url));
const README = fileURLToPath(new URL('../../bindings/README.md', import.meta.url));

/** Pages of this test: each has its HTML and its headers, and there is one script that somebody has changed. */
class Pages {
  static async create() {
    const pages = new Pages();
    const script = await readFile(`${DIST}/firsthop.js`, 'utf8');
    pages.server = http.createServer((request, response) => {
      const shared = { 'access-control-allow-origin': '*' };
      if (request.url === '/sdk/changed.js') return response.writeHead(200, { ...shared, 'content-type': 'text/javascript' }).end(script.replace('firsthop', 'firsth0p'));
      if (request.url === '/favicon.ico') return response.writeHead(204).end();
      response.writeHead(200, { 'content-type': 'text/html', ...(pages.policy && { 'content-security-policy': pages.policy }) }).end(pages.html);
    });
    pages.server.listen(0, '127.0.0.1');
    await once(pages.server, 'listening');
    pages.url = `http://127.0.0.1:${pages.server.address().port}`;
    return pages;
  }

  async dispose() {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }
}

describe('one tag', () => {
  let browser, pages, server, edge, listing;

  before(async () => {
    server = await Server.create({ FIRSTHOP_SDK: DIST });
    [browser, pages, edge] = await Promise.all([launchBrowser(), Pages.create(), startEdge(server)]);
    listing = await (await fetch(`${edge.url}/sdk/integrity.json`)).json();
  });
  after(async () => {
    await browser?.close();
    await pages?.dispose();
    await edge?.dispose();
    await server?.dispose();
  });

  const tag = (src, more) => `<script async src="${src}" ${more} crossorigin="anonymous" data-write-key="${server.writeKey}"></script>`;
  const pinned = (origin, file = listing.files['firsthop.js']) => tag(`${origin}${file.path}`, `integrity="${file.integrity}"`);
  /** The policy of README.md, as a reader would take it over. */
  const documented = async (origin) => {
    const [, policy] = (await readFile(README, 'utf8')).match(/^Content-Security-Policy: (.*)$/m);
    return `default-src 'none'; ${policy.replaceAll('https://edge.example.com', origin)}`;
  };

  /** Opens a page that is nothing but this tag, under this policy. */
  async function open(t, script, policy = '') {
    Object.assign(pages, { html: `<!doctype html><title>Shop</title>${script}<button>Buy</button>`, policy });
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    const said = [];
    page.on('console', (message) => said.push(message.text()));
    page.on('pageerror', (error) => said.push(`${error}`));
    await page.goto(`${pages.url}/`);
    const source = () => page.evaluate(() => new Promise((resolve) => firsthop.on('delivered', ({ source }) => resolve(source))));
    /** It was sent: the page view of its own accord, and a click that the page tells of. */
    const works = async () => {
      await page.waitForFunction(() => window.firsthop);
      await page.evaluate(() => document.querySelector('button').addEventListener('click', () => firsthop.track('Clicked', { what: 'Buy' })));
      const known = source();
      await page.click('button');
      await page.evaluate(() => firsthop.flush());
      const id = await known;
      const rows = await until('a view and a click', () => {
        const rows = server.rows().filter((row) => row.source === id);
        return rows.length >= 2 && rows;
      });
      assert.deepEqual(rows.map(({ seq, kind, name }) => [Number(seq), kind, name]), [[0, 'page', ''], [1, 'track', 'Clicked']]);
      assert.deepEqual(said, [], 'nothing was refused');
    };
    const refused = (pattern) => until(`${pattern} in the console`, () => said.some((text) => pattern.test(text)) && said);
    return { page, said, works, refused };
  }

  for (const whose of ['the Worker', 'the server']) {
    const origin = () => (whose === 'the Worker' ? edge.url : server.url);

    test(`of ${whose}, pinned, under the documented policy: a page view, and a click`, async (t) => {
      const { works } = await open(t, pinned(origin()), await documented(origin()));
      await works();
    });

    test(`of ${whose}, current and by version`, async (t) => {
      for (const path of ['/sdk/firsthop.js', `/sdk/${listing.version}/firsthop.js`]) await (await open(t, tag(`${origin()}${path}`, ''))).works();
    });

    test(`of ${whose}, naming a release that is not there: works unless it is pinned`, async (t) => {
      const gone = '/sdk/0123456789abcdef/firsthop.js';
      await (await open(t, tag(`${origin()}${gone}`, ''))).works();
      const old = await open(t, tag(`${origin()}${gone}`, 'integrity="sha384-OLD0OLD0OLD0OLD0OLD0OLD0OLD0OLD0OLD0OLD0OLD0OLD0OLD0OLD0OLD0OLD0"'));
      await old.refused(/integrity/);
      assert.equal(await old.page.evaluate(() => window.firsthop), undefined);
    });
  }

  test('the server serves every file of the package, the Worker those that pages take', async () => {
    const all = JSON.parse(await readFile(`${DIST}/integrity.json`, 'utf8')).files;
    for (const [name, { path }] of Object.entries(all)) {
      const answer = await fetch(`${server.url}${path}`);
      assert.deepEqual([answer.status, answer.headers.get('cache-control')], [200, 'public, max-age=31536000, immutable'], name);
      assert.deepEqual(Buffer.from(await answer.arrayBuffer()), await readFile(`${DIST}/${name}`));
      assert.equal((await fetch(`${edge.url}${path}`)).status, name in listing.files ? 200 : 404, name);
    }
  });

  test('the two answer alike', async () => {
    const { path } = listing.files['firsthop.js'];
    const names = ['cache-control', 'content-type', 'etag', 'location', 'allow', 'access-control-allow-origin', 'cross-origin-resource-policy', 'x-content-type-options', 'timing-allow-origin'];
    const answer = async (origin, [method, path, headers = {}]) => {
      const { status, headers: said } = await fetch(`${origin}${path}`, { method, headers, redirect: 'manual' });
      return [status, Object.fromEntries(names.map((name) => [name, said.get(name)]))];
    };
    const etag = (await fetch(`${edge.url}${path}`)).headers.get('etag');
    const asked = [
      ['GET', path], ['HEAD', path], ['GET', '/sdk/firsthop.js'], ['GET', '/sdk/firsthop.wasm'], ['GET', path, { 'if-none-match': etag }], ['GET', path, { 'if-none-match': '"other"' }],
      ['GET', '/sdk/0.0.1/firsthop.js'], ['GET', '/sdk/0.0.1/integrity.json'], ['GET', '/sdk/nothing.js'], ['GET', '/sdk/'], ['GET', '/sdk/../Cargo.toml'], ['POST', '/sdk/firsthop.js'], ['DELETE', path],
    ];
    for (const one of asked) assert.deepEqual(await answer(server.url, one), await answer(edge.url, one), one.join(' '));
  });

  test('with a changed byte it is refused by the browser, which says so, and sends nothing', async (t) => {
    const { integrity } = listing.files['firsthop.js'];
    const before = server.rows().length;
    const script = `${tag(`${pages.url}/sdk/changed.js`, `integrity="${integrity}"`).replace('<script', '<script onerror="window.failed = true" data-endpoint="' + edge.url + '"')}`;
    const { page, refused } = await open(t, script);
    await refused(/Failed to find a valid digest in the 'integrity' attribute/);
    await page.waitForFunction(() => window.failed);
    assert.equal(await page.evaluate(() => window.firsthop), undefined);
    assert.equal(server.rows().length, before);
  });

  test('the script may be allowed by its hash or by a nonce, and where trusted types are required', async (t) => {
    const { integrity } = listing.files['firsthop.js'];
    const rest = `'wasm-unsafe-eval'; connect-src ${edge.url}`;
    await (await open(t, pinned(edge.url), `default-src 'none'; script-src '${integrity}' ${rest}; require-trusted-types-for 'script'`)).works();
    await (await open(t, pinned(edge.url).replace('<script', '<script nonce="r4nd0m"'), `default-src 'none'; script-src 'nonce-r4nd0m' 'strict-dynamic' ${rest}`)).works();
  });

  test("without 'wasm-unsafe-eval' the page hears why nothing is sent", async (t) => {
    const policy = (await documented(edge.url)).replace(" 'wasm-unsafe-eval'", '');
    const { refused, page } = await open(t, pinned(edge.url), policy);
    await refused(/^firsthop: wasm CompileError/);
    assert.equal(await page.evaluate(() => typeof firsthop.track), 'function', 'the page goes on');
  });

  test('without script-src for the host, or connect-src for the endpoint, the browser says which is missing', async (t) => {
    const policy = await documented(edge.url);
    const noScript = await open(t, pinned(edge.url), policy.replace(`script-src ${edge.url}`, 'script-src'));
    await noScript.refused(/violates the following Content Security Policy directive: "script-src/);
    const noConnect = await open(t, pinned(edge.url), policy.replace(/connect-src [^;]*/, "connect-src 'none'"));
    await noConnect.refused(/violates the following Content Security Policy directive: "connect-src/);
  });
});
