// A real server, a wire that leads to it, edges in front of them, and pages that send: for the files that do something to one of them.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after } from 'node:test';

import { Server, Tally, Wire } from '../../tests/spine/parts.mjs';
import { bytes, kit, newSource } from './server.mjs';
import { until } from './wait.mjs';
import { startWorker } from './worker.mjs';

const stops = [];
after(async () => {
  for (const stop of stops.reverse()) await stop();
  Tally.print();
});

/** A server with these settings, a wire that leads to it, and what starts edges in front of them; by a clock that a test moves, if there is one. */
export async function parts(more = {}, { clock, ...settings } = {}) {
  const server = await Server.create(settings);
  stops.push(() => server.dispose());
  const wire = await Wire.create(server.url);
  stops.push(() => wire.dispose());
  const variables = { UPSTREAM: wire.url, LEASES: server.internalUrl, REGION: 'EU', ENROLMENTS: server.enrolment, SPOOL_RETRY_MS: '50', ...more };
  const start = async (folder) => {
    const edge = await (clock?.start ?? startWorker)(variables, { folder });
    let stopped;
    const dispose = edge.dispose;
    edge.dispose = () => (stopped ??= dispose());
    stops.push(() => edge.dispose());
    return edge;
  };
  const folder = async () => {
    const made = await mkdtemp(path.join(tmpdir(), 'firsthop-edge-'));
    stops.push(() => rm(made, { recursive: true, force: true }));
    return made;
  };
  return { server, wire, start, folder };
}

/** One page: it numbers its events, and sends a frame until it is acknowledged. */
export class Page {
  sent = 0;
  frames = 0;
  acknowledged = 0;
  spooled = 0;

  constructor(server, source = newSource()) {
    Object.assign(this, { server, source });
  }

  /** The next one, with one event unless something else is wanted. */
  frame(more = {}) {
    const { source, session, sent: first } = this;
    const wanted = { do: 'frame', tenant: this.server.tenant, source, region: 'EU', firstSeq: first, batchSeq: this.frames, created: Date.now(), events: [{ name: `E${first}` }], ...more };
    this.sent = Math.max(first, wanted.firstSeq + wanted.events.length);
    this.frames += 1;
    this.last = bytes(kit({ ...wanted, ...(session ? { session } : { writeKey: this.server.writeKey }) }).frame);
    return this.last;
  }

  post(edge, body) {
    return fetch(`${edge.url}/v1/f`, { method: 'POST', body });
  }

  async send(edge, body = this.frame()) {
    const receipt = await until('an acknowledgement', async () => {
      const answer = await this.post(edge, body);
      return answer.status === 200 && answer.json();
    });
    assert.equal(receipt.stored + receipt.duplicate + receipt.conflict + (receipt.spooled ?? 0), receipt.count);
    assert.equal(receipt.conflict, 0);
    this.session ??= receipt.session;
    this.acknowledged += receipt.count;
    this.spooled += receipt.spooled ?? 0;
    return receipt;
  }

  rows() {
    return this.server.rows().filter((row) => row.source === this.source).map(({ seq }) => seq);
  }
}
