// What a noisy tenant does to a quiet one, on loopback, the load on the same machine:
//
//     node benches/isolation.mjs FIRSTHOP LOAD FOLDER [SECONDS] [ROUNDS]
//
// FIRSTHOP and LOAD are the binaries, FOLDER is where data may go. The quiet tenant sends 200 requests a second, each timed from its first
// byte to its answer: alone; beside one that sends, from 128 connections and as fast as it is answered, at least a hundred times what its
// limits let through; beside one without limits that sends all it can over 64; and in a server of its own while that one sends to the
// first, which is what the machine does to it and no server can help. Those who send much do it at the lowest priority: they stand for other
// machines, which take no processor from the server. Rounds take turns, so that what the machine does meanwhile meets all alike; of each figure
// the round in the middle counts, and of what moved the one in the middle of what moved within a round. Prints one line of JSON, and ends with 1
// if beside the limited one the quiet one's p99 moved by more than a fifth (and more than half a millisecond, below which it is the clock's), if it
// was refused once, or if that one was not a hundredfold.
import { appendFileSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { setPriority } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { figure, metrics, middle, run, serve, stop } from './server/kit.mjs';

const [firsthop, load, folder] = process.argv.slice(2, 5).map((path) => resolve(path));
const seconds = Number(process.argv[5] ?? 2);
const rounds = Number(process.argv[6] ?? 5);
/** What the noisy tenant may send a second, and how many times that it must at least offer. */
const SHARE = 5;
const FOLD = 100;

const data = join(folder, 'isolation');
const elsewhere = join(folder, 'isolation-elsewhere');
const clean = () => [data, elsewhere].forEach((path) => rmSync(path, { recursive: true, force: true }));
clean();

async function tenant(name, data) {
  const { stdout } = await run(firsthop, ['tenant', 'add', name, '--data', data]);
  const key = stdout.match(/fh_([0-9a-f]{16})_\w+/);
  return { key: key[0], folder: join(data, 'tenants', key[1]) };
}

/** One request, and how long it took, in milliseconds. */
function timed(agent, address, key, number) {
  const body = JSON.stringify({ event: 'Product Viewed', anonymousId: 'quiet', messageId: `${process.pid}-${number}`, properties: { sku: 'G-32' } });
  const [host, port] = address.split(':');
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
  return new Promise((done, failed) => {
    const began = performance.now();
    const sent = request({ agent, host, port, path: '/v1/track', method: 'POST', headers }, (answer) => {
      answer.resume();
      answer.on('end', () => done({ status: answer.statusCode, took: performance.now() - began }));
    });
    sent.on('error', failed);
    sent.end(body);
  });
}

/** The quiet tenant's requests of one round. Paced by the clock and not by answers: one that is late delays no other. */
async function quiet({ agent, address, key }, round) {
  const until = performance.now() + seconds * 1000;
  const answers = [];
  for (let number = 0; performance.now() < until; number++) {
    answers.push(timed(agent, address, key, `${round}-${number}`));
    await sleep(5);
  }
  const all = await Promise.all(answers);
  return { times: all.map(({ took }) => took), refused: all.filter(({ status }) => status !== 200).length };
}

function quantile(times, q) {
  const sorted = times.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
}

async function start(data) {
  return { ...await serve(firsthop, data), agent: new Agent({ keepAlive: true, maxSockets: 8 }) };
}

const [still, loud, greedy] = [await tenant('quiet', data), await tenant('noisy', data), await tenant('greedy', data)];
appendFileSync(join(loud.folder, 'tenant.toml'), `\n[limits]\nrequests = ${SHARE}\n`);
const here = { ...await start(data), key: still.key };
const own = { key: (await tenant('quiet', elsewhere)).key, ...await start(elsewhere) };
const [alone, beside, without, apart] = [[], [], [], []];
const noise = { offered: 0, accepted: 0, refused: 0 };
let unlimited = 0;
let refused = 0;
// One that counts for nothing: files grow, caches fill.
await quiet(here, 'first');
await quiet(own, 'first');
/** What came before is in the events table: a table that catches up uses the disk, and would be taken for the other tenant. */
async function caughtUp() {
  const until = performance.now() + 60_000;
  while (figure(await metrics(here.internal), 'firsthop_sink_lag_frames', 'sink="events"') > 0) {
    if (performance.now() > until) throw new Error('the events table did not catch up within a minute');
    await sleep(100);
  }
}

/** The quiet tenant while another sends. Returns that one's answers by their status. */
async function besides(times, key, connections, round, at = here) {
  const args = ['track', '--address', here.address, '--write-key', key, '--connections', connections, '--events', 1, '--seconds', seconds + 1, '--memory-mb', 128];
  await caughtUp();
  const noisy = run(load, args.map(String));
  setPriority(noisy.child.pid, 19);
  await sleep(500);
  await by(times, round, at);
  return JSON.parse((await noisy).stdout).statuses;
}
async function by(times, round, at = here) {
  const { times: more, refused: sentAway } = await quiet(at, round);
  refused += sentAway;
  times.push(more);
}
for (let round = 0; round < rounds; round++) {
  await caughtUp();
  await by(alone, `alone-${round}`);
  const statuses = await besides(beside, loud.key, 128, `limited-${round}`);
  noise.offered += Object.values(statuses).reduce((sum, count) => sum + count, 0);
  noise.accepted += statuses[200] ?? 0;
  noise.refused += statuses[429] ?? 0;
  unlimited += (await besides(without, greedy.key, 64, `unlimited-${round}`))[200] ?? 0;
  await besides(apart, greedy.key, 64, `apart-${round}`, own);
}
for (const { server, agent } of [here, own]) {
  await stop(server);
  agent.destroy();
}
clean();
const fold = noise.offered / (SHARE * rounds * (seconds + 1));
const p99s = (rounds) => rounds.map((times) => quantile(times, 0.99));
const figures = (rounds) => ({
  requests: rounds.flat().length,
  p50Ms: middle(rounds.map((times) => quantile(times, 0.5))),
  p99Ms: middle(p99s(rounds)),
  p99sMs: p99s(rounds),
});
const [before, after] = [figures(alone), figures(beside)];
// What moved within a round.
const pairs = after.p99sMs.map((after, round) => [before.p99sMs[round], after]);
const moved = middle(pairs.map(([before, after]) => after / before));
const movedMs = middle(pairs.map(([before, after]) => after - before));
const besideUnlimited = { ...figures(without), requestsPerSecond: unlimited / (rounds * (seconds + 1)) };
console.log(JSON.stringify({ seconds, rounds, alone: before, besideNoise: after, p99Moved: moved, p99MovedMs: movedMs, besideUnlimited, apart: figures(apart), quietRefused: refused, noise, fold }));
const holds = (moved <= 1.2 || movedMs <= 0.5) && refused === 0 && fold >= FOLD;
process.exit(holds ? 0 : 1);
