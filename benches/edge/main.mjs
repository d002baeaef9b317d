// Load for the edge on `workerd serve`, beside a plain JavaScript Worker that does the same and an empty one:
//
//     node benches/edge/main.mjs target/release/firsthop-load target/release/firsthop-upstream OUT [SECONDS]
//
// Prints JSON for benches/report.mjs. docs/performance.md says what is measured and how.
import { mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';

import { say, whole } from '../server/kit.mjs';
import { FAR, HERE, bindings, startUpstream, underLoad } from './load.mjs';
import { WORKERS, middle, startUp, startWorkerd } from './workerd.mjs';

const [load, upstreamBinary, out, seconds = '3'] = process.argv.slice(2);
const ROUNDS = 3;
const COUNTS = [1, 10, 50, 300];
/** Events of sealed frames; with 300 the bare passing on is sooner than so many bytes can be made beforehand. */
const SEALED = [50];
/** Seconds of load before anything counts: V8 makes fast code of what it has seen run often, and an isolate lives for hours. */
const WARM_UP = '5';
const STARTS = 15;

const part = (values, key) => middle(values.map((value) => value[key]));

/** The middle of some rounds of one Worker. */
const summary = (rounds) => Object.fromEntries(Object.keys(rounds[0]).map((key) => [key, part(rounds, key)]));

mkdirSync(out, { recursive: true });
writeFileSync(join(out, 'body'), 'x'.repeat(700));
const loadBefore = loadavg()[0];
const upstream = await startUpstream(upstreamBinary);
const measure = (name, worker, events, more, head) => underLoad(load, name, worker, { events, seconds, ...more }, upstream, head);
const workers = {};
for (const name of Object.keys(WORKERS)) workers[name] = await startWorkerd(join(out, name), WORKERS[name], bindings(name, upstream));

for (const name of ['firsthop', 'plain']) await measure(name, workers[name], 1, { seconds: WARM_UP, 'memory-mb': 250 });

const empty = [];
const scenarios = [];
for (const events of COUNTS) {
  const rounds = { firsthop: [], plain: [] };
  // The first round is for the compilers, too: other frames take other ways.
  for (let round = 0; round <= ROUNDS; round++) {
    for (const name of ['firsthop', 'plain']) {
      const result = await measure(name, workers[name], events);
      if (round > 0) rounds[name].push(result);
    }
    if (events === 1 && round > 0) empty.push(await measure('empty', workers.empty, events, { body: join(out, 'body') }));
  }
  const of = (key) => middle(rounds.firsthop.map((ours, i) => ours[key] / rounds.plain[i][key]));
  const scenario = { events, firsthop: summary(rounds.firsthop), plain: summary(rounds.plain), throughput: of('requestsPerSecond'), cpu: 1 / of('cpuMicros') };
  scenarios.push(scenario);
  say(`${events}: ${whole(scenario.firsthop.requestsPerSecond)} beside ${whole(scenario.plain.requestsPerSecond)} requests/s`);
}

// The same sealed frames, read here, passed on unread from afar, and passed on by a handler that does nothing else.
const forwarding = [];
for (const events of SEALED) {
  const sealed = { process: [], forward: [], relay: [] };
  const options = { seal: upstream.seal, sessions: workers.firsthop.address };
  const ways = [['process', 'governed', HERE], ['forward', 'governed', FAR], ['relay', 'relay', FAR]];
  for (const [, name, head] of ways) await measure(name, workers[name], events, { ...options, seconds: WARM_UP }, head);
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [what, name, head] of ways) {
      const result = await measure(name, workers[name], events, options, head);
      if (round > 0) sealed[what].push(result);
    }
  }
  // What each adds to the bare passing on, in processor time.
  const added = (what, i) => sealed[what][i].cpuMicros - sealed.relay[i].cpuMicros;
  const share = middle(sealed.relay.map((_, i) => added('forward', i) / added('process', i)));
  const rows = Object.fromEntries(Object.entries(sealed).map(([what, rounds]) => [what, summary(rounds)]));
  forwarding.push({ events, share, ...rows });
  say(`sealed, ${events}: ${whole(rows.forward.cpuMicros)} µs to pass on, ${whole(rows.process.cpuMicros)} to process, ${whole(rows.relay.cpuMicros)} of them the platform's`);
}

for (const { child } of Object.values(workers)) child.kill('SIGKILL');
const started = await startUp(out, ['firsthop', 'empty'], STARTS);
console.log(JSON.stringify({ seconds: Number(seconds), loadBefore, scenarios, empty: summary(empty), forwarding, startUp: started }, null, 2));
process.exit(0);
