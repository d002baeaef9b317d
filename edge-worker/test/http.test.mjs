// What the Worker answers besides frames: the SDK, routes, methods, CORS, health, and a Worker that is not set up.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { isProblem, pair } from './pair.mjs';
import { Tenant, newSource } from './server.mjs';
import { until } from './wait.mjs';
import { startWorker } from './worker.mjs';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const VERSION = readFileSync(`${ROOT}/Cargo.toml`, 'utf8').match(/^version = "(.*)"/m)[1];
const DIST = `${ROOT}/bindings/dist`;
const INTEGRITY = JSON.parse(readFileSync(`${DIST}/integrity.json`));
const tenant = new Tenant(0xc8);
const { server, edge } = await pair({ tenants: [tenant] });

const get = (path, options = {}) => fetch(`${edge.url}${path}`, { redirect: 'manual', ...options });

describe('the SDK', () => {
  // What bundlers have from npm is not served.
  const files = readdirSync(DIST).filter((name) => /\.(m?js|wasm)$/.test(name) && !['firsthop-sealed.mjs', 'firsthop.inline.mjs'].includes(name));

  const SHORT = /^public, max-age=300, stale-while-revalidate=\d+$/;
  const FOREVER = /^public, max-age=31536000, immutable$/;

  test('is what was built', () => {
    assert.ok(files.includes('firsthop.js'), `bindings/dist holds ${files}`);
  });

  for (const name of files) {
    test(`/sdk/${name}`, async () => {
      for (const [path, caching] of [[`/sdk/${name}`, SHORT], [`/sdk/${VERSION}/${name}`, SHORT], [INTEGRITY.files[name].path, FOREVER]]) {
        const answer = await get(path);
        assert.equal(answer.status, 200);
        assert.equal(answer.headers.get('content-type'), name.endsWith('wasm') ? 'application/wasm' : 'text/javascript; charset=utf-8');
        assert.match(answer.headers.get('cache-control'), caching);
        assert.equal(answer.headers.get('access-control-allow-origin'), '*');
        assert.equal(answer.headers.get('cross-origin-resource-policy'), 'cross-origin');
        assert.equal(answer.headers.get('x-content-type-options'), 'nosniff');
        assert.deepEqual(Buffer.from(await answer.arrayBuffer()), readFileSync(`${DIST}/${name}`));

        const etag = answer.headers.get('etag');
        assert.match(etag, /^"[0-9a-f]{16}"$/);
        for (const known of [etag, `W/${etag}`, `"other", ${etag}`]) {
          const again = await get(path, { headers: { 'if-none-match': known } });
          assert.equal(again.status, 304, known);
          assert.equal(again.headers.get('etag'), etag);
          assert.match(again.headers.get('cache-control'), caching);
          assert.equal((await again.arrayBuffer()).byteLength, 0);
        }
        assert.equal((await get(path, { headers: { 'if-none-match': '"other"' } })).status, 200);
      }
    });
  }

  test('its listing has the integrity of all that is served, and of nothing else', async () => {
    for (const [path, caching] of [['/sdk/integrity.json', SHORT], [`/sdk/${VERSION}/integrity.json`, SHORT], [`/sdk/${INTEGRITY.build}/integrity.json`, FOREVER]]) {
      const answer = await get(path);
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get('content-type'), 'application/json');
      assert.equal(answer.headers.get('access-control-allow-origin'), '*');
      assert.match(answer.headers.get('cache-control'), caching);
      const { version, build, files: listed } = await answer.json();
      assert.deepEqual([version, build, Object.keys(listed).sort()], [VERSION, INTEGRITY.build, files.sort()]);
      for (const [name, { path, integrity, size }] of Object.entries(listed)) {
        const bytes = Buffer.from(await (await get(path)).arrayBuffer());
        assert.deepEqual([integrity, size], [`sha384-${createHash('sha384').update(bytes).digest('base64')}`, bytes.length], name);
      }
    }
  });

  test('of another release leads to this one', async () => {
    for (const version of ['0.0.1', '12.34.56', '1.0.0-rc.1', '0123456789abcdef']) {
      const answer = await get(`/sdk/${version}/firsthop.js`);
      assert.equal(answer.status, 307, version);
      assert.equal(answer.headers.get('location'), '/sdk/firsthop.js');
      assert.equal(answer.headers.get('access-control-allow-origin'), '*');
    }
  });

  test('is nothing else', async () => {
    for (const path of ['/sdk/', '/sdk/firsthop.js/', '/sdk/nothing.js', '/sdk/1/firsthop.js', '/sdk/1.2.3/nothing.js', '/sdk/1.2.3/4/firsthop.js', '/sdk/a.b.c/firsthop.js', '/sdk/1.2.3-/firsthop.js', '/sdk/0123456789ABCDEF/firsthop.js', '/sdk/0.0.1/integrity.json', '/sdk/package.json', '/sdk/sizes.json', '/sdk/..%2fwrangler.toml', '/sdk//firsthop.js']) {
      await isProblem(await get(path), 404, 'not-found');
    }
  });

  test('is read, not written', async () => {
    const head = await get('/sdk/firsthop.js', { method: 'HEAD' });
    assert.equal(head.status, 200);
    assert.equal((await head.arrayBuffer()).byteLength, 0);
    const answer = await get('/sdk/firsthop.js', { method: 'POST', body: 'x' });
    assert.equal(answer.headers.get('allow'), 'GET, HEAD');
    await isProblem(answer, 405, 'method-not-allowed');
  });
});

