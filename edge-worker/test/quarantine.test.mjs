// Poison in the spool, with the real server behind it: what the server will not have ends in its quarantine, where an operator finds it, and stops nothing else.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Tally } from '../../tests/spine/parts.mjs';
import { Clock } from './clock.mjs';
import { Page, parts } from './real.mjs';
import { until } from './wait.mjs';

/** All in one shard, and a token to look into it. */
const ONE = { SPOOL_SHARDS: '1', STATUS_TOKEN: 'operators' };
/** A public key whose private half nobody has. */
const STRANGE = 'CSC0+2Z2cLHFDjP5cZb9jmKb7BkOKA7xrpvSBJJ5CBs=';

const random = () => Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64');
/** Sources that come first in any order: by when they were made, and by their ids. */
const early = (n) => `00000000-0000-7000-8000-${`${n}`.padStart(12, '0')}`;

async function spool(edge) {
  const answer = await fetch(`${edge.url}/statusz`, { headers: { authorization: `Bearer ${ONE.STATUS_TOKEN}` } });
  return (await answer.json()).tenants[0].spool;
}

/** What `firsthop quarantine list` says: of each reason how many entries and events, those that come again counted as often. */
async function quarantined(server) {
  const lines = (await server.command('quarantine', 'list', '--tenant', 'shop', '--limit', '1000', '--json')).split('\n').filter(Boolean);
  const sums = {};
  for (const { reason, events } of lines.map((line) => JSON.parse(line))) {
    const [entries, all] = sums[reason] ?? [0, 0];
    sums[reason] = [entries + 1, all + events];
  }
  return sums;
}

/** Two messages of Segment's, of which the second is too deep to be one. */
function segment(server, edge, id) {
  const nested = (depth) => (depth === 0 ? 1 : { a: nested(depth - 1) });
  const batch = [{ messageId: id }, { messageId: `${id}-deep`, properties: { deep: nested(40) } }].map((more) => ({ type: 'track', event: 'Said', userId: 'u-1', ...more }));
  return fetch(`${edge.url}/v1/batch`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ writeKey: server.writeKey, batch }) });
}

