// Which keys come where, with the real server: the region's edges get what opens sealed frames and use it; where an edge may only pass on,
// no key ever comes.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { Server, Wire } from '../../tests/spine/parts.mjs';
import { bytes, kit, newSource } from './server.mjs';
import { until } from './wait.mjs';
import { startWorker } from './worker.mjs';

const STATUS_TOKEN = 'a-token-of-the-operator';
const FAR = { 'mf-cf-blob': JSON.stringify({ colo: 'IAD', country: 'DE', continent: 'EU' }) };

const stops = [];
after(async () => {
  for (const stop of stops.reverse()) await stop();
});

let server;
/** The tenant's root, by which a test opens what an edge has signed. */
let root;
/** What frames are sealed to, and another key that nobody has. */
let region;
const strange = 'CSC0+2Z2cLHFDjP5cZb9jmKb7BkOKA7xrpvSBJJ5CBs=';

const file = (name) => path.join(server.data, 'tenants', server.tenant, name);

/** An edge with a wire on each of its ways: to the server's leases, and to its public address. */
async function edge(more = {}) {
  const folder = await mkdtemp(path.join(tmpdir(), 'firsthop-edge-'));
  const [leases, upstream] = [await Wire.create(server.internalUrl), await Wire.create(server.url)];
  const variables = { UPSTREAM: upstream.url, LEASES: leases.url, REGION: 'EU', ENROLMENTS: server.enrolment, STATUS_TOKEN, ...more };
  const it = { folder, leases, upstream, worker: await startWorker(variables, { folder }) };
  it.restart = async () => {
    await it.worker.dispose();
    it.worker = await startWorker(variables, { folder });
  };
  it.send = (body, headers = {}, to = '/v1/f') => fetch(`${it.worker.url}${to}`, { method: 'POST', body, headers });
  it.read = (what) => fetch(`${it.worker.url}${what}`, { headers: { ...FAR, authorization: `Bearer ${STATUS_TOKEN}` } });
  // What it handed to the server: the annotation, and the frame inside.
  it.handed = () => upstream.requests.filter((request) => request.path === '/v1/e').map(({ body }) => kit({ do: 'open', envelope: body.toString('base64'), root }));
  stops.push(() => Promise.all([it.worker.dispose(), leases.dispose(), upstream.dispose()]));
  stops.push(() => rm(folder, { recursive: true, force: true }));
  return it;
}

/** A frame; sealed, with `sealTo`. */
function frame({ sealTo, source = newSource() } = {}) {
  const random = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64');
  const events = [{ name: 'Secret Viewed', properties: { sku: 'G-32' } }];
  const wanted = { do: 'frame', tenant: server.tenant, source, region: 'EU', created: Date.now(), writeKey: server.writeKey, events };
  return bytes(kit({ ...wanted, ...(sealTo && { sealTo: { ...sealTo, random } }) }).frame);
}

/** What the server leases to this edge: all that is secret of it. */
async function secrets() {
  const answer = await fetch(`${server.internalUrl}/v1/leases`, { method: 'POST', headers: { authorization: `Bearer ${server.enrolment}` } });
  const { leases, regionSecrets } = await answer.json();
  return [...leases, ...regionSecrets].map(({ key }) => key);
}

/** All that came to an edge from the server, and all that it has on disk. */
async function has({ folder, leases, upstream, worker }) {
  const files = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((it) => it.isFile());
  const disk = await Promise.all(files.map((it) => readFile(path.join(it.parentPath, it.name))));
  return Buffer.concat([...[...leases.requests, ...upstream.requests].map(({ answer }) => answer ?? Buffer.alloc(0)), ...disk, Buffer.from(worker.log.join('\n'))]);
}

/** Those of some keys that are somewhere, as text or as bytes. */
const found = (where, keys) => keys.filter((key) => where.includes(key) || where.includes(bytes(key)));

async function setPolicy(host, unseal, more = '') {
  const plain = (await readFile(file('tenant.toml'), 'utf8')).split('\n[policy]')[0];
  await writeFile(file('tenant.toml'), `${plain}\n[policy]\nregions = [{ code = "EU", host = "${host}", forward = ["*"], unseal = ${unseal} }]\n${more}`);
  await until('the server to have read it', async () => {
    const answer = await fetch(`${server.internalUrl}/v1/leases`, { method: 'POST', headers: { authorization: `Bearer ${server.enrolment}` } });
    const { documents, regionSecrets } = await answer.json();
    return documents.some(({ kind, text }) => kind === 'policy' && JSON.parse(text).body.regions[0].host === host) && !!regionSecrets === unseal;
  });
}

before(async () => {
  server = await Server.create();
  stops.push(() => server.dispose());
  await server.command('region-key', 'new', '--tenant', 'shop');
  const published = JSON.parse(await server.command('region-key', 'config', '--tenant', 'shop', '--form', 'json'));
  region = published.keys[0];
  root = (await readFile(file('keys.toml'), 'utf8')).match(/\[\[roots\]\][^[]*?secret = "([^"]+)"/)[1];
});

