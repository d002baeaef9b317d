// Segment's own Node SDK, as published and unmodified, sends to the edge and to the server; it is told nothing but another host.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Analytics } from '@segment/analytics-node';

import { Server, startEdge } from './parts.mjs';

const COUNT = 60;

for (const hop of ['edge', 'server']) {
  test(`@segment/analytics-node to the ${hop}`, { timeout: 60_000 }, async () => {
    const server = await Server.create();
    const edge = await startEdge(server);
    try {
      const errors = [];
      const analytics = new Analytics({ writeKey: server.writeKey, host: hop === 'edge' ? edge.url : server.url, flushAt: 7 });
      analytics.on('error', (error) => errors.push(error));
      const timestamp = new Date();
      const order = (i) => ({
        userId: `u-${i % 3}`,
        event: 'Order Completed',
        messageId: `m-${i}`,
        timestamp,
        properties: { n: i, total: i + 0.5, tags: ['é', null] },
      });
      for (let i = 0; i < COUNT; i += 1) analytics.track(order(i));
      analytics.identify({ userId: 'u-1', traits: { plan: 'pro' } });
      // The same message again, as after an answer that was lost.
      analytics.track(order(0));
      await analytics.closeAndFlush({ timeout: 20_000 });
      assert.deepEqual(errors, []);

      const rows = await server.rowsWhen(COUNT + 1);
      assert.equal(rows.length, COUNT + 1, 'each once');
      const orders = new Map(rows.filter((row) => row.kind === 'track').map((row) => [row.foreign_id, row]));
      for (let i = 0; i < COUNT; i += 1) {
        const row = orders.get(`m-${i}`);
        assert.equal(row.user_id, `u-${i % 3}`);
        assert.equal(row.name, 'Order Completed');
        assert.deepEqual(JSON.parse(row.properties), order(i).properties);
      }
      assert.equal(await server.metric('firsthop_events_total', { outcome: 'duplicate' }), 1);
    } catch (error) {
      console.error([...edge.log, server.log].join('\n'));
      throw error;
    } finally {
      await edge.dispose();
      await server.dispose();
    }
  });
}
