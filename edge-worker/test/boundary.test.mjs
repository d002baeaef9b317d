// The metadata boundary: all that an edge writes, searched for what was sent and by whom.
//
// An edge that may only pass on writes nothing of either, anywhere. One that reads hands on what it read, and no address in full.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';

import { serverOf, stopAfter } from './pair.mjs';
import { PolicyTenant, RegionHost } from './regions.mjs';
import { newSource, resealed } from './server.mjs';
import { until } from './wait.mjs';
import { modules, startWorker } from './worker.mjs';

const PERSON = {
  origin: 'https://shop.example',
  'cf-connecting-ip': '203.0.113.77',
  'x-real-ip': '203.0.113.77',
  'x-forwarded-for': '203.0.113.77, 2001:db8:1234:5678:9abc:def0:1122:3344',
  'user-agent': 'SecretAgent/9.9 (iPhone)',
  referer: 'https://shop.example/secret-page',
  cookie: 'id=secret-cookie',
  'accept-language': 'rm-LI,rm',
  'sec-ch-ua-platform': '"SecretPlatform"',
  traceparent: '00-5ec2e75ec2e75ec2e75ec2e75ec2e7aa-5ec2e75ec2e7aa01-01',
};
const FACTS = { country: 'LI', continent: 'EU', city: 'Vaduz', postalCode: '9490', asn: 64999, latitude: '47.14151', longitude: '9.52154' };
const source = newSource();
const events = [{ name: 'SecretEvent', properties: { sku: 'secret-sku', note: 'x'.repeat(300) } }];

/** An address in full, as text or as bytes. */
const ADDRESS = ['203.0.113.77', '9abc:def0', Buffer.from([203, 0, 113, 77]), Buffer.from('9abcdef0', 'hex')];
/** What says something of the person or of what they did. */
const TRACES = [
  ...ADDRESS, '203.0.113', 'SecretAgent', 'secret-page', 'secret-cookie', 'rm-LI', 'SecretPlatform', '5ec2e75ec2e7', '"LI"', 'Vaduz', '9490', '64999', '47.1415',
  'SecretEvent', 'secret-sku', 'secret-user', 'xxxxxxxx', source, Buffer.from(source.replaceAll('-', ''), 'hex'),
];

/** Everything that was written, by where. */
async function written({ log, folder, server, host, said }) {
  const files = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((file) => file.isFile());
  const contents = await Promise.all(files.map(async (file) => [file.name, await readFile(path.join(file.parentPath, file.name))]));
  return [
    ['log', Buffer.from(log.join('\n'))],
    ...said,
    ...contents,
    ...server.received.map(({ body, headers }) => ['server', Buffer.concat([Buffer.from(JSON.stringify(headers)), body])]),
    // The body is what is passed on; all beside it is the edge's.
    ...host.requests.map(({ path, headers: { origin, ...headers } }) => ['host', Buffer.from(`${path}${JSON.stringify(headers)}`)]),
  ];
}

const found = (all, traces) => all.flatMap(([where, content]) => traces.filter((trace) => content.includes(trace)).map((trace) => `${where}: ${trace}`));

async function edgeAt(colo, server, host, tenant) {
  const folder = await mkdtemp(path.join(tmpdir(), 'firsthop-edge-'));
  const edge = await startWorker({ UPSTREAM: server.url, REGION: 'EU', ENROLMENTS: tenant.enrolment, SPOOL_RETRY_MS: '60000', STATUS_TOKEN: 'operators' }, { folder });
  const facts = { 'mf-cf-blob': JSON.stringify({ ...FACTS, colo }) };
  /** Posts, and gives back the status. Not by `fetch`, which on a 421 sends the body again. */
  const post = async (to, body, headers = {}) => {
    // Each on a connection of its own: workerd closes one on which it has left a body unread.
    const request = http.request(`${edge.url}${to}`, { agent: false, method: 'POST', headers: { ...PERSON, ...facts, 'content-length': Buffer.byteLength(body), ...headers } });
    request.end(body);
    const [answer] = await once(request, 'response');
    answer.resume();
    await once(answer, 'end');
    return answer.statusCode;
  };
  /** What it tells its operator, and counts. */
  const said = [];
  const ask = async () => {
    for (const to of ['/statusz', '/metrics']) {
      const answer = await fetch(`${edge.url}${to}`, { headers: { authorization: 'Bearer operators' } });
      assert.equal(answer.status, 200);
      said.push([to, Buffer.from(await answer.arrayBuffer())]);
    }
  };
  return { edge, post, folder, ask, all: () => written({ log: edge.log, folder, server, host, said }) };
}