describe('keys', () => {
  let near;
  before(async () => {
    near = await edge({ CONFINED: 'true' });
  });

  const sealed = () => frame({ sealTo: { id: region.id, public: region.public } });
  /** Made for another key, under the number of this one. */
  const bad = () => frame({ sealTo: { id: region.id, public: strange } });
  const stored = (name) => server.rows().filter((row) => row.name === name).length;

  test('of a region go to its edges where the policy says so: they open what is sealed, read it, and hand it on as it came', async () => {
    await setPolicy(near.worker.url, true);
    const body = sealed();
    const answer = await near.send(body);
    assert.deepEqual([answer.status, (await answer.json()).stored], [200, 1]);
    const [good] = near.handed();
    assert.deepEqual([good.annotation.refused, bytes(good.frame)], ['', body], 'sealed, to the byte');
    await until('its row', () => stored('Secret Viewed') === 1);
    // That it was opened there shows in what does not open: the edge itself says so, and hands it on as what it has refused.
    const refused = await near.send(bad());
    assert.deepEqual([refused.status, (await refused.json()).code], [400, 'bad-seal']);
    assert.deepEqual(near.handed().map(({ annotation }) => annotation.refused), ['', 'bad-seal']);
    assert.deepEqual(found(await has(near), await secrets()).length, (await secrets()).length, 'the search finds what is there');
    // The root is not among it: it never leaves the server.
    const keys = await readFile(file('keys.toml'));
    assert.ok(root && keys.includes(root), 'it is there');
    assert.deepEqual(found(await has(near), [root]), []);
  });

  test('do not come where an edge may only pass on, in any request, on disk or in a log', async () => {
    const far = await edge();
    const before = stored('Secret Viewed');
    const track = JSON.stringify({ event: 'Secret Tracked', userId: 'u', writeKey: server.writeKey });
    const vendor = { ...FAR, 'content-type': 'application/json', authorization: `Bearer ${server.writeKey}` };
    for (let start = 0; start < 2; start += 1) {
      for (const body of [sealed(), frame()]) assert.equal((await far.send(body, FAR)).status, 200);
      assert.equal((await far.send(track, vendor, '/v1/track')).status, 200);
      // Its operator looks at it, too.
      const status = await (await far.read('/statusz')).json();
      assert.ok(status.tenants[0].policy.version > 0);
      assert.equal(status.tenants[0].leases, null);
      assert.match(await (await far.read('/metrics')).text(), /firsthop_edge_policy_version\{[^}]*\} [1-9]/);
      await far.restart();
    }
    await until('the events at the server', () => stored('Secret Viewed') === before + 4 && stored('Secret Tracked') === 2);
    const asked = far.leases.requests;
    assert.ok(asked.length >= 1);
    for (const { method, path: to, headers, body, answer, status } of asked) {
      assert.deepEqual([method, to, headers['firsthop-want'], body.length, status], ['POST', '/v1/leases', 'documents', 0, 200]);
      const said = JSON.parse(answer);
      assert.deepEqual(Object.keys(said).sort(), ['documents', 'refreshAfter', 'region', 'tenant', 'worker']);
      assert.deepEqual(said.documents.map(({ kind }) => kind).sort(), ['policy', 'region-keys']);
    }
    assert.deepEqual(far.upstream.requests, [], 'it has handed nothing to the server itself');
    const everything = await has(far);
    assert.ok(everything.includes('firsthop-want') === false && everything.includes('policy'), 'what is there was read');
    assert.deepEqual(found(everything, await secrets()), []);
  });

  test('to seal to are used by every page where the tenant takes nothing else: an edge says so by the header, wherever it stands', async () => {
    await setPolicy('https://nowhere.example', true, 'refuse_unsealed = true\n');
    await setPolicy(near.worker.url, true, 'refuse_unsealed = true\n');
    const far = await edge();
    const strict = await edge({ CONFINED: 'true' });
    const vendor = { 'content-type': 'application/json', authorization: `Bearer ${server.writeKey}` };
    const track = JSON.stringify({ event: 'Secret Tracked', userId: 'u' });
    for (const [it, place] of [[far, FAR], [strict, {}]]) {
      for (const [body, to, headers] of [[frame(), '/v1/f', {}], [track, '/v1/track', vendor]]) {
        const answer = await it.send(body, { ...place, ...headers }, to);
        const { code, retryable } = await answer.json();
        assert.deepEqual([answer.status, code, retryable], [400, 'unsealed', false]);
      }
      // `near` still goes by the policy of before: what is sealed is good by either.
      assert.equal((await it.send(sealed(), place)).status, 200);
      assert.match(await (await it.read('/metrics')).text(), /firsthop_edge_isolate_refused_total\{code="unsealed"\} 2/);
      await until('the lines in its log', () => it.worker.log.filter((line) => line.includes('"unsealed"')).length === 2);
    }
    assert.deepEqual([far.upstream.requests.length, strict.handed().map(({ annotation }) => annotation.refused)], [0, ['']], 'nothing of it was handed on');
  });

  test('of a region stay with the server where the policy does not say so: what is sealed goes on unread', async () => {
    const host = 'https://elsewhere.example';
    await setPolicy(host, false);
    const blind = await edge({ CONFINED: 'true' });
    const body = sealed();
    const answer = await blind.send(body);
    assert.deepEqual([answer.status, (await answer.json()).stored], [200, 1], 'the server opens it');
    // What does not open the server finds, and not the edge.
    const refused = await blind.send(bad());
    assert.deepEqual([refused.status, (await refused.json()).code], [400, 'bad-seal']);
    assert.deepEqual(blind.handed().map(({ annotation, frame: inside }) => [annotation.refused, bytes(inside).length > 0]), [['', true], ['', true]]);
    assert.deepEqual(bytes(blind.handed()[0].frame), body);
    const [, , secret] = (await readFile(file('keys.toml'), 'utf8')).match(/(\[\[region_keys\]\])[^[]*?secret = "([^"]+)"/);
    assert.deepEqual(found(await has(blind), [secret]), []);
  });
});
