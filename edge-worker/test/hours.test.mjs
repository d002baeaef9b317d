// Hours at the edge, by a clock that the test moves: the grace in which keys serve without their server, rotation and revocation.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { Tally } from '../../tests/spine/parts.mjs';
import { pair, refusal, serverOf } from './pair.mjs';
import { PolicyTenant } from './regions.mjs';
import { newSource, problem } from './server.mjs';
import { until } from './wait.mjs';

const [MINUTE, HOUR] = [60_000, 3_600_000];
const NEAR = { 'mf-cf-blob': JSON.stringify({ colo: 'FRA', country: 'DE' }) };
const policy = { regions: [{ code: 'EU' }] };
const tenantOf = (number) => new PolicyTenant(number, policy);
after(() => Tally.print());

/** An edge whose keys come from a server of their own, at five minutes past an hour. */
async function parts(number) {
  const tenant = tenantOf(number);
  const keys = await serverOf(tenant);
  const it = await pair({ tenants: [tenant], moved: true, persist: true, LEASES: keys.url, SPOOL_RETRY_MS: '50' });
  keys.now = it.clock.now;
  await it.clock.stop();
  await it.clock.pass(HOUR - (it.clock.now() % HOUR) + 5 * MINUTE);
  return { ...it, keys, page: new Page(it) };
}

/** A page that keeps what was not acknowledged. */
class Page {
  source = newSource();
  sent = [];
  kept = [];
  figures = { acknowledged: 0, spooled: 0 };

  constructor(it) {
    this.it = it;
  }

  /** Sends one more event; the answer's status. */
  async send() {
    const first = this.sent.length;
    const body = this.it.tenant.frame({ source: this.source, first, batch: first });
    this.sent.push(body);
    return this.#post(body);
  }

  async #post(body) {
    const answer = await this.it.send(body, NEAR);
    if (answer.status === 200) {
      const { count, spooled = 0 } = await answer.json();
      this.figures.acknowledged += count;
      this.figures.spooled += spooled;
    } else {
      const { retryable } = await refusal(answer, 503, 'unavailable');
      assert.ok(retryable && /^[1-9]\d*$/.test(answer.headers.get('retry-after')));
      this.kept.push(body);
    }
    return answer.status;
  }

  /** Sends again what it still has. */
  async retry() {
    for (const body of this.kept.splice(0)) await this.#post(body);
  }

  /** What became of all of it. */
  async settle(what) {
    const stored = () => this.it.server.framesStored().filter(({ source }) => source === this.source).map(({ firstSeq }) => firstSeq);
    await until('all of it at the server', () => new Set(stored()).size === this.sent.length);
    const seqs = stored();
    const duplicates = seqs.length - new Set(seqs).size;
    const lost = this.sent.filter((_, seq) => !seqs.includes(seq)).length;
    new Tally(what, { sent: this.sent.length, ...this.figures, stored: new Set(seqs).size, duplicates, lost });
    assert.deepEqual([this.figures.acknowledged, duplicates, lost, this.kept.length], [this.sent.length, 0, 0, 0]);
  }
}

describe('hours', { concurrency: 2 }, () => {
  test('without the key server: frames are taken until the last lease ends, then the pages keep them, and all goes on when it is back', async () => {
    const it = await parts(1);
    const { clock, keys, page } = it;
    assert.equal(await page.send(), 200);
    const end = (Math.floor(clock.now() / HOUR) + 2) * HOUR;
    await keys.stop();
    const statuses = [];
    while (clock.now() < end + 30 * MINUTE) {
      await clock.pass(10 * MINUTE);
      statuses.push([clock.now() < end, await page.send()]);
    }
    assert.deepEqual(statuses.map(([within]) => within).filter(Boolean).length, 11, 'an hour and fifty minutes');
    assert.deepEqual(statuses.filter(([within, status]) => status !== (within ? 200 : 503)), []);
    assert.equal(page.kept.length, 4);
    // Nor does a new isolate find keys that have ended.
    await it.restartEdge();
    await page.retry();
    assert.equal(page.kept.length, 4);
    await keys.restart();
    await clock.pass(10_000);
    await page.retry();
    assert.equal(await page.send(), 200);
    await page.settle('the key server away for hours');
  });

  test('without any server: what comes while there are keys waits in the spool, longer than the keys last', async () => {
    const it = await parts(2);
    const { clock, keys, server, page } = it;
    assert.equal(await page.send(), 200);
    await keys.stop();
    await server.stop();
    for (let i = 0; i < 11; i += 1) {
      await clock.pass(10 * MINUTE);
      assert.equal(await page.send(), 200);
    }
    assert.equal(page.figures.spooled, 11);
    await clock.pass(10 * MINUTE);
    assert.equal(await page.send(), 503);
    await clock.pass(6 * HOUR);
    assert.equal(await page.send(), 503);
    await it.restartEdge();
    const before = page.sent.length;
    await server.restart();
    await keys.restart();
    await clock.pass(HOUR);
    await page.retry();
    assert.equal(await page.send(), 200);
    assert.equal(page.sent.length, before + 1);
    await page.settle('all servers away for hours');
    // What waited is under a lease of now, because those of then have ended.
    const epochs = server.opened().map(({ header }) => header.epoch);
    assert.ok(epochs.slice(1).every((epoch) => epoch >= Math.floor(clock.now() / HOUR) - 1), `${epochs}`);
  });

  test('a new root is signed with within minutes, by an isolate that goes on', async () => {
    const { tenant, clock, server, page } = await parts(3);
    assert.equal(await page.send(), 200);
    tenant.keyId += 1;
    const began = clock.now();
    await until('a frame under the new root', async () => {
      await clock.pass(MINUTE);
      assert.equal(await page.send(), 200);
      return server.stored.at(-1).readUInt32LE(32) === tenant.keyId;
    });
    assert.ok(clock.now() - began < HOUR, `${(clock.now() - began) / MINUTE} minutes`);
    await page.settle('a root replaced under way');
  });

  test('a revoked enrolment ends within minutes, whatever it was leased', async () => {
    const { clock, keys, page } = await parts(4);
    assert.equal(await page.send(), 200);
    keys.leaseAlways = (response) => problem(response, 401, 'wrong-enrolment');
    const began = clock.now();
    await until('the edge to stop', async () => {
      await clock.pass(MINUTE);
      return (await page.send()) === 503;
    });
    assert.ok(clock.now() - began < HOUR, `${(clock.now() - began) / MINUTE} minutes`);
    // Enrolled again, the page loses nothing by it.
    keys.leaseAlways = undefined;
    await clock.pass(10_000);
    await page.retry();
    await page.settle('an enrolment revoked and renewed');
  });
});
