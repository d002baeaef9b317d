// What a build that is guided by a profile learns from: some seconds of what producers send, one kind after the other.
//
//     node benches/server/train.mjs FIRSTHOP LOAD FOLDER
//
// FIRSTHOP is a build that counts what it does, and writes it down when it ends (tools/build server-tuned).
import { mkdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { generate, makeFolder, say, serve, stop } from './kit.mjs';

const [firsthop, load, folder] = process.argv.slice(2, 5).map((path) => resolve(path));
const data = join(folder, 'data');
const SECONDS = 4;
const KINDS = [
  { mode: 'frames', events: 300, connections: 32 },
  { mode: 'frames', events: 20, connections: 64 },
  { mode: 'frames', events: 1, connections: 64 },
  { mode: 'frames', events: 1, connections: 512 },
  { mode: 'track', events: 1, connections: 64 },
];

mkdirSync(folder, { recursive: true });
for (const { mode, events, connections } of KINDS) {
  const key = await makeFolder(firsthop, data);
  const { server, address } = await serve(firsthop, data);
  const { acknowledgedEvents } = await generate(load, mode, { address, 'write-key': key, events, connections, seconds: SECONDS });
  await stop(server);
  rmSync(data, { recursive: true, force: true });
  if (acknowledgedEvents === 0) throw new Error(`nothing was acknowledged of ${mode} with ${events} events: there is nothing to learn from`);
  say(`learnt from ${acknowledgedEvents} events: ${mode} of ${events}, ${connections} connections`);
}
