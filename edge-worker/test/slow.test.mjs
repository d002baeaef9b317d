// What takes its time: a server that does not answer, and a client that does not finish.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { describe, test } from 'node:test';

import { pair } from './pair.mjs';
import { Tenant, newSource } from './server.mjs';

const tenant = new Tenant(0xc8);
const { server, edge, send } = await pair({ tenants: [tenant], SPOOL_BYTES: '1' });


describe('patience', { concurrency: true }, () => {
  test('a server that does not answer is given ten seconds; then the page keeps its events', async () => {
    const source = newSource();
    const { session } = await (await send(tenant.frame({ source }))).json();
    const frame = tenant.frame({ source, session, first: 1 });
    let hungUp;
    const silent = (request, response) => {
      hungUp = once(response, 'close');
    };
    const halting = (request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.write('{');
    };
    for (const plan of [silent, halting]) {
      server.plans.push(plan);
      const began = Date.now();
      const answer = await send(frame);
      const took = Date.now() - began;
      assert.equal(answer.status, 503);
      assert.match(answer.headers.get('retry-after'), /^\d+$/);
      assert.equal((await answer.json()).code, 'unavailable');
      assert.ok(took > 9_500 && took < 60_000, `${took} ms`);
    }
    await hungUp;
    assert.equal((await (await send(frame)).json()).stored, 1, 'nothing was remembered as seen');
  });

  test('a body that does not come is given twenty seconds', async () => {
    const { hostname, port } = new URL(edge.url);
    const socket = net.connect(port, hostname);
    socket.write('POST /v1/f HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000\r\n\r\nFHOP');
    const began = Date.now();
    const drip = setInterval(() => socket.write('x'), 1_000);
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk) => (text += chunk)).on('error', () => {});
    while (!text.includes('\r\n\r\n') || !text.includes('body-timeout')) await once(socket, 'data');
    clearInterval(drip);
    socket.destroy();
    const took = Date.now() - began;
    assert.match(text, /^HTTP\/1\.1 408 /);
    assert.ok(took > 19_000 && took < 90_000, `${took} ms`);
  });
});
