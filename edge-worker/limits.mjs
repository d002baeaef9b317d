// What the Worker takes of what the platform allows: size, start-up and processor time, measured on workerd.
//
//     make limits
//     node edge-worker/limits.mjs target/release/firsthop-load target/release/firsthop-upstream OUT
//
// The limits are Cloudflare's (https://developers.cloudflare.com/workers/platform/limits/, as of mid-2026). workerd here is not a point of presence, and
// other programs share the processor: so nothing but what is over a limit of the platform's fails.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { bindings, startUpstream, underLoad } from '../benches/edge/load.mjs';
import { WORKERS, startUp, startWorkerd } from '../benches/edge/workerd.mjs';
import { LIMIT, weigh } from './size.mjs';

const [load, upstreamBinary, out] = process.argv.slice(2);
if (!out) throw new Error('usage: node edge-worker/limits.mjs FIRSTHOP-LOAD FIRSTHOP-UPSTREAM OUT (or make limits)');
const COUNTS = [1, 10, 300];
const STARTS = 5;
const SECONDS = '2';

mkdirSync(out, { recursive: true });
writeFileSync(join(out, 'body'), 'x'.repeat(700));
const upstream = await startUpstream(upstreamBinary);
const [ours, empty] = await Promise.all(['firsthop', 'empty'].map((name) => startWorkerd(join(out, name), WORKERS[name], bindings(name, upstream))));

const rows = [];
/** A figure, the platform's limit by plan, and ours, if there is one. */
const row = (what, is, unit, free, paid, promise) => rows.push({ what, is, unit, free, paid, promise });

const { raw, gzip } = weigh().at(-1);
row('size, gzip', gzip / 1000, 'kB', 3_000, 10_000, LIMIT / 1000);
row('size', raw / 1000, 'kB', 64_000, 64_000);

const cpu = [];
let peak = 0;
for (const events of COUNTS) {
  // The first time is for the compilers.
  for (const counts of [false, true]) {
    const { cpuMicros, peakMiB } = await underLoad(load, 'firsthop', ours, { events, seconds: SECONDS }, upstream);
    peak = Math.max(peak, peakMiB);
    if (counts) cpu.push([events, cpuMicros / 1000]);
  }
}
const floor = await underLoad(load, 'empty', empty, { events: 1, seconds: SECONDS, body: join(out, 'body') }, upstream);
for (const { child } of [ours, empty]) child.kill('SIGKILL');
const { firsthopMs, emptyMs } = await startUp(out, ['firsthop', 'empty'], STARTS);
row('start-up, above an empty Worker', firsthopMs - emptyMs, 'ms', 1_000, 1_000, 30);
for (const [events, ms] of cpu) row(`processor time for a request with ${events === 1 ? 'one event' : `${events} events`}`, ms, 'ms', 10, 30_000);
// All that workerd has taken from the system, with what its collector has not come to yet. The platform counts an isolate's heap (128 MB), which nobody sees from here.
row("workerd's memory at its peak, above an empty Worker", peak - floor.peakMiB, 'MB');

const number = (value) => (value === undefined ? '' : value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 2 : 0 }));
const line = (what, ...cells) => console.log(what.padEnd(54) + cells.map((cell) => cell.padStart(14)).join(''));
line('', 'measured', 'our promise', 'free plan', 'paid plan');
for (const { what, is, unit, free, paid, promise } of rows) {
  const cell = (value) => (value === undefined ? '' : `${number(value)} ${unit}`);
  line(what, cell(is), cell(promise), cell(free), cell(paid));
}

const over = rows.filter(({ is, free }) => is > free);
for (const { what, is, unit, free } of over) console.error(`over the limit of the free plan: ${what}: ${number(is)} ${unit}, of ${number(free)}`);
process.exit(over.length > 0 ? 1 : 0);
