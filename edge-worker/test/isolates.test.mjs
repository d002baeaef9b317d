// Isolates of one edge: what they know of each other, with the same spool and the same keys behind them.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { Tally } from '../../tests/spine/parts.mjs';
import { Clock } from './clock.mjs';
import { serverOf } from './pair.mjs';
import { Tenant, newSource, problem } from './server.mjs';
import { until } from './wait.mjs';
import { modules } from './worker.mjs';

after(() => Tally.print());

/** An edge of three isolates. The objects are the first one's, which goes by the clock; all of them ask those. What waits does so until `pass`. */
async function edge() {
  const tenant = new Tenant(0xc8);
  const server = await serverOf(tenant);
  const bindings = { UPSTREAM: server.url, REGION: 'EU', ENROLMENTS: tenant.enrolment, SPOOL_SHARDS: '1', SPOOL_RETRY_MS: '60000' };
  const objects = (className) => ({ className, scriptName: 'edge', useSQLite: true });
  const another = (name) => ({ name, modules: modules(), bindings, durableObjects: { SPOOL: objects('Spool'), LEASE_STORE: objects('Leases') }, routes: [`${name}.test/*`] });
  const clock = new Clock();
  const it = await clock.start(bindings, { more: ['second', 'third'].map(another) });
  const send = (isolate) => (body) => it.miniflare.dispatchFetch(`http://${isolate}.test/v1/f`, { method: 'POST', body });
  return { tenant, server, first: send('edge'), second: send('second'), third: send('third'), pass: () => clock.pass(600_000), dispose: it.dispose };
}

/** One page: what was acknowledged to it, and as what. */
class Page {
  source = newSource();
  sent = 0;
  became = { acknowledged: 0, spooled: 0, again: 0 };

  constructor(tenant) {
    this.tenant = tenant;
  }

  frame() {
    const first = this.sent;
    this.sent += 1;
    return this.tenant.frame({ source: this.source, first, batch: first });
  }

  async send(isolate, body) {
    const retry = Boolean(body);
    const answer = await isolate(body ?? this.frame());
    assert.equal(answer.status, 200);
    const { count, stored, duplicate, spooled = 0 } = await answer.json();
    if (!retry) this.became.acknowledged += count;
    this.became.spooled += spooled;
    this.became.again += duplicate;
    return stored ? 'stored' : spooled ? 'spooled' : 'known';
  }

  /** The first numbers of its frames, in the order in which the server had them. */
  order(server) {
    return server.framesStored().filter(({ source }) => source === this.source).map(({ firstSeq }) => firstSeq);
  }

  settle(what, server) {
    const seqs = this.order(server);
    const { acknowledged, spooled } = this.became;
    const [stored, duplicates] = [new Set(seqs).size, seqs.length - new Set(seqs).size];
    new Tally(what, { sent: this.sent, acknowledged, spooled, stored, duplicates, lost: this.sent - stored });
    assert.deepEqual([acknowledged, stored, duplicates], [this.sent, this.sent, 0]);
  }
}

const away = (request, response) => problem(response, 503, 'unavailable');

describe('isolates', { concurrency: 2 }, () => {
  test('have one spool: a frame that waits is known to all of them, and goes to the server once', async () => {
    const { tenant, server, first, second, third, pass, dispose } = await edge();
    try {
      const page = new Page(tenant);
      for (const isolate of [first, second]) assert.equal(await page.send(isolate), 'stored');
      server.always = (request, response) => away(request, response) ?? true;
      const body = page.frame();
      page.became.acknowledged += 1;
      assert.equal(await page.send(first, body), 'spooled');
      for (const isolate of [first, second, third]) assert.equal(await page.send(isolate, body), 'known');
      // Also when they have it at the same time.
      const both = page.frame();
      page.became.acknowledged += 1;
      assert.deepEqual((await Promise.all([first, second, third].map((isolate) => page.send(isolate, both)))).sort(), ['known', 'known', 'spooled']);
      server.always = undefined;
      await pass();
      await until('all of it at the server', () => page.order(server).length === page.sent);
      assert.deepEqual(page.order(server), [0, 1, 2, 3]);
      page.settle('three isolates, the same frames', server);
    } finally {
      await dispose();
    }
  });

  test('keep a source’s order where they have asked the spool; one that has not is sooner, and what it sends is stored once all the same', async () => {
    const { tenant, server, first, second, third, pass, dispose } = await edge();
    try {
      const page = new Page(tenant);
      // Two that are warm: the spool has told both that it is empty.
      for (const isolate of [first, second]) assert.equal(await page.send(isolate), 'stored');
      server.plans.push(away);
      assert.equal(await page.send(first), 'spooled');
      // The server is back at once; 2 waits for its pause. This isolate has heard of nothing, and passes it.
      assert.equal(await page.send(second), 'stored');
      // The one that has spooled it goes behind it, and so does one that has just started, and asks.
      assert.equal(await page.send(first), 'spooled');
      assert.equal(await page.send(third), 'spooled');
      // And one that meets with the failure itself.
      server.plans.push(away);
      assert.equal(await page.send(second), 'spooled');
      assert.equal(await page.send(second), 'spooled');
      await pass();
      await until('all of it at the server', () => page.order(server).length === page.sent);
      assert.deepEqual(page.order(server), [0, 1, 3, 2, 4, 5, 6, 7]);
      page.settle('three isolates, one source', server);
    } finally {
      await dispose();
    }
  });
});
