// What a build that is guided by a profile learns from: some seconds of what producers send, one kind after the other.
//
//     node benches/server/train.mjs FIRSTHOP LOAD FOLDER
//
// FIRSTHOP is a build that counts what it does, and writes it down when it ends (tools/build server-tuned).
import { mkdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { SCENARIOS, generate, makeFolder, say, serve, stop } from './kit.mjs';

const [firsthop, load, folder] = process.argv.slice(2, 5).map((path) => resolve(path));
const data = join(folder, 'data');
const SECONDS = 4;

mkdirSync(folder, { recursive: true });
for (const { mode, events, connections } of SCENARIOS) {
  const key = await makeFolder(firsthop, data);
  const { server, address } = await serve(firsthop, data);
  const { acknowledgedEvents } = await generate(load, mode, { address, 'write-key': key, events, connections, seconds: SECONDS });
  await stop(server);
  rmSync(data, { recursive: true, force: true });
  if (acknowledgedEvents === 0) throw new Error(`nothing was acknowledged of ${mode} with ${events} events: there is nothing to learn from`);
  say(`learnt from ${acknowledgedEvents} events: ${mode} of ${events}, ${connections} connections`);
}
