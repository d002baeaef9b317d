// Faults done to the edge, with the real server behind it: what was acknowledged is stored, once, and in order.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Tally } from '../../tests/spine/parts.mjs';
import { Page, parts } from './real.mjs';
import { until } from './wait.mjs';
import { workerdOf } from './worker.mjs';

/** Ends the runtime at once: nothing is flushed, nothing is said. */
async function kill(edge) {
  process.kill(workerdOf(edge), 'SIGKILL');
  await edge.dispose();
}

/** Something to wait for, and what makes it happen. */
function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return [opened, open];
}

/** Waits for all that was acknowledged, and says what became of it. */
async function settle(what, server, pages) {
  for (const page of pages) await until(`${page.sent} rows`, () => page.rows().length >= page.sent);
  const sum = (of) => pages.reduce((total, page) => total + of(page), 0);
  const rows = pages.map((page) => page.rows());
  const figures = {
    sent: sum((page) => page.sent),
    acknowledged: sum((page) => page.acknowledged),
    spooled: sum((page) => page.spooled),
    stored: rows.flat().length,
    duplicates: rows.reduce((total, seqs) => total + seqs.length - new Set(seqs).size, 0),
    lost: pages.reduce((total, page, i) => total + Array.from({ length: page.sent }, (_, seq) => seq).filter((seq) => !rows[i].includes(seq)).length, 0),
  };
  new Tally(what, figures);
  assert.deepEqual(figures, { ...figures, acknowledged: figures.sent, stored: figures.sent, duplicates: 0, lost: 0 });
  for (const seqs of rows) assert.deepEqual(seqs, [...seqs].sort((a, b) => a - b), 'in order');
}

describe('faults', { concurrency: 2 }, () => {
  test('workerd restarts with frames in its spool', async () => {
    const { server, start, folder } = await parts();
    const kept = await folder();
    let edge = await start(kept);
    const pages = [new Page(server), new Page(server), new Page(server)];
    for (const page of pages) await page.send(edge);
    await server.stop();
    for (let i = 0; i < 5; i += 1) for (const page of pages) assert.equal((await page.send(edge)).spooled, 1);
    await edge.dispose();
    edge = await start(kept);
    // The leases, too, are there: the server is still away.
    for (const page of pages) assert.equal((await page.send(edge)).spooled, 1);
    await server.start();
    await settle('workerd restarts with frames in its spool', server, pages);
  });

  for (const [where, has] of [
    ['before the server has it', false],
    ['when the server has it, and has not said so yet', true],
  ]) {
    test(`workerd is killed in the middle of a forward, ${where}`, async () => {
      const { server, wire, start, folder } = await parts();
      const kept = await folder();
      let edge = await start(kept);
      const page = new Page(server);
      await page.send(edge);
      await until('the row of what came before', () => page.rows().length === 1);
      const [held, release] = gate();
      const [under, isUnder] = gate();
      const body = page.frame();
      // It is this very frame that is held, on its way there or back.
      wire.tamper = (request) => {
        if (request.path !== '/v1/e' || !request.body.includes(body)) return undefined;
        wire.tamper = () => undefined;
        const hold = () => {
          isUnder();
          return held;
        };
        return has ? hold : hold().then(() => 'cut');
      };
      const cut = page.post(edge, body).then((answer) => answer.status, () => 'cut');
      await under;
      if (has) await until('it in the journal', () => page.rows().length === 2);
      await kill(edge);
      assert.equal(await cut, 'cut', 'nobody was told anything');
      release();
      assert.equal(page.rows().length, has ? 2 : 1);
      edge = await start(kept);
      const receipt = await page.send(edge, body);
      assert.deepEqual([receipt.stored, receipt.duplicate], has ? [0, 1] : [1, 0]);
      await page.send(edge);
      await settle(`killed in a forward, ${where}`, server, [page]);
    });
  }

  test('workerd is killed again and again with frames in its spool', async () => {
    const { server, start, folder } = await parts();
    const kept = await folder();
    let edge = await start(kept);
    const pages = [new Page(server), new Page(server), new Page(server)];
    for (const page of pages) await page.send(edge);
    await server.stop();
    for (let round = 0; round < 5; round += 1) {
      for (const page of pages) for (let i = 0; i < 2; i += 1) assert.equal((await page.send(edge)).spooled, 1);
      await kill(edge);
      edge = await start(kept);
      // What was acknowledged is on disk: a retry is known.
      for (const page of pages) {
        const answer = await page.post(edge, page.last);
        assert.equal(answer.status, 200);
        const { duplicate, spooled = 0 } = await answer.json();
        assert.deepEqual([duplicate, spooled], [1, 0], `round ${round}`);
      }
    }
    await server.start();
    await settle('killed five times with a spool', server, pages);
  });

  test('workerd is killed while its spool delivers', async () => {
    const { server, wire, start, folder } = await parts();
    const kept = await folder();
    let edge = await start(kept);
    const page = new Page(server);
    await page.send(edge);
    await server.stop();
    for (let i = 0; i < 6; i += 1) assert.equal((await page.send(edge)).spooled, 1);
    // One frame after the other is stored and not acknowledged: each time, workerd ends at that moment.
    for (let round = 0; round < 2; round += 1) {
      const [under, isUnder] = gate();
      const [held, release] = gate();
      wire.tamper = () => ({ status, answer }) => {
        if (status !== 200 || !(JSON.parse(answer).stored > 0)) return undefined;
        isUnder();
        return held;
      };
      if (round === 0) await server.start();
      // Behind what waits; and what comes wakes the spool at once. After the last round nothing comes, and it wakes up by itself.
      else assert.equal((await page.send(edge)).spooled, 1);
      await under;
      await kill(edge);
      wire.tamper = () => undefined;
      release();
      edge = await start(kept);
    }
    await settle('killed twice while the spool delivers', server, [page]);
    // Each of the two came again, and was known.
    await until('the duplicates to be counted', async () => (await server.metric('firsthop_events_total', { outcome: 'duplicate' })) >= 2);
  });

  test('two edges have the same frames', async () => {
    const { server, start } = await parts();
    const edges = [await start(), await start()];
    const page = new Page(server);
    // Each has its leases.
    await new Page(server).send(edges[1]);
    await page.send(edges[0]);
    await server.stop();
    const frames = Array.from({ length: 6 }, () => page.frame());
    for (const body of frames) for (const edge of edges) assert.equal((await page.send(edge, body)).spooled, 1);
    page.acknowledged = page.sent;
    await server.start();
    await settle('two edges with the same frames', server, [page]);
    await until('both spools to be through', async () => (await server.metric('firsthop_events_total', { outcome: 'duplicate' })) === frames.length);
    assert.equal(page.rows().length, page.sent);
  });

  test('the root is replaced, and ends at once, while frames wait that were signed under it', async () => {
    const { server, start } = await parts();
    const edge = await start();
    const page = new Page(server);
    await page.send(edge);
    await server.stop();
    for (let i = 0; i < 4; i += 1) assert.equal((await page.send(edge)).spooled, 1);
    await server.command('key', 'rotate', '--tenant', 'shop', '--grace', '0s');
    await server.start();
    await settle('the root replaced while frames wait', server, [page]);
    // What waited had been signed under the old one: the server would not have it, and then it came under the new one.
    assert.ok((await server.metric('firsthop_refused_total', { code: 'unknown-key' })) >= 1);
  });
});
