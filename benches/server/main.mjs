// The server under load, on loopback, beside nginx that answers 204 and throws the body away:
//
//     node benches/server/main.mjs LOAD FOLDER SECONDS BUILD=FIRSTHOP… >server.json
//
// BUILD is the target of make that has built FIRSTHOP: the first is the one that is measured, with the others beside it in one row each.
// LOAD is the generator, FOLDER is where data may go: on a disk, since what is measured includes its fsync. Progress goes to
// standard error. Every scenario has a server and a data folder of its own, and ends by `firsthop verify`: what was acknowledged must be there.
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { SCENARIOS, figure, generate, has, histogram, isBalanced, makeFolder, metrics, middle, nginx, run, say, serve, stop, usage, whole } from './kit.mjs';

const [load, folder] = process.argv.slice(2, 4).map((path) => resolve(path));
const seconds = Number(process.argv[4]);
const builds = process.argv.slice(5).map((build) => ({ name: build.split('=', 1)[0], binary: resolve(build.slice(build.indexOf('=') + 1)) }));
const firsthop = builds[0].binary;
const data = join(folder, 'data');

async function scenario({ name, mode, events, connections, binary = firsthop }) {
  const key = await makeFolder(binary, data);
  const { server, address, internal } = await serve(binary, data);
  const before = usage(server.pid);
  const body = join(folder, `${mode}-${events}.body`);
  const loaded = generate(load, mode, { address, 'write-key': key, events, connections, seconds, 'save-body': body });
  const result = await loaded;
  const after = usage(server.pid);
  const samples = await metrics(internal);
  await stop(server);
  // By the build that served: another may be of another state.
  const checked = await isBalanced(binary, data, [result]);
  rmSync(data, { recursive: true, force: true });
  const refused = Object.entries(result.statuses).filter(([status]) => status >= 300);
  return {
    name,
    ...result,
    ...checked,
    body,
    refused: Object.fromEntries(refused),
    peakMiB: after.peakMiB,
    residentMiB: after.residentMiB,
    cpuMicrosPerEvent: ((after.cpuSeconds - before.cpuSeconds) * 1e6) / result.acknowledgedEvents,
    commits: histogram(samples, 'firsthop_journal_commit_seconds'),
    tableRowsPerSecond: figure(samples, 'firsthop_sink_rows_total', 'sink="events"') / result.seconds,
    tableLagSeconds: figure(samples, 'firsthop_sink_lag_seconds', 'sink="events"'),
  };
}

/** Requests per second that nginx answers for the same body and as many connections, asked by our own generator and by wrk. */
async function askNginx(address, body, connections, time) {
  const own = await generate(load, 'plain', { address, body, connections, seconds: time });
  return own.requestsPerSecond;
}

async function askByWrk(address, body, connections, time) {
  const script = join(folder, 'post.lua');
  writeFileSync(
    script,
    `wrk.method = "POST"\nwrk.body = io.open(os.getenv("BENCH_BODY"), "rb"):read("*a")\nwrk.headers["Content-Type"] = "text/plain"\n`,
  );
  const env = { ...process.env, BENCH_BODY: body };
  const { stdout } = await run('wrk', ['-t2', `-c${connections}`, `-d${time}`, '-s', script, `http://${address}/`], { env });
  return Number(stdout.match(/Requests\/sec:\s+([\d.]+)/)[1]);
}

const ROUNDS = 3;

/**
 * A scenario and nginx in turn, round by round, and of each the middle one: on a virtual machine nginx alone moves by a factor of two within
 * a minute, and ours with it.
 */
async function besideNginx(wanted) {
  const time = Math.max(2, Math.round(seconds / 5));
  const body = join(folder, `${wanted.mode}-${wanted.events}.body`);
  // Some body to begin with: the scenario's own is there once it ran.
  writeFileSync(body, 'x'.repeat(616));
  const rounds = [];
  for (let round = 0; round < ROUNDS; round++) {
    const server = await nginx(folder);
    try {
      const own = await askNginx(server.address, body, wanted.connections, time);
      const wrk = await askByWrk(server.address, body, wanted.connections, time);
      rounds.push({ own, wrk });
    } finally {
      await stop(server.child);
    }
    rounds.at(-1).result = await scenario(wanted);
  }
  const [own, wrk] = ['own', 'wrk'].map((asked) => middle(rounds, (round) => round[asked])[asked]);
  const { result } = middle(rounds, (round) => round.result.requestsPerSecond);
  const all = rounds.map((round) => ({ own: round.own, wrk: round.wrk, ours: round.result.requestsPerSecond }));
  return {
    ...result,
    // Of every round, not of the one that is shown.
    balanced: rounds.every((round) => round.result.balanced),
    nginx: { own, wrk, share: result.requestsPerSecond / Math.max(own, wrk), rounds: all },
  };
}