describe('poison in the spool', { concurrency: 2 }, () => {
  test('of several kinds and many sources is in quarantine, and what is good among it is stored, in order', async () => {
    const { server, start } = await parts(ONE);
    await server.command('region-key', 'new', '--tenant', 'shop');
    const { keys: [region] } = JSON.parse(await server.command('region-key', 'config', '--tenant', 'shop', '--form', 'json'));
    const edge = await start();
    const pages = Array.from({ length: 3 }, () => new Page(server));
    for (const page of pages) await page.send(edge);
    await until('their rows', () => server.rows().length === pages.length);
    await server.stop();

    /** Each kind is one that the edge cannot know, or the server alone can. */
    const KINDS = {
      'bad-seal': { sealTo: { id: region.id, public: STRANGE } },
      'sealed-unsupported': { sealTo: { id: region.id + 7, public: STRANGE } },
      'bad-count': { events: [] },
    };
    const EACH = 8;
    // More of them than are sent at a time, before all others, and each with something good behind it.
    const bad = [];
    for (const [reason, kind] of Object.entries(KINDS)) {
      for (let i = 0; i < EACH; i += 1) {
        const page = Object.assign(new Page(server, early(bad.length)), { poison: reason });
        const poison = page.frame({ ...kind, ...(kind.sealTo && { sealTo: { ...kind.sealTo, random: random() } }) });
        assert.equal((await page.send(edge, poison)).spooled ?? 0, page.sent);
        page.stored = page.sent;
        bad.push(page);
      }
    }
    for (const page of [...bad, ...pages]) for (let i = 0; i < 2; i += 1) assert.equal((await page.send(edge)).spooled, 1);
    // The same number as before, and another event.
    for (const page of pages) assert.equal((await page.send(edge, page.frame({ firstSeq: 0, events: [{ name: 'Other' }] }))).spooled, 1);
    const said = Array.from({ length: EACH }, (_, i) => `said-${i}`);
    for (const id of said) {
      const answer = await segment(server, edge, id);
      assert.deepEqual([answer.status, answer.headers.get('firsthop-receipt')], [200, 'stored=0, duplicate=0, conflict=0, quarantined=1, spooled=1']);
    }
    for (const page of pages) assert.equal((await page.send(edge)).spooled, 1);
    const { takenFrames, takenEvents } = await spool(edge);

    await server.start();
    await until('the spool to be empty', async () => (await spool(edge)).frames === 0);
    const good = [...bad, ...pages];
    const expected = good.reduce((sum, page) => sum + page.sent, 0) - 2 * EACH + said.length;
    await until('all that is good', () => server.rows().length >= expected);
    const aside = await quarantined(server);
    assert.deepEqual(aside, {
      'bad-seal': [EACH, EACH],
      'sealed-unsupported': [EACH, EACH],
      'bad-count': [EACH, 0],
      'json-too-deep': [EACH, EACH],
      conflict: [pages.length, pages.length],
    });

    const rows = server.rows();
    const ids = rows.map(({ event_id }) => event_id);
    const sent = good.reduce((sum, page) => sum + page.sent, 0) + pages.length + 2 * said.length;
    const acknowledged = good.reduce((sum, page) => sum + page.acknowledged, 0) + 2 * said.length;
    const kept = Object.values(aside).reduce((sum, [, events]) => sum + events, 0);
    const figures = { sent, acknowledged, spooled: takenEvents, stored: new Set(ids).size, quarantined: kept, duplicates: ids.length - new Set(ids).size, lost: sent - new Set(ids).size - kept };
    new Tally(`${takenFrames} frames, ${Object.values(aside).reduce((sum, [entries]) => sum + entries, 0)} of them poison`, figures);
    assert.deepEqual(figures, { sent, acknowledged: sent, spooled: sent - pages.length, stored: expected, quarantined: sent - expected, duplicates: 0, lost: 0 });
    for (const page of bad) assert.deepEqual(page.rows(), page.poison === 'bad-count' ? [0, 1] : [1, 2], page.poison);
    for (const page of pages) assert.deepEqual(page.rows(), [0, 1, 2, 3]);
    assert.deepEqual(rows.filter(({ name }) => name === 'Said').map(({ foreign_id }) => foreign_id).sort(), said);
    // The balance says the same.
    await server.command('reconcile', '--tenant', 'shop', '--grace', '0s');
  });

  test('for which quarantine has no room waits by itself, and goes when there is some', async () => {
    const clock = new Clock();
    const { server, start } = await parts(ONE, { FIRSTHOP_QUARANTINE: '4KiB', clock });
    const edge = await start();
    const pages = Array.from({ length: 4 }, () => new Page(server));
    for (const page of pages) await page.send(edge);
    await until('their rows', () => server.rows().length === pages.length);
    // As large as there is room.
    const large = (n) => ({ firstSeq: 0, events: [{ name: 'Other', properties: { n, text: 'x'.repeat(3_000) } }] });
    await server.stop();
    for (const [n, page] of pages.entries()) assert.equal((await page.send(edge, page.frame(large(n)))).spooled, 1);
    const others = Array.from({ length: 12 }, () => new Page(server));
    for (const page of others) for (let i = 0; i < 2; i += 1) assert.equal((await page.send(edge)).spooled, 1);

    await server.start();
    const all = pages.length + 2 * others.length;
    await until('all that is good', () => server.rows().length === all);
    await until('as many in quarantine as have room, and the others in the spool', async () => {
      const { conflict: [entries] } = await quarantined(server);
      return entries < pages.length && (await spool(edge)).frames === pages.length - entries;
    });
    // Nobody waits for it: what comes goes by itself.
    const { stored } = await until('a frame to go to the server', async () => {
      const receipt = await others[0].send(edge);
      return receipt.stored === 1 && receipt;
    });
    assert.equal(stored, 1);

    let discarded = 0;
    const makeRoom = async () => {
      const { conflict: [entries] = [0] } = await quarantined(server);
      if (entries > 0) {
        await server.command('quarantine', 'discard', '--tenant', 'shop', '--all', '--yes', '--why', 'a test');
        discarded += entries;
      }
      // The minute after which the server wants to be asked again.
      await clock.pass(61_000);
      return discarded >= pages.length;
    };
    await until('all of it to have been in quarantine', makeRoom, { every: 1_000 });
    await until('the spool to be empty', async () => (await spool(edge)).frames === 0);
    assert.equal(discarded, pages.length);
    for (const page of [...pages, ...others]) assert.deepEqual(page.rows(), Array.from({ length: page.sent }, (_, seq) => seq));
    await server.command('reconcile', '--tenant', 'shop', '--grace', '0s');
  });
});
