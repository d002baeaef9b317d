// `make demo`, as a newcomer sees it: open the address that it prints, buy something, watch the rows, press Ctrl-C.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { visit } from '../../examples/shop/visit.mjs';
import { launchBrowser } from '../../tools/browser.mjs';
import { Server, freePorts, until } from './parts.mjs';

const DEMO = fileURLToPath(new URL('../../tools/demo', import.meta.url));

test('the demo shows each click as a row and ends on Ctrl-C', { timeout: 120_000 }, async () => {
  const data = await mkdtemp(path.join(tmpdir(), 'firsthop-demo-'));
  const first = await freePorts(4);
  const demo = spawn(process.execPath, [DEMO], {
    env: { ...process.env, DEMO_DATA: data, DEMO_PORT: String(first), FIRSTHOP_BIN: Server.binary },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let shown = '';
  for (const stream of [demo.stdout, demo.stderr]) stream.on('data', (chunk) => (shown += chunk));
  const browser = await launchBrowser();
  try {
    const [url] = await until('the address of the shop', () => {
      assert.equal(demo.exitCode, null, shown);
      return shown.match(/http:\/\/localhost:\d+\/\?endpoint=\S+writeKey=\w+/);
    });
    const page = await browser.newPage();
    await page.goto(url);
    const calls = await visit(page, { orders: 1 });
    const rows = () => shown.split('\n').filter((line) => /^\d{4}-\d\d-\d\dT/.test(line));
    await until('a row for each call', () => rows().length >= calls.length);
    assert.equal(rows().length, calls.length, shown);
    assert.match(rows().at(-2), /track +Order Completed/);

    demo.kill('SIGINT');
    const [code, signal] = await once(demo, 'exit');
    assert.deepEqual([code, signal], [0, null], shown);
    for (let port = first; port < first + 4; port += 1) {
      await assert.rejects(fetch(`http://127.0.0.1:${port}/livez`), `port ${port} is free again`);
    }
  } finally {
    await browser.close();
    if (demo.exitCode === null && demo.signalCode === null) demo.kill('SIGTERM');
    await rm(data, { recursive: true, force: true });
  }
});
