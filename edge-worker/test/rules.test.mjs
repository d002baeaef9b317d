// A tenant's rules at the edge: what it does to events before they leave it, and what its envelopes say of that. The same tables natively: `intake/src/rules/` and
// `intake/tests/rules.rs`.

import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { describe, test } from 'node:test';

import { pair } from './pair.mjs';
import { PolicyTenant } from './regions.mjs';
import { bytes, kit, newSource } from './server.mjs';
import { until } from './wait.mjs';

const [NECESSARY, ANALYTICS, MARKETING] = [1, 2, 8];
const HASH_KEY = Buffer.alloc(32, 9);
const CLOCK = 60_000;

/** A tenant whose policy is its rules. */
class RulesTenant extends PolicyTenant {
  constructor(number, rules, hashed) {
    super(number, rules && { rules });
    this.hashed = hashed;
  }

  lease(now) {
    const hashed = this.hashed && { hashKey: HASH_KEY.toString('base64'), hashGeneration: 0, ...this.hashed };
    return { ...super.lease(now), ...hashed };
  }
}

const hash = (text) => createHmac('sha256', HASH_KEY).update(text).digest('hex').slice(0, 32);

const PAGE = { anonymousId: 'anon-1', userId: 'ada', url: 'https://shop.example/p?a=1&utm_source=news&gclid=G1#top', referrer: 'https://www.google.com/search?q=x' };
const BOUGHT = { name: 'Bought', properties: { sku: 'G-32', email: 'ada@example.com', price: 3 } };
const CHROME = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36';

let number = 0x200;

