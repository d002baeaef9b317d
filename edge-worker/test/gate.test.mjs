// The region gate on workerd: the table that intake's own test reads, and what passing on unread does and does not.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { beforeEach, describe, test } from 'node:test';

import { pair, refusal, serverOf, stopAfter } from './pair.mjs';
import { PolicyTenant, RegionHost } from './regions.mjs';
import { Tenant, newSource, resealed } from './server.mjs';
import { until } from './wait.mjs';

const table = JSON.parse(readFileSync(new URL('../../intake/tests/gate/table.json', import.meta.url), 'utf8'));

const hosts = {};
for (const name of ['eu', 'ch', 'us', 'nx', 'ap']) {
  hosts[name] = await RegionHost.start();
  stopAfter(hosts[name]);
}
const policyOf = (name) => JSON.parse(JSON.stringify(table.policies[name]).replace(/\{(\w\w)\}/g, (_, host) => hosts[host].url));

// One tenant for each policy, and one without.
const names = Object.keys(table.policies);
const tenants = Object.fromEntries(names.map((name, i) => [name, new PolicyTenant(0x100 + i, policyOf(name))]));
tenants.none = new Tenant(0xff);
const server = await serverOf(...Object.values(tenants));
const edges = {};
for (const confined of [false, true]) {
  edges[confined] = (await pair({ tenants: Object.values(tenants), server, ...(confined ? { CONFINED: 'true' } : {}) })).edge;
}

const VISITOR = { origin: 'https://shop.example', 'cf-connecting-ip': '203.0.113.77', 'user-agent': 'Mozilla/5.0 (iPhone)', referer: 'https://shop.example/secret-page', cookie: 'id=visitor-cookie', 'accept-language': 'rm-CH' };

function forget() {
  server.forget();
  for (const host of Object.values(hosts)) host.requests.length = host.plans.length = 0;
}

const seen = () => Object.entries(hosts).flatMap(([name, { requests }]) => requests.map((request) => ({ name, ...request })));

/** A request as a row says it: the body, and what comes with it. */
function request(row, tenant) {
  // Without the header, miniflare makes facts up.
  const cf = { 'mf-cf-blob': JSON.stringify(row.cf ?? {}) };
  const forwarded = row.forwarded ? { 'firsthop-forwarded': row.forwarded } : {};
  if (row.segment) {
    const authorization = `Basic ${Buffer.from(`${tenant.writeKey}:`).toString('base64')}`;
    const body = Buffer.from(JSON.stringify({ event: 'Order Completed', userId: 'u-1', messageId: newSource() }));
    return { path: '/v1/track', body, headers: { ...VISITOR, ...cf, ...forwarded, authorization, 'content-type': 'application/json' } };
  }
  let body = tenant.frame({ source: newSource(), region: row.region });
  if (row.sealed) {
    body[5] |= 1;
    body = resealed(body);
  }
  return { path: '/v1/f', body, headers: { ...VISITOR, ...cf, ...forwarded, 'content-type': 'text/plain' } };
}

/** Posts a request. Not by `fetch`, which on a 421 sends the body again, and in Node another one. */
async function post(edge, { path, body, headers }) {
  const request = http.request(`${edge.url}${path}`, { method: 'POST', headers: { 'content-length': body.length, ...headers } });
  request.end(body);
  const [answer] = await once(request, 'response');
  const chunks = [];
  for await (const chunk of answer) chunks.push(chunk);
  return new Response(Buffer.concat(chunks), { status: answer.statusCode, headers: answer.headers });
}

describe('the table', () => {
  beforeEach(forget);

  for (const row of table.rows) {
    test(row.what, async () => {
      const tenant = tenants[row.policy ?? 'none'];
      const edge = edges[row.confined ?? false];
      const sent = request(row, tenant);
      const answer = await post(edge, sent);
      const [step, what, region] = row.expect.split(' ');
      assert.equal(answer.headers.get('access-control-allow-origin'), '*');
      if (step !== 'forward') assert.deepEqual(seen(), [], 'nobody else was told');
      if (step === 'process') {
        // It is read: only there does it show that its key is missing.
        if (row.sealed) return refusal(answer, 400, 'bad-extension');
        assert.equal(answer.status, 200);
        assert.equal(server.stored.length, 1);
        const { annotation } = server.opened()[0];
        assert.equal(annotation.network, row.forwarded ? '' : '203.0.113.0/24', 'whose address that is');
        if (row.forwarded) assert.equal(annotation.country, '');
        return;
      }
      assert.deepEqual(server.received, [], 'nothing was handed to the server');
      if (step === 'forward') {
        assert.equal(answer.status, 200);
        const [got, ...rest] = seen();
        assert.deepEqual(rest, []);
        assert.deepEqual([got.name, got.method, got.path], [what, 'POST', sent.path]);
        assert.deepEqual(got.body, sent.body, 'byte for byte');
        // `cf-worker` is the platform's: the zone of this edge.
        const { host: _, connection: __, 'cf-worker': ___, 'content-length': length, ...headers } = got.headers;
        assert.equal(Number(length), sent.body.length);
        const { origin, 'content-type': type, authorization } = sent.headers;
        assert.deepEqual(headers, { origin, 'content-type': type, ...(authorization ? { authorization } : {}), 'firsthop-forwarded': region });
      } else {
        const body = await refusal(answer, { 'wrong-region': 421, 'forward-loop': 508, unsealed: 400 }[what], what);
        if (row.segment) assert.equal(body.success, false);
        await until('its line in the log', () => edge.log.some((line) => line.includes(`"code":"${what}"`) && line.includes(tenant.id)));
      }
    });
  }
});
