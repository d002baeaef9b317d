// Load for the edge on `workerd serve`, beside a plain JavaScript Worker that does the same and an empty one:
//
//     node benches/edge/main.mjs target/release/firsthop-load target/release/firsthop-upstream OUT [SECONDS]
//
// Prints JSON for benches/report.mjs. docs/performance.md says what is measured and how.
import { mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';

import { middle, quartiles, say, whole } from '../server/kit.mjs';
import { FAR, HERE, bindings, startUpstream, underLoad } from './load.mjs';
import { WORKERS, startUp, startWorkerd } from './workerd.mjs';

const [load, upstreamBinary, out, seconds = '2'] = process.argv.slice(2);
/** Events of a request, and how many rounds count: where two are nearly as fast, more. What else the machine does moves a round by a tenth. */
const COUNTS = [[1, 13], [10, 5], [50, 5], [300, 5]];
/** Of sealed frames. */
const SEALED = [[50, 15], [300, 9]];
const AGAIN = 4_096;
const EMPTY_ROUNDS = 3;
/** Seconds of load before anything counts: V8 makes fast code of what it has seen run often, and an isolate lives for hours. */
const WARM_UP = '5';
const STARTS = 15;

const part = (values, key) => middle(values.map((value) => value[key]));

/** The middle of some rounds of one Worker. */
const summary = (rounds) => Object.fromEntries(Object.keys(rounds[0]).map((key) => [key, part(rounds, key)]));

/** Each once, none always before or behind the same other one. */
function inTurn(ways, round) {
  const turned = [...ways.slice(round % ways.length), ...ways.slice(0, round % ways.length)];
  return round % (2 * ways.length) < ways.length ? turned : turned.toReversed();
}

mkdirSync(out, { recursive: true });
writeFileSync(join(out, 'body'), 'x'.repeat(700));
const loadBefore = loadavg()[0];
const upstream = await startUpstream(upstreamBinary);
const measure = (name, worker, events, more, head) => underLoad(load, name, worker, { events, seconds, ...more }, upstream, head);
const workers = {};
for (const name of Object.keys(WORKERS)) workers[name] = await startWorkerd(join(out, name), WORKERS[name], bindings(name, upstream));

const BOTH = ['firsthop', 'plain'];
for (const name of BOTH) await measure(name, workers[name], 1, { seconds: WARM_UP, 'memory-mb': 250 });

const scenarios = [];
for (const [events, count] of COUNTS) {
  const rounds = { firsthop: [], plain: [] };
  // The first round is for the compilers, too: other frames take other ways.
  for (let round = 0; round <= count; round++) {
    for (const name of inTurn(BOTH, round)) {
      const result = await measure(name, workers[name], events);
      if (round > 0) rounds[name].push(result);
    }
  }
  const of = (key) => rounds.firsthop.map((ours, i) => ours[key] / rounds.plain[i][key]);
  const [throughput, cpu] = [of('requestsPerSecond'), of('cpuMicros')];
  const scenario = {
    events,
    rounds: count,
    firsthop: summary(rounds.firsthop),
    plain: summary(rounds.plain),
    throughput: middle(throughput),
    throughputQuartiles: quartiles(throughput),
    cpu: 1 / middle(cpu),
    cpuQuartiles: quartiles(cpu),
  };
  scenarios.push(scenario);
  say(`${events}: ${whole(scenario.firsthop.requestsPerSecond)} beside ${whole(scenario.plain.requestsPerSecond)} requests/s, ${throughput.map((ratio) => ratio.toFixed(2)).join(' ')}`);
}
const empty = [];
for (let round = 0; round < EMPTY_ROUNDS; round++) empty.push(await measure('empty', workers.empty, 1, { body: join(out, 'body') }));

// The same sealed frames, read here, passed on unread from afar, and passed on by a handler that does nothing else.
const forwarding = [];
for (const [events, count] of SEALED) {
  const sealed = { process: [], forward: [], relay: [] };
  const options = { seal: upstream.seal, sessions: workers.firsthop.address };
  // Who does not look at frames gets some again and again: large ones are passed on sooner than enough of them can be made beforehand.
  const unread = { ...options, again: AGAIN };
  const ways = [['process', 'governed', HERE, options], ['forward', 'governed', FAR, unread], ['relay', 'relay', FAR, unread]];
  for (const [, name, head, how] of ways) await measure(name, workers[name], events, { ...how, seconds: WARM_UP }, head);
  for (let round = 0; round <= count; round++) {
    for (const [what, name, head, how] of inTurn(ways, round)) {
      const result = await measure(name, workers[name], events, how, head);
      if (round > 0) sealed[what].push(result);
    }
  }
  // What each adds to the bare passing on, in processor time.
  const added = (what, i) => sealed[what][i].cpuMicros - sealed.relay[i].cpuMicros;
  const shares = sealed.relay.map((_, i) => added('forward', i) / added('process', i));
  const rows = Object.fromEntries(Object.entries(sealed).map(([what, rounds]) => [what, summary(rounds)]));
  forwarding.push({ events, rounds: count, share: middle(shares), shareQuartiles: quartiles(shares), ...rows });
  say(`sealed, ${events}: ${whole(rows.forward.cpuMicros)} µs to pass on, ${whole(rows.process.cpuMicros)} to process, ${whole(rows.relay.cpuMicros)} of them the platform's; ${shares.map((share) => (100 * share).toFixed(0)).join(' ')} %`);
}

for (const { child } of Object.values(workers)) child.kill('SIGKILL');
const started = await startUp(out, ['firsthop', 'empty'], STARTS);
console.log(JSON.stringify({ seconds: Number(seconds), loadBefore, scenarios, empty: summary(empty), forwarding, startUp: started }, null, 2));
process.exit(0);