/** What the platform says of a request. Headers are ASCII. */
const said = (cf) => ({ 'mf-cf-blob': JSON.stringify(cf).replace(/[^\x20-\x7e]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`) });

/** Edges by their rules: a test may use one that another has started. */
const edges = new Map();
function edgeWith(rules, hashed) {
  const key = JSON.stringify([rules, hashed]);
  if (!edges.has(key)) edges.set(key, pair({ tenants: [new RulesTenant(number++, rules, hashed)] }));
  return edges.get(key);
}

/** Sends a frame through an edge with these rules; what the server was sent of it. */
async function through(rules, { hashed, headers = {}, cf = {}, ...wanted } = {}) {
  const { server, send, tenant } = await edgeWith(rules, hashed);
  server.forget();
  const frame = tenant.frame({ source: newSource(), events: [BOUGHT], context: PAGE, ...wanted });
  const platform = said({ colo: 'ZRH', country: 'CH', regionCode: 'ZH', city: 'Zürich', ...cf });
  const answer = await send(frame, { ...platform, origin: 'https://shop.example', 'user-agent': CHROME, ...headers });
  assert.equal(answer.status, 200, await answer.clone().text());
  assert.equal(server.received.length, 1);
  const envelope = tenant.open(server.received[0].body);
  return { ...envelope, tenant, sent: frame, inside: bytes(envelope.frame), says: kit({ do: 'read', frame: envelope.frame }) };
}

/** By what a set of rules is known: the first bytes of the SHA-256 of its text. */
const fingerprint = (rules) => createHash('sha256').update(JSON.stringify(rules)).digest().readUInt32LE(0);

describe('rules at the edge', () => {
  for (const [what, headers, cf, agent, traffic] of [
    ['a browser on a desktop', {}, {}, 'desktop', 'human'],
    ['client hints first', { 'sec-ch-ua-mobile': '?1', 'sec-ch-ua-platform': '"Android"' }, {}, 'phone', 'human'],
    ['a robot', { 'user-agent': 'Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)' }, {}, 'robot', 'bot'],
    ['an agent of an AI’s', { 'user-agent': 'Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)' }, {}, 'robot', 'ai-agent'],
    ['a scanner', { 'user-agent': 'sqlmap/1.8' }, {}, 'unknown', 'scanner'],
    ['a prefetch', { 'sec-purpose': 'prefetch;prerender' }, {}, 'desktop', 'prefetch'],
    ['the tenant’s own monitoring', { 'user-agent': 'ShopProbe/1.0' }, {}, 'unknown', 'bot'],
  ]) {
    test(`traffic is marked and never dropped: ${what}`, async () => {
      const { annotation, inside, sent } = await through({ traffic: { bots: ['shopprobe'] } }, { headers, cf });
      assert.deepEqual([annotation.agent, annotation.traffic], [agent, traffic]);
      assert.deepEqual(inside, sent);
    });
  }

  for (const [what, rules, consent, gpc, effects, withdrawn, clickId] of [
    ['nothing set, and the signal', undefined, ANALYTICS | MARKETING, '1', ['gpc'], MARKETING, ''],
    ['nothing set, the signal, and nothing to take back', undefined, ANALYTICS, '1', [], 0, ''],
    ['what is no signal', undefined, ANALYTICS | MARKETING, '0', [], 0, 'gclid=G1'],
    ['needed and granted', { consent: { required: ['marketing'], without: 'suppress' } }, MARKETING, undefined, [], 0, 'gclid=G1'],
    ['needed and taken back', { consent: { required: ['marketing'], without: 'suppress' } }, MARKETING, '1', ['gpc', 'rewritten', 'suppressed'], MARKETING, ''],
    ['needed and not granted', { consent: { required: ['analytics'], without: 'suppress' } }, NECESSARY, undefined, ['rewritten', 'suppressed'], 0, ''],
    ['a tenant that does not hear the signal', { consent: { required: ['marketing'], without: 'suppress', gpc: [] } }, MARKETING, '1', [], 0, 'gclid=G1'],
  ]) {
    test(`consent and Sec-GPC: ${what}`, async () => {
      const it = await through(rules, { consent, headers: gpc ? { 'sec-gpc': gpc } : {} });
      assert.deepEqual([it.notes.effects, it.notes.withdrawn, it.notes.clickId], [effects, withdrawn, clickId]);
      assert.equal(it.notes.rules, rules ? fingerprint(rules) : 0);
      assert.equal(it.says.header.consent, consent, 'what the producer said stays');
      if (!effects.includes('suppressed')) return assert.deepEqual(it.inside, it.sent);
      // Its number is there, and nothing of it.
      assert.deepEqual(it.says.rewritten, { suppressed: true, trusted: false });
      const { count, firstSeq, source } = kit({ do: 'read', frame: it.sent.toString('base64') }).header;
      assert.deepEqual([it.says.header.count, it.says.header.firstSeq, it.says.header.source], [count, firstSeq, source]);
      for (const trace of ['ada', 'anon-1', 'Bought', 'G-32', 'gclid', 'shop.example']) assert.ok(!it.inside.includes(trace), trace);
    });
  }

  test('without consent, who it was is taken out', async () => {
    const { notes, says, annotation } = await through({ consent: { required: ['analytics'], without: 'anonymise' }, place: { precision: 'city' } }, { consent: NECESSARY, headers: { 'cf-connecting-ip': '192.0.2.77' } });
    assert.deepEqual([notes.effects, notes.city, notes.subdivision, annotation.country, annotation.network], [['rewritten', 'anonymised'], '', '', 'CH', '']);
    const [{ context, name }] = says.events;
    assert.deepEqual([name, context.userId, context.anonymousId, context.url, context.referrer], ['Bought', null, null, 'https://shop.example/p', 'https://www.google.com/search']);
  });

  for (const [precision, network, country, pop, subdivision, city, known] of [
    ['none', false, '', '', '', '', false],
    ['country', true, 'CH', 'ZRH', '', '', true],
    ['subdivision', true, 'CH', 'ZRH', 'ZH', '', true],
    ['city', false, 'CH', 'ZRH', 'ZH', 'Zürich', false],
  ]) {
    test(`place, to the precision that is wanted: ${precision}, ${network ? 'with' : 'without'} the network`, async () => {
      const { annotation, notes } = await through({ place: { precision, network } }, { headers: { 'cf-connecting-ip': '192.0.2.77' } });
      assert.deepEqual([annotation.country, annotation.pop, notes.subdivision, notes.city], [country, pop, subdivision, city]);
      assert.equal(annotation.network, known ? '192.0.2.0/24' : '');
    });
  }

  test('nothing that another hop was told of itself counts as the visitor’s, but what it passes on of the visitor’s wish', async () => {
    const { notes, annotation } = await through({ place: { precision: 'city' } }, { consent: MARKETING, headers: { 'firsthop-forwarded': 'EU' } });
    assert.deepEqual([notes.city, notes.subdivision, notes.effects, annotation.country], ['', '', [], '']);
    const revoked = await through({ place: { precision: 'city' } }, { consent: MARKETING, headers: { 'firsthop-forwarded': 'EU', 'sec-gpc': '1' } });
    assert.deepEqual([revoked.notes.city, revoked.notes.effects, revoked.notes.withdrawn], ['', ['gpc'], MARKETING]);
  });

  for (const [what, context, referrer, campaign] of [
    ['a campaign', PAGE, 'campaign', { source: 'news', medium: null, name: null }],
    ['a search engine', { ...PAGE, url: 'https://shop.example/p' }, 'search', null],
    ['a network of the tenant’s', { url: 'https://shop.example/', referrer: 'https://forum.example/t/1' }, 'social', null],
    ['the shop itself', { url: 'https://shop.example/b', referrer: 'https://shop.example/a' }, 'internal', null],
    ['nobody', { url: 'https://shop.example/', referrer: '' }, 'direct', null],
  ]) {
    test(`campaign and referrer: ${what}`, async () => {
      const { notes } = await through({ referrer: { social: ['forum.example'] } }, { context });
      assert.deepEqual([notes.referrer, notes.campaign], [referrer, campaign]);
    });
  }

  test('clocks that differ, and times as the producer has them', async () => {
    const before = Date.now();
    const created = before + 10 * CLOCK;
    const { notes, says } = await through({ clock: { from_ms: CLOCK } }, { created });
    assert.equal(says.header.created, created);
    assert.ok(notes.skew >= before - created && notes.skew < 0, String(notes.skew));
    const near = await through({ clock: { from_ms: 60 * CLOCK } }, { created });
    assert.equal(near.notes.skew, 0);
  });

  test('a source stands for the visit where the producer names none', async () => {
    const rules = { session: 'source' };
    assert.deepEqual((await through(rules)).notes.effects, ['session']);
    assert.deepEqual((await through(rules, { context: { ...PAGE, sessionId: 's-1' } })).notes.effects, []);
  });

  test('lists and hashes', async () => {
    const rules = { ids: { user: 'hash', anonymous: 'remove' }, properties: { allow: ['sku', 'email'], hash: ['email'] }, campaign: { cut_click_ids: true } };
    const { notes, says, annotation } = await through(rules, { hashed: {} });
    assert.deepEqual(notes.effects, ['rewritten', 'removed', 'hashed', 'cut-click-ids']);
    assert.deepEqual(says.rewritten, { suppressed: false, trusted: false });
    const [{ context, properties, name }] = says.events;
    assert.deepEqual([name, properties], ['Bought', { sku: 'G-32', email: hash('ada@example.com') }]);
    assert.deepEqual([context.userId, context.anonymousId, context.url], [hash('ada'), null, 'https://shop.example/p?a=1&utm_source=news#top']);
    assert.equal(annotation.trust, 'write-key');
  });

  for (const [what, hashed] of [
    ['without a key', undefined],
    ['with a key of another generation', { hashGeneration: 1 }],
  ]) {
    test(`${what} nothing is hashed here: the server does it all`, async () => {
      const { notes, inside, sent } = await through({ ids: { user: 'hash' }, place: { network: false } }, { hashed, headers: { 'cf-connecting-ip': '192.0.2.77' } });
      assert.deepEqual(notes.effects, ['unread']);
      assert.deepEqual(inside, sent);
    });
  }

  test('Segment’s events go through the same rules', async () => {
    const tenant = new RulesTenant(number++, { ids: { user: 'hash' }, properties: { deny: ['email'] }, place: { precision: 'city' } }, {});
    const { server, edge } = await pair({ tenants: [tenant] });
    const body = JSON.stringify({ type: 'track', event: 'Bought', userId: 'ada', messageId: 'm-1', properties: { sku: 'G-32', email: 'ada@example.com' } });
    const headers = { authorization: `Basic ${Buffer.from(`${tenant.writeKey}:`).toString('base64')}`, 'content-type': 'application/json', ...said({ colo: 'ZRH', country: 'CH', city: 'Zürich' }) };
    const answer = await fetch(`${edge.url}/v1/track`, { method: 'POST', headers, body });
    assert.equal(answer.status, 200);
    const envelope = tenant.open(server.received[0].body);
    const [event] = kit({ do: 'read', frame: envelope.frame }).events;
    assert.deepEqual([event.id, event.context.userId, event.properties, envelope.notes.city], ['m-1', hash('ada'), { sku: 'G-32' }, 'Zürich']);
  });

  test('Segment’s consent is judged as a page’s, by the tenant’s own categories', async () => {
    const rules = { consent: { required: ['analytics'], without: 'suppress', categories: { analytics: ['Statistics'], marketing: ['Ads'] } } };
    const tenant = new RulesTenant(number++, rules);
    const { server, edge } = await pair({ tenants: [tenant] });
    const message = (event, categoryPreferences) => ({ type: 'track', event, messageId: event, userId: 'ada', context: { consent: { categoryPreferences } } });
    const batch = [message('Bought', { Statistics: true, Ads: true }), message('Held', { Analytics: true }), message('Sold', { Statistics: true, Ads: true }), { type: 'track', event: 'Silent', messageId: 'Silent', userId: 'ada' }];
    const headers = { authorization: `Bearer ${tenant.writeKey}`, 'content-type': 'application/json', ...said({ colo: 'ZRH', country: 'CH' }) };
    const send = async (more = {}) => {
      server.forget();
      const answer = await fetch(`${edge.url}/v1/batch`, { method: 'POST', headers: { ...headers, ...more }, body: JSON.stringify({ batch }) });
      assert.equal(answer.status, 200, await answer.clone().text());
      return server.opened().map(({ frame, notes }) => ({ says: kit({ do: 'read', frame }), effects: notes.effects, inside: bytes(frame) }));
    };
    const [good, held] = await send();
    assert.deepEqual([good.says.header.consent, good.effects, good.says.events.map(({ name }) => name)], [ANALYTICS | MARKETING, [], ['Bought', 'Sold']]);
    assert.deepEqual([held.says.header.consent, held.effects, held.says.events.map(({ id }) => id)], [0, ['rewritten', 'suppressed'], ['Held', 'Silent']]);
    for (const trace of ['ada', 'Analytics']) assert.ok(!held.inside.includes(trace) && good.inside.includes('ada'), trace);
    // What the browser signals takes back what the call says, too.
    const [withdrawn] = await send({ 'sec-gpc': '1' });
    assert.deepEqual(withdrawn.effects, ['gpc']);
  });

  test('the spool keeps what was noted, and what is signed anew says it too', async () => {
    const tenant = new RulesTenant(number++, { consent: { required: ['analytics'], without: 'suppress' }, place: { precision: 'city' } });
    const { server, send, restartEdge } = await pair({ tenants: [tenant], persist: true });
    const frame = (options) => tenant.frame({ source: newSource(), events: [BOUGHT], context: PAGE, ...options });
    const from = said({ colo: 'ZRH', country: 'CH', city: 'Zürich' });
    assert.equal((await send(frame({ consent: ANALYTICS }), from)).status, 200);
    server.forget();
    await server.stop();
    for (const consent of [ANALYTICS, NECESSARY]) {
      const receipt = await (await send(frame({ consent }), from)).json();
      assert.equal(receipt.spooled, 1);
    }
    // What the edge signs with from now on is another root's: what it has in its spool it signs anew.
    tenant.rotate();
    await server.restart();
    await restartEdge();
    // The store of leases has the old ones, until a frame of a write key that it does not know makes it ask.
    const strange = () => tenant.frame({ source: newSource(), writeKey: `fh_${tenant.id}_${'n'.repeat(24)}` });
    // What is signed with the old ones the server cannot open, and so does not answer.
    const opened = () => server.stored.flatMap((envelope) => {
      try {
        return [tenant.open(envelope)];
      } catch {
        return [];
      }
    });
    await until('both to come', async () => (await send(strange(), from)) && opened().filter(({ annotation }) => !annotation.refused).length >= 2, { every: 1000 });
    const taken = opened().filter(({ annotation }) => !annotation.refused);
    const notes = taken.map(({ notes: { effects, city }, annotation: { country } }) => ({ effects, city, country }));
    assert.deepEqual(notes.sort((a, b) => a.effects.length - b.effects.length), [
      { effects: [], city: 'Zürich', country: 'CH' },
      { effects: ['rewritten', 'suppressed'], city: '', country: 'CH' },
    ]);
  });
});