/** How fast the events table gets what was there before, while more comes in at a steady rate. */
async function drain() {
  const key = await makeFolder(firsthop, data);
  const { server, address, internal } = await serve(firsthop, data);
  const common = { address, 'write-key': key, events: 300, connections: 32 };
  const burst = await generate(load, 'frames', { ...common, seconds: Math.max(3, seconds / 2) });
  const state = async () => {
    const samples = await metrics(internal);
    const [rows, frames] = ['firsthop_sink_rows_total', 'firsthop_sink_lag_frames'].map((name) => figure(samples, name, 'sink="events"'));
    return { at: performance.now() / 1000, rows, frames, lagSeconds: figure(samples, 'firsthop_sink_lag_seconds', 'sink="events"') };
  };
  const steady = generate(load, 'frames', { ...common, seconds, rate: 500 });
  // Its bodies are made before its clock runs.
  await sleep(1000);
  const states = [await state()];
  let under = true;
  steady.then(() => (under = false), () => (under = false));
  // Until the load ends, or the table has caught up.
  while (under && states.at(-1).frames > 0) {
    await sleep(500);
    if (under) states.push(await state());
  }
  const came = await steady;
  await stop(server);
  const checked = await isBalanced(firsthop, data, [burst, came]);
  rmSync(data, { recursive: true, force: true });
  const [first, last] = [states[0], states.at(-1)];
  return {
    ...checked,
    rowsPerSecond: (last.rows - first.rows) / (last.at - first.at),
    ingestPerSecond: came.eventsPerSecond,
    ingestP99Ms: came.p99Ms,
    lagFrames: states.map(({ frames }) => frames),
    lagSeconds: states.map(({ lagSeconds }) => lagSeconds),
  };
}

/** A server that does nothing: how soon it is ready, and what it takes. The middle of five starts. */
async function idle(binary) {
  await makeFolder(binary, data);
  const starts = [];
  for (let i = 0; i < 5; i++) {
    const { server, readyMs } = await serve(binary, data);
    await sleep(1000);
    starts.push({ readyMs, residentMiB: usage(server.pid).residentMiB });
    await stop(server);
  }
  rmSync(data, { recursive: true, force: true });
  const of = (name) => middle(starts, (start) => start[name])[name];
  // An interpreter in its header means that it needs a dynamic linker.
  const isStatic = !readFileSync(binary).subarray(0, 4096).includes('/ld-');
  return { readyMs: of('readyMs'), residentMiB: of('residentMiB'), binaryBytes: statSync(binary).size, isStatic };
}

mkdirSync(folder, { recursive: true });
// What else the machine was doing.
const loadBefore = loadavg()[0];
const withNginx = (await has('nginx')) && (await has('wrk'));
if (!withNginx) say('nginx or wrk is missing: no comparison with them');
const scenarios = [];
for (const wanted of SCENARIOS) {
  say(`${wanted.name}, ${wanted.connections} connections, ${seconds} s …`);
  const result = withNginx && wanted.besideNginx ? await besideNginx(wanted) : await scenario(wanted);
  const rate = `${whole(result.eventsPerSecond)} events/s, p50 ${result.p50Ms.toFixed(1)} ms, p99 ${result.p99Ms.toFixed(1)} ms`;
  const share = result.nginx ? `; ${(result.nginx.share * 100).toFixed(0)} % of nginx` : '';
  say(`  ${rate}${share}; ${whole(result.journaled)} in the journal: ${result.balanced ? 'all that was acknowledged' : 'THAT IS NOT WHAT WAS ACKNOWLEDGED'}`);
  scenarios.push(result);
}
say('the events table catches up while more comes in …');
const drained = await drain();
say(`  ${whole(drained.rowsPerSecond)} rows/s while ${whole(drained.ingestPerSecond)} events/s came in`);
say('a server that does nothing …');
const idled = await idle(firsthop);
say(`  ready in ${idled.readyMs.toFixed(0)} ms, ${idled.residentMiB.toFixed(1)} MiB`);
const compared = [];
for (const { name, binary } of builds) {
  say(`one event per request, as make ${name} builds it …`);
  const { mode, events, connections } = SCENARIOS[2];
  const { eventsPerSecond, cpuMicrosPerEvent, balanced } = await scenario({ name, mode, events, connections, binary });
  compared.push({ name, eventsPerSecond, cpuMicrosPerEvent, balanced, ...(binary === firsthop ? idled : await idle(binary)) });
  say(`  ${whole(eventsPerSecond)} events/s`);
}
console.log(JSON.stringify({ seconds, loadBefore, scenarios, drain: drained, idle: idled, builds: compared }, null, 2));