describe('what an edge writes', () => {
  test('that may only pass on has no trace of a payload or a person in it', async () => {
    const host = await RegionHost.start();
    stopAfter(host);
    const tenant = new PolicyTenant(0xc8, { regions: [{ code: 'EU', host: host.url, forward: ['*'] }, { code: 'CH' }] });
    const server = await serverOf(tenant);
    const { edge, post, folder, ask, all } = await edgeAt('IAD', server, host, tenant);
    try {
      const authorization = `Bearer ${tenant.writeKey}`;
      const frame = (more = {}) => tenant.frame({ source, events, ...more });
      const sealed = frame();
      sealed[5] |= 1;
      const track = JSON.stringify({ event: 'SecretEvent', userId: 'secret-user', properties: { sku: 'secret-sku' }, writeKey: tenant.writeKey });
      const broken = (response) => response.destroy();
      for (const [status, to, body, headers, plan] of [
        [200, '/v1/f', frame()],
        [200, '/v1/f?user=secret-user', frame({ region: '--', batch: 1 })],
        [200, '/v1/f', resealed(sealed)],
        [200, '/v1/f', frame().subarray(0, 150)],
        [200, '/v1/track', track, { authorization }],
        [200, '/v1/track', track],
        [200, '/v1/batch', `{"batch":[${track}`, { authorization }],
        [421, '/v1/f', frame({ region: 'CH' })],
        [421, '/v1/f', frame({ region: 'US' })],
        [508, '/v1/f', frame(), { 'firsthop-forwarded': 'EU' }],
        [508, '/v1/track', track, { authorization, 'firsthop-forwarded': 'EU' }],
        [415, '/v1/f', frame(), { 'content-encoding': 'gzip' }],
        [415, '/v1/track', gzipSync(track), { authorization, 'content-encoding': 'gzip' }],
        [400, '/v1/f', Buffer.from('FHOPsecret-user')],
        [404, '/v1/secret-user', track],
        [503, '/v1/f', frame(), {}, broken],
        [503, '/v1/f', frame(), {}, (response) => response.writeHead(200, { 'content-type': 'text/html' }).end('secret-user')],
        [400, '/v1/f', frame(), {}, (response) => response.writeHead(400, { 'content-type': 'application/problem+json' }).end('{"detail":"secret-user"}')],
      ]) {
        if (plan) host.plans.push(plan);
        assert.equal(await post(to, body, headers), status, `${to} ${status}`);
      }
      await ask();
      await until('the lines of the refusals', () => edge.log.filter((line) => line.includes('"refused"')).length >= 10);
    } finally {
      await edge.dispose();
    }
    const everything = await all();
    assert.deepEqual(new Set(everything.map(([where]) => where).filter((where) => ['log', 'host', 'server'].includes(where))), new Set(['log', 'host']), 'the server was handed nothing');
    for (const where of ['.sqlite', '/statusz', '/metrics']) assert.ok(everything.some(([name]) => name.endsWith(where)), `${where} was looked at`);
    assert.ok(everything.find(([where]) => where === '/metrics')[1].includes('refused_total{code="wrong-region"} 2'), 'and it counts');
    assert.deepEqual(found(everything, TRACES), []);
    // What the log does say is this, and nothing else.
    for (const line of edge.log.filter(Boolean)) {
      const { event, code, status, tenant: whose, ...rest } = JSON.parse(line);
      assert.deepEqual([event, rest, typeof code, typeof status], ['refused', {}, 'string', 'number']);
      assert.ok(whose === undefined || whose === tenant.id);
    }
    await rm(folder, { recursive: true });
  });

  test('that reads has no address in full in it, in what it hands on, keeps or says', async () => {
    const host = await RegionHost.start();
    stopAfter(host);
    const tenant = new PolicyTenant(0xc9, { regions: [{ code: 'EU', host: host.url }] });
    const server = await serverOf(tenant);
    const { edge, post, folder, ask, all } = await edgeAt('FRA', server, host, tenant);
    const six = { 'cf-connecting-ip': '2001:db8:1234:5678:9abc:def0:1122:3344' };
    const track = JSON.stringify({ event: 'SecretEvent', userId: 'secret-user', context: { ip: '203.0.113.77' }, writeKey: tenant.writeKey });
    try {
      for (const headers of [{}, six]) {
        assert.equal(await post('/v1/f', tenant.frame({ source: newSource(), events }), headers), 200);
        assert.equal(await post('/v1/track', track, headers), 200);
        assert.equal(await post('/v1/f', tenant.frame({ source: newSource(), events }).subarray(0, 150), headers), 400);
      }
      // And on disk, while the server is away.
      await server.stop();
      for (const headers of [{}, six]) {
        assert.equal(await post('/v1/f', tenant.frame({ source: newSource(), events }), headers), 200);
        assert.equal(await post('/v1/track', track, headers), 200);
      }
      await ask();
    } finally {
      await edge.dispose();
    }
    const everything = await all();
    assert.deepEqual(found(everything, ADDRESS), []);
    // That the search finds what is there: the events are in what was handed on and in the spool, the network as it was cut.
    const handed = found(everything, ['SecretEvent']);
    assert.ok(handed.some((where) => where.startsWith('server')) && handed.some((where) => where.includes('sqlite')), `${handed}`);
    assert.deepEqual(new Set(server.opened().map(({ annotation }) => annotation.network)), new Set(['203.0.113.0/24', '2001:db8:1234::/48']));
    await rm(folder, { recursive: true });
  });

  test('is not in a cache either: it has no use for one', () => {
    for (const { path: name, contents } of modules().filter(({ type }) => type === 'ESModule')) {
      assert.ok(!/\bcaches\b|writeDataPoint|\.put\(/.test(`${contents}`), name);
    }
  });
});