describe('routes', () => {
  test('livez says that it is alive, and in which version', async () => {
    const answer = await get('/livez');
    assert.equal(answer.status, 200);
    assert.deepEqual(await answer.json(), { status: 'ok', version: VERSION });
  });

  for (const path of ['/v1/f', '/v1/track', '/v1/b']) {
    test(`${path}: a preflight is granted`, async () => {
      const answer = await get(path, { method: 'OPTIONS', headers: { origin: 'https://shop.example', 'access-control-request-method': 'POST', 'access-control-request-headers': 'content-type' } });
      assert.equal(answer.status, 204);
      assert.equal(answer.headers.get('access-control-allow-origin'), '*');
      assert.match(answer.headers.get('access-control-allow-methods'), /\bPOST\b/);
      assert.match(answer.headers.get('access-control-allow-headers'), /\bcontent-type\b/i);
      assert.match(answer.headers.get('access-control-allow-headers'), /\bauthorization\b/i);
      assert.match(answer.headers.get('access-control-max-age'), /^\d+$/);
      assert.equal((await answer.arrayBuffer()).byteLength, 0);
    });

    test(`${path}: other methods are not`, async () => {
      for (const method of ['GET', 'PUT', 'DELETE', 'PATCH']) {
        const answer = await get(path, { method });
        assert.equal(answer.headers.get('allow'), 'POST, OPTIONS', method);
        assert.equal(answer.headers.get('access-control-allow-origin'), '*', method);
        await isProblem(answer, 405, 'method-not-allowed');
      }
    });
  }

  test('what is not here is not here, and neither is what only the server has', async () => {
    const unread = { method: 'POST', body: 'x' };
    for (const path of ['/', '/v1', '/v1/', '/v1/x', '/v1/f/', '/v2/f', '/sdk', '/index.html']) {
      await isProblem(await get(path), 404, 'not-found');
      await isProblem(await get(path, unread), 404, 'not-found');
    }
    for (const path of ['/v1/e', '/v1/leases']) await isProblem(await get(path, unread), 404, 'not-found');
    for (const path of ['/readyz', '/startupz', '/metrics']) await isProblem(await get(path), 404, 'not-found');
  });

  test('a query changes nothing', async () => {
    assert.equal((await get('/livez?x=/v1/f')).status, 200);
    const body = tenant.frame({ source: newSource() });
    assert.equal((await get('/v1/f?writeKey=x#y', { method: 'POST', body })).status, 200);
  });
});

