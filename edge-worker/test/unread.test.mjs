// Passing on unread: what goes along, what comes back, and what does neither.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { beforeEach, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';

import { pair, refusal, stopAfter } from './pair.mjs';
import { PolicyTenant, RegionHost } from './regions.mjs';
import { newSource } from './server.mjs';
import { until } from './wait.mjs';

const [eu, other] = [await RegionHost.start(), await RegionHost.start()];
[eu, other].forEach(stopAfter);
const policy = (host) => ({ regions: [{ code: 'EU', host: host.url, forward: ['*'] }] });
const tenant = new PolicyTenant(0xc8, policy(eu));
const { server, edge } = await pair({ tenants: [tenant] });

const FAR = { 'mf-cf-blob': JSON.stringify({ colo: 'IAD', country: 'DE' }) };
const PROBLEM = { 'content-type': 'application/problem+json' };

/** Posts from far away. Not by `fetch`, which on a 421 sends the body again. */
async function post(path, body, headers = {}, to = edge) {
  const length = headers['transfer-encoding'] ? {} : { 'content-length': Buffer.byteLength(body) };
  const request = http.request(`${to.url}${path}`, { method: 'POST', headers: { ...FAR, ...length, ...headers } });
  if (headers['transfer-encoding']) for (let at = 0; at < body.length; at += 1_000) request.write(body.subarray(at, at + 1_000));
  request.end(headers['transfer-encoding'] ? undefined : body);
  const [answer] = await once(request, 'response');
  const chunks = [];
  for await (const chunk of answer) chunks.push(chunk);
  return new Response(Buffer.concat(chunks), { status: answer.statusCode, headers: answer.headers });
}

const frame = (more = {}) => tenant.frame({ source: newSource(), ...more });
const large = () => frame({ events: Array.from({ length: 250 }, (_, i) => ({ name: `Event ${i}`, properties: { text: 'x'.repeat(1_500) } })) });

beforeEach(() => {
  server.forget();
  for (const host of [eu, other]) host.requests.length = host.plans.length = 0;
});

