// A defect of Rust's own: what words a panic is cut out of the Worker (`cut.mjs`), and what is left must end as a panic did.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';

import { serverOf } from './pair.mjs';
import { Tenant, newSource } from './server.mjs';
import { startWorker } from './worker.mjs';

/** Says of the body of a request that asks for it that it is longer than any memory: Rust then panics (`capacity overflow`), in the middle of a request. */
const entry = `
import worker from './index.js';
export * from './index.js';

const Bytes = globalThis.Uint8Array;
class Endless extends Bytes {
  get length() { return 2 ** 31; }
}

const said = [];
console.error = (...what) => said.push(what.join(' '));

export default {
  async fetch(request, env, ctx) {
    if (!request.headers.has('defect')) return worker.fetch(request, env, ctx);
    globalThis.Uint8Array = Endless;
    const { status, headers, body } = await worker.fetch(request, env, ctx);
    globalThis.Uint8Array = Bytes;
    return new Response(body, { status, headers: [...headers, ['said', said.splice(0).join()]] });
  },
};
`;

test('a panic ends in 503, and the next request finds the Worker started anew', async () => {
  const tenant = new Tenant(0xc8);
  const server = await serverOf(tenant);
  const edge = await startWorker({ UPSTREAM: server.url, REGION: 'EU', ENROLMENTS: tenant.enrolment }, { entry });
  after(() => edge.dispose());
  const send = (body, headers = {}) => fetch(`${edge.url}/v1/f`, { method: 'POST', body, headers });
  const accepted = async (frame) => {
    const answer = await send(frame);
    assert.equal(answer.status, 200, await answer.text());
  };
  const frameOf = () => tenant.frame({ source: newSource() });
  await accepted(frameOf());

  const PANICS = 3;
  for (let i = 0; i < PANICS; i++) {
    const frame = frameOf();
    const before = server.received.length;
    const answer = await send(frame, { defect: 'now' });
    const { status, headers } = answer;
    assert.deepEqual([status, headers.get('retry-after'), headers.get('access-control-allow-origin'), await answer.text()], [503, '1', '*', '']);
    // A trap, where the panic was, and nothing that JavaScript refuses.
    assert.equal(headers.get('said'), 'Critical RuntimeError: unreachable');
    assert.equal(server.received.length, before, 'nothing of it went on');
    // What the page has kept is taken, and so is what comes behind it.
    await accepted(frame);
    await accepted(frameOf());
    assert.equal(server.received.length, before + 2);
  }
});

test('nothing is left that would word a panic', () => {
  const names = readFileSync(new URL('../build/names.txt', import.meta.url), 'utf8').split('\n');
  assert.ok(names.length > 500);
  assert.deepEqual(names.filter((name) => /panicking::(panic_with_hook|default_hook|panic_fmt)$/.test(name)), []);
});
