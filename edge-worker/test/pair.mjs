// An edge and the stand-in for its server, for one test or for a file of them.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after } from 'node:test';

import { Clock } from './clock.mjs';
import { FakeServer, Tenant } from './server.mjs';
import { startWorker } from './worker.mjs';

const stops = [];
after(async () => {
  for (const stop of stops.reverse()) await stop();
});

/** Stops something at the end of the file. */
export function stopAfter(something) {
  stops.push(() => something.stop().catch(() => {}));
}

/** A stand-in for a server of these tenants, until the end of the file. */
export async function serverOf(...tenants) {
  const server = await FakeServer.start(...tenants);
  stopAfter(server);
  return server;
}

/**
 * A server and an edge in front of it, with more variables if wanted; the edge has not been asked for anything yet. Until the end of the file.
 *
 * With `persist` what its objects keep stays on disk, so that it can be started again: `restartEdge`. With `moved` it and its server go by `clock`, which a
 * test moves.
 */
export async function pair({ tenants = [new Tenant(0xc8)], persist = false, moved = false, server: known, ...bindings } = {}) {
  const server = known ?? (await serverOf(...tenants));
  const folder = persist && (await mkdtemp(path.join(tmpdir(), 'firsthop-edge-')));
  if (folder) stops.push(() => rm(folder, { recursive: true, force: true }));
  const variables = { UPSTREAM: server.url, REGION: 'EU', ENROLMENTS: tenants.map(({ enrolment }) => enrolment).join(' \n '), ...bindings };
  const clock = moved ? new Clock() : undefined;
  if (clock) server.now = clock.now;
  const start = clock ? clock.start : startWorker;
  const it = { server, clock, tenant: tenants[0], tenants, edge: await start(variables, { folder }) };
  stops.push(() => it.edge.dispose());
  it.send = (body, headers = {}) => fetch(`${it.edge.url}/v1/f`, { method: 'POST', body, headers });
  it.restartEdge = async (changes = {}) => {
    await it.edge.dispose();
    it.edge = await start({ ...variables, ...changes }, { folder });
  };
  return it;
}

/** Asserts a problem (RFC 9457) and returns it. */
export async function isProblem(answer, status, code) {
  assert.equal(answer.status, status);
  assert.equal(answer.headers.get('content-type'), 'application/problem+json');
  const body = await answer.json();
  assert.deepEqual([body.code, body.status, body.type], [code, status, `https://firsthop.dev/problems/${code}`]);
  return body;
}

/** The same from a path that pages write to, where a page may read it. */
export async function refusal(answer, status, code) {
  assert.equal(answer.headers.get('access-control-allow-origin'), '*');
  return isProblem(answer, status, code);
}