describe('the log', () => {
  test('has one line for a refusal, with its code and nothing about a person', async () => {
    const before = edge.log.length;
    const headers = { origin: 'https://evil.example', 'cf-connecting-ip': '203.0.113.77', 'user-agent': 'Nosy/1.0' };
    const frame = tenant.frame({ source: newSource(), writeKey: `fh_${tenant.id}_${'x'.repeat(24)}` });
    await get('/v1/f?email=a@b.example', { method: 'POST', body: frame, headers });
    // Lines come in order: when the next refusal's is there, all of this one's are.
    await get('/v1/nothing');
    const lines = () => edge.log.slice(before).filter((line) => line.trim()).map((line) => JSON.parse(line));
    await until('the next line', () => lines().some(({ code }) => code === 'not-found'));
    assert.deepEqual(lines(), [{ event: 'refused', code: 'wrong-write-key', status: 401, tenant: tenant.id }, { event: 'refused', code: 'not-found', status: 404 }]);
  });
});

describe('a Worker that is not set up', () => {
  const good = () => ({ UPSTREAM: server.url, REGION: 'EU', ENROLMENTS: tenant.enrolment });
  const rows = [
    ['without UPSTREAM', { UPSTREAM: undefined }, 'UPSTREAM is not set'],
    ['with an UPSTREAM that is no URL', { UPSTREAM: 'example.com' }, 'UPSTREAM must be an https URL'],
    ['with an UPSTREAM that anybody on the way could read', { UPSTREAM: 'http://example.com' }, 'UPSTREAM must be https: keys and events travel there'],
    ['with LEASES that anybody on the way could read', { LEASES: 'http://10.0.0.1:9090' }, 'LEASES must be https: keys and events travel there'],
    ['with a user in UPSTREAM', { UPSTREAM: 'https://u:p@example.com' }, 'UPSTREAM must be an address and no more: no user, no query, no spaces'],
    ['with a host that only looks like this machine', { UPSTREAM: 'http://127.0.0.1.evil.example' }, 'UPSTREAM must be https: keys and events travel there'],
    ['without REGION', { REGION: '' }, 'REGION is not set'],
    ['with a REGION that is none', { REGION: 'Europe' }, 'REGION is not two capital letters'],
    ['with every REGION', { REGION: '--' }, 'REGION names no region: an edge stands in one'],
    ['with a CONFINED that is neither', { CONFINED: 'yes' }, 'CONFINED is neither true nor false'],
    ['without ENROLMENTS', { ENROLMENTS: undefined }, 'ENROLMENTS is not set'],
    ['with ENROLMENTS that are none', { ENROLMENTS: 'secret' }, 'ENROLMENTS holds something that is no enrolment token: `firsthop edge add` prints one'],
    ['with a token without what documents verify with', { ENROLMENTS: tenant.enrolment.replace(/_[0-9a-f]{64}$/, '') }, 'ENROLMENTS holds something that is no enrolment token: `firsthop edge add` prints one'],
  ];
  for (const [what, wrong, why] of rows) {
    test(what, async () => {
      const bindings = Object.fromEntries(Object.entries({ ...good(), ...wrong }).filter(([, value]) => value !== undefined));
      const broken = await startWorker(bindings);
      try {
        const answer = await fetch(`${broken.url}/v1/f`, { method: 'POST', body: tenant.frame({ source: newSource() }) });
        assert.match(answer.headers.get('retry-after'), /^\d+$/);
        await isProblem(answer, 503, 'unavailable');
        assert.equal((await fetch(`${broken.url}/livez`)).status, 200);
        const line = await until('the log to say why', () => broken.log.find((text) => text.includes('not-set-up')));
        assert.equal(JSON.parse(line).why, why);
        assert.ok(!broken.log.join().includes('secret'), 'nothing of a secret in the log');
      } finally {
        await broken.dispose();
      }
    });
  }
});