describe('the answer', () => {
  test('comes back as it is, and no more of its head than a page needs', async () => {
    const receipt = ` {"source":"${newSource()}","batch":3,"first":2,"count":1,"stored":0,"duplicate":1,"conflict":0,"later":[1,2]}\n`;
    eu.plans.push((response) => response.writeHead(200, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store', 'set-cookie': 'a=b', 'x-powered-by': 'x' }).end(receipt));
    const answer = await post('/v1/f', frame());
    assert.equal(answer.status, 200);
    assert.equal(await answer.text(), receipt);
    assert.equal(answer.headers.get('content-type'), 'application/json; charset=utf-8');
    assert.equal(answer.headers.get('access-control-allow-origin'), '*');
    assert.deepEqual([answer.headers.get('set-cookie'), answer.headers.get('x-powered-by')], [null, null]);
    const segment = await post('/v1/track', '{"event":"A"}', { authorization: `Bearer ${tenant.writeKey}` });
    assert.deepEqual(await segment.json(), { success: true });
    assert.equal(segment.headers.get('firsthop-receipt'), 'stored=1, duplicate=0, conflict=0, quarantined=0');
  });

  test('may be a refusal of the region, whatever it is', async () => {
    for (const [status, headers] of [[400, { 'firsthop-receipt': 'stored=0, duplicate=0, conflict=0, quarantined=1' }], [401, {}], [421, {}], [429, { 'retry-after': '9' }], [501, {}], [503, { 'retry-after': '7' }], [508, {}]]) {
      const said = JSON.stringify({ type: 'about:blank', status, code: `of-the-region-${status}` });
      eu.plans.push((response) => response.writeHead(status, { ...PROBLEM, ...headers }).end(said));
      const answer = await post('/v1/f', frame());
      assert.equal(answer.status, status);
      assert.equal(await answer.text(), said);
      for (const [name, value] of Object.entries({ ...PROBLEM, ...headers })) assert.equal(answer.headers.get(name), value);
    }
  });

  test('of somebody who is no first hop is none: the page keeps its events', async () => {
    const rows = {
      'a page': (response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<html>welcome'),
      'JSON that is no receipt': (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{"ok":true}'),
      'a receipt as something else': (response) => response.writeHead(200, { 'content-type': 'text/plain' }).end('{"success":true}'),
      'nothing': (response) => response.writeHead(204).end(),
      'accepted': (response) => response.writeHead(202, { 'content-type': 'application/json' }).end('{"success":true}'),
      'a proxy': (response) => response.writeHead(403, { 'content-type': 'text/html' }).end('<html>no'),
      'a gateway': (response) => response.writeHead(502).end(),
      'a redirect': (response) => response.writeHead(307, { location: `${other.url}/v1/f` }).end(),
      'a redirect that is cached': (response) => response.writeHead(308, { location: `${other.url}/v1/f`, ...PROBLEM }).end('{}'),
      'too long an answer': (response) => response.writeHead(400, PROBLEM).end('x'.repeat(300_000)),
      'half an answer': (response) => response.writeHead(200, { 'content-type': 'application/json', 'content-length': 500 }).write('{', () => response.destroy()),
      'no answer': (response) => response.destroy(),
    };
    for (const [what, plan] of Object.entries(rows)) {
      for (const [path, body, headers] of [['/v1/f', frame(), {}], ['/v1/track', '{"event":"A"}', { authorization: `Bearer ${tenant.writeKey}` }]]) {
        eu.plans.push(plan);
        const answer = await post(path, body, headers);
        assert.match(answer.headers.get('retry-after') ?? '', /^\d+$/, what);
        await refusal(answer, 503, 'unavailable');
      }
    }
    assert.deepEqual(other.requests, [], 'a host that nobody named');
    assert.deepEqual(server.received, []);
  });

  test('is waited for, but not for ever', async () => {
    let closed = false;
    eu.plans.push((response) => response.on('close', () => (closed = true)));
    await refusal(await post('/v1/f', frame()), 503, 'unavailable');
    await until('the end of the request to the region', () => closed);
  });
});

describe('the body', () => {
  test('arrives byte for byte, in whatever pieces and of whatever size it came', async () => {
    const [small, big] = [frame(), large()];
    assert.ok(big.length > 300_000);
    for (const body of [small, big]) {
      for (const headers of [{}, { 'transfer-encoding': 'chunked' }]) {
        assert.equal((await post('/v1/f', body, headers)).status, 200);
        assert.deepEqual(eu.requests.at(-1).body, body);
      }
    }
    // Broken behind its header is not for this edge to see.
    const broken = Buffer.concat([small.subarray(0, small.length - 9), Buffer.from('broken')]);
    assert.equal((await post('/v1/f', broken)).status, 200);
    assert.deepEqual(eu.requests.at(-1).body, broken);
    const nonsense = Buffer.from('{"event": "Ä", no JSON at all \0\xff');
    assert.equal((await post('/v1/batch', nonsense, { authorization: `Bearer ${tenant.writeKey}` })).status, 200);
    assert.deepEqual(eu.requests.at(-1).body, nonsense);
  });

  test('is bounded, by what it says and by what it is', async () => {
    const much = Buffer.alloc(600_000);
    frame().copy(much);
    for (const path of ['/v1/f', '/v1/track']) {
      await refusal(await post(path, much), 413, 'body-too-large');
      const answer = post(path, much, { 'transfer-encoding': 'chunked' });
      // The answer comes while the body is still on its way, so the connection may end under it.
      await answer.then((it) => refusal(it, 413, 'body-too-large')).catch((error) => assert.match(error.code ?? '', /ECONNRESET|EPIPE/, error));
    }
    assert.deepEqual(eu.requests, []);
  });

  test('is not as long as it says: the platform does not take it', async () => {
    const body = frame();
    for (const headers of ['Content-Length: 5\r\nTransfer-Encoding: chunked', 'Transfer-Encoding: chunked\r\nContent-Length: 5']) {
      const { hostname, port } = new URL(edge.url);
      const { connect } = await import('node:net');
      const socket = connect(Number(port), hostname);
      socket.write(`POST /v1/f HTTP/1.1\r\nHost: x\r\n${headers}\r\nmf-cf-blob: ${FAR['mf-cf-blob']}\r\n\r\n${body.length.toString(16)}\r\n`);
      socket.write(body);
      socket.write('\r\n0\r\n\r\n');
      const chunks = [];
      socket.on('data', (chunk) => chunks.push(chunk) && socket.end());
      await once(socket, 'close');
      const status = Number(Buffer.concat(chunks).toString().match(/^HTTP\/1.1 (\d+)/)?.[1] ?? 0);
      assert.ok(status >= 400 || status === 0 || eu.requests.every((request) => request.body.equals(body)), `${status}`);
    }
    for (const { body: got } of eu.requests) assert.deepEqual(got, body);
  });

  test('that is compressed is refused here, since nobody behind could know', async () => {
    const headers = { 'content-encoding': 'gzip' };
    await refusal(await post('/v1/f', gzipSync(frame()), headers), 415, 'unsupported-encoding');
    await refusal(await post('/v1/f', frame(), headers), 415, 'unsupported-encoding');
    await refusal(await post('/v1/track', gzipSync('{}'), { ...headers, authorization: `Bearer ${tenant.writeKey}` }), 415, 'unsupported-encoding');
    assert.deepEqual(eu.requests, []);
  });

  test('takes the visitor’s Sec-GPC along, and nothing else that the header might say', async () => {
    for (const [said, expected] of [['1', '1'], [' 1 ', '1'], ['0', undefined], ['secret', undefined]]) {
      assert.equal((await post('/v1/f', frame(), { 'sec-gpc': said })).status, 200);
      assert.equal(eu.requests.at(-1).headers['sec-gpc'], expected, said);
    }
  });

  test('is sent each time: nothing is remembered', async () => {
    const body = frame();
    for (let i = 0; i < 3; i += 1) assert.equal((await post('/v1/f', body)).status, 200);
    assert.equal(eu.requests.length, 3);
  });

  test('goes to the path that was called, without its query', async () => {
    for (const path of ['/v1/f', '/v1/p', '/v1/batch', '/v1/identify']) {
      await post(`${path}?user=somebody`, path === '/v1/f' ? frame() : '{}', { authorization: `Bearer ${tenant.writeKey}` });
      assert.equal(eu.requests.at(-1).path, path);
    }
  });
});

describe('a host that nobody has named', () => {
  test('is not called, whatever a request says', async () => {
    const nobody = await RegionHost.start();
    stopAfter(nobody);
    const { host: name } = new URL(nobody.url);
    const headers = [
      {},
      { host: name },
      { 'x-forwarded-host': name, forwarded: `host=${name}`, 'x-original-url': nobody.url, 'x-rewrite-url': nobody.url },
      { 'firsthop-forwarded': nobody.url },
      { 'firsthop-forwarded': `EU@${name}` },
      { origin: nobody.url, referer: nobody.url, location: nobody.url },
      { traceparent: nobody.url, authorization: `Bearer ${nobody.url}` },
    ];
    const paths = ['/v1/f', '/v1/track', `//${name}/v1/f`, `/v1/f?to=${nobody.url}`, `/v1/f@${name}`, `/@${name}/v1/f`, `/%2f%2f${name}/v1/f`, `/v1/../../${name}/v1/f`, `/v1/f#@${name}`, `/\\${name}/v1/f`];
    const near = { 'mf-cf-blob': JSON.stringify({ colo: 'FRA', country: 'DE' }) };
    for (const cf of [FAR, near]) {
      const native = frame({ context: { url: nobody.url, referrer: nobody.url } });
      const track = JSON.stringify({ event: 'A', userId: 'u', writeKey: tenant.writeKey, url: nobody.url, context: { page: { url: nobody.url } } });
      for (const path of paths) {
        for (const more of headers) {
          const body = path.startsWith('/v1/track') ? track : native;
          const request = http.request({ host: '127.0.0.1', port: new URL(edge.url).port, path, agent: false, method: 'POST', headers: { ...cf, 'content-length': Buffer.byteLength(body), ...more } });
          request.end(body);
          const [answer] = await once(request, 'response');
          answer.resume();
          await once(answer, 'end');
        }
      }
    }
    assert.deepEqual(nobody.requests, []);
    assert.ok(eu.requests.length > 0 && server.received.length > 0, 'those that are named are');
  });
});

describe('Segment without Authorization', () => {
  const track = (writeKey) => JSON.stringify({ writeKey, event: 'A', userId: 'u' });

  test('is the only tenant’s', async () => {
    const body = track(tenant.writeKey);
    assert.equal((await post('/v1/t', body)).status, 200);
    assert.equal(eu.requests.at(-1).body.toString(), body);
  });

  test('of several tenants that say the same goes there', async () => {
    const tenants = [tenant, new PolicyTenant(0xc9, policy(eu))];
    const many = await pair({ tenants });
    assert.equal((await post('/v1/t', track(tenants[1].writeKey), {}, many.edge)).status, 200);
    assert.equal(eu.requests.length, 1);
    assert.deepEqual(many.server.received, []);
  });

  test('of several tenants of which one is enrolled no longer goes where the others say', async () => {
    const tenants = [0xcb, 0xcc].map((number) => new PolicyTenant(number, policy(eu), { refreshAfter: 10 }));
    const [ended, stays] = tenants;
    const many = await pair({ tenants });
    const near = { 'mf-cf-blob': JSON.stringify({ colo: 'FRA', country: 'DE' }) };
    const unread = (from = {}) => post('/v1/t', track(stays.writeKey), from, many.edge);
    assert.equal((await unread()).status, 200);
    many.server.tenants = [stays];
    await until('the edge to know', async () => (await post('/v1/f', ended.frame({ source: newSource() }), {}, many.edge)).status === 503);
    eu.requests.length = 0;
    for (let i = 0; i < 5; i += 1) assert.equal((await unread()).status, 200);
    assert.equal(eu.requests.length, 5);
    assert.equal((await unread(near)).status, 200);
    assert.equal(many.server.received.length, 1);
    await refusal(await post('/v1/t', track(ended.writeKey), near, many.edge), 503, 'unavailable');
    await refusal(await post('/v1/t', track(ended.writeKey), { authorization: `Bearer ${ended.writeKey}` }, many.edge), 503, 'unavailable');
    assert.deepEqual([eu.requests.length, many.server.received.length], [5, 1]);

    many.server.tenants = tenants;
    await until('the edge to hear that it is enrolled again', async () => (await post('/v1/t', track(ended.writeKey), near, many.edge)).status === 200);
  });

  test('of a tenant that is enrolled again is not read before its own policy is known', async () => {
    const here = new PolicyTenant(0xcd, { regions: [{ code: 'EU', process: ['*'] }] }, { refreshAfter: 10 });
    const away = new PolicyTenant(0xce, policy(eu), { refreshAfter: 10 });
    const many = await pair({ tenants: [here, away] });
    const of = ({ writeKey }) => post('/v1/t', track(writeKey), {}, many.edge);
    assert.equal((await of(here)).status, 421, 'they differ');
    many.server.tenants = [here];
    await until('the edge to know that the one has ended', async () => (await of(here)).status === 200);
    many.server.tenants = [here, away];
    // Whoever reads the body finds whose it is, and must not ask for its keys: it may only be passed on from here.
    const [before, asked] = [many.server.received.length, many.server.leaseCalls.length];
    await until('the edge to hear that it is enrolled again', async () => {
      const { status } = await of(away);
      assert.ok([503, 421].includes(status), String(status));
      return status === 421;
    });
    assert.equal(many.server.received.length, before);
    const keys = many.server.leaseCalls.slice(asked).filter(({ want, authorization }) => want !== 'documents' && authorization === `Bearer ${away.enrolment}`);
    assert.deepEqual(keys, []);
  });

  test('of several tenants that differ is refused, with what to do', async () => {
    const tenants = [tenant, new PolicyTenant(0xca, policy(other))];
    const many = await pair({ tenants });
    const problem = await refusal(await post('/v1/t', track(tenants[1].writeKey), {}, many.edge), 421, 'wrong-region');
    assert.match(problem.detail, /Authorization/);
    assert.equal((await post('/v1/t', track(tenants[1].writeKey), { authorization: `Bearer ${tenants[1].writeKey}` }, many.edge)).status, 200);
    assert.deepEqual([eu.requests.length, other.requests.length, many.server.received.length], [0, 1, 0]);
  });
});
