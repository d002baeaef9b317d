// Load for the edge on `workerd serve`, beside a plain JavaScript Worker that does the same and an empty one:
//
//     node benches/edge/main.mjs target/release/firsthop-load target/release/firsthop-upstream OUT [SECONDS]
//
// Prints JSON for benches/report.mjs. docs/performance.md says what is measured and how.
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { generate, say, start, usage, whole } from '../server/kit.mjs';
import { CF_HEADER, WORKERS, restart, startWorkerd } from './workerd.mjs';

const [load, upstreamBinary, out, seconds = '3'] = process.argv.slice(2);
const ROUNDS = 3;
const CONNECTIONS = 32;
const COUNTS = [1, 10, 50, 300];
/** Events of a sealed frame. */
const SEALED = 50;
const STARTS = 15;

/** What Chrome sends with a cross-origin POST, and what Cloudflare adds at a point of presence. */
const headers = (colo, country) => [
  'User-Agent: Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Mobile Safari/537.36',
  'Accept: */*',
  'Accept-Language: en-GB,en;q=0.9,de-CH;q=0.8',
  'Accept-Encoding: gzip, br',
  'Origin: https://shop.example',
  'Referer: https://shop.example/',
  'Sec-CH-UA: "Chromium";v="138", "Not.A/Brand";v="24"',
  'Sec-CH-UA-Mobile: ?1',
  'Sec-CH-UA-Platform: "Android"',
  'Sec-Fetch-Dest: empty',
  'Sec-Fetch-Mode: cors',
  'Sec-Fetch-Site: cross-site',
  'CF-Connecting-IP: 198.51.100.23',
  `CF-IPCountry: ${country}`,
  `CF-Ray: 8f1e2d3c4b5a6978-${colo}`,
  'X-Forwarded-Proto: https',
  `${CF_HEADER}: ${JSON.stringify({ colo, country, continent: 'EU', isEUCountry: '0', asn: 3303, city: 'Zurich', region: 'Zurich', timezone: 'Europe/Zurich', httpProtocol: 'HTTP/2' })}`,
];
const HERE = headers('ZRH', 'CH');
/** Where nobody may read what is for the EU. */
const FAR = headers('IAD', 'US');
/** The empty Worker gets a body as large as a frame of one event. */
const MODES = { firsthop: 'frames', plain: 'batch', empty: 'plain', governed: 'frames', relay: 'frames' };

const middle = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const part = (values, key) => middle(values.map((value) => value[key]));

async function startUpstream() {
  const child = start(upstreamBinary, []);
  const [line] = await once(createInterface({ input: child.stdout }), 'line');
  const said = JSON.parse(line);
  const forwarded = async () => {
    const counts = await (await fetch(`http://${said.address}/counts`)).json();
    return (counts['/v1/e'] ?? 0) + (counts['/v1/f'] ?? 0) + (counts['/v1/batch'] ?? 0);
  };
  return { ...said, forwarded };
}

/** How much is made beforehand, in MB: no Worker uses up so much in the time. */
function memory(events) {
  const bytes = 2_000 + events * 300;
  const most = { 1: 20_000, 10: 15_000, 50: 10_000, 300: 4_000 }[events];
  return Math.ceil((most * Number(seconds) * bytes) / 1e6);
}

/** One Worker under load for some seconds. `more` are further options for the generator. */
async function measure(name, worker, events, upstream, more = {}, head = HERE) {
  const before = await upstream.forwarded();
  const cpu = usage(worker.child.pid).cpuSeconds;
  const options = { address: worker.address, connections: CONNECTIONS, seconds, 'write-key': upstream.writeKey, events, sources: 64, 'memory-mb': memory(events), ...more };
  if (name === 'empty') options.body = join(out, 'body');
  const result = await generate(load, MODES[name], options, head);
  const after = usage(worker.child.pid);
  const forwarded = (await upstream.forwarded()) - before;
  const sent = result.acknowledged + result.eventsBefore;
  // Every request that was acknowledged reached the server behind, and no other; and none was refused.
  const balanced = result.acknowledged === result.requests && result.broken === 0 && forwarded === (name === 'empty' ? 0 : sent);
  if (!balanced || result.usedUp) throw new Error(`${name}, ${events} events: ${JSON.stringify({ ...result, forwarded })}`);
  return {
    requestsPerSecond: result.requestsPerSecond,
    p50Ms: result.p50Ms,
    p99Ms: result.p99Ms,
    bytesPerRequest: result.bytesPerRequest,
    cpuMicros: ((after.cpuSeconds - cpu) * 1e6) / (more.sessions ? result.acknowledged : sent),
    peakMiB: after.peakMiB,
  };
}

/** The middle of some rounds of one Worker. */
const summary = (rounds) => Object.fromEntries(Object.keys(rounds[0]).map((key) => [key, part(rounds, key)]));

/** How long workerd takes until the Worker has answered for the first time, in turn with an empty one. */
async function startUp(names) {
  const times = Object.fromEntries(names.map((name) => [name, []]));
  for (let i = 0; i < STARTS; i++) {
    for (const name of names) {
      const { child, readyMs } = await restart(join(out, name));
      times[name].push(readyMs);
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  }
  return Object.fromEntries(names.map((name) => [`${name}Ms`, middle(times[name])]));
}

mkdirSync(out, { recursive: true });
writeFileSync(join(out, 'body'), 'x'.repeat(700));
const loadBefore = loadavg()[0];
const upstream = await startUpstream();
const bindings = {
  firsthop: { UPSTREAM: `http://${upstream.address}`, REGION: upstream.region, ENROLMENTS: upstream.enrolment },
  plain: { UPSTREAM: `http://${upstream.address}`, WRITE_KEY: upstream.writeKey, SECRET: 's'.repeat(32) },
  empty: {},
  governed: { UPSTREAM: `http://${upstream.address}`, REGION: upstream.region, ENROLMENTS: upstream.governed },
  relay: { UPSTREAM: `http://${upstream.address}` },
};
const workers = {};
for (const name of Object.keys(WORKERS)) workers[name] = await startWorkerd(join(out, name), WORKERS[name], bindings[name]);

const empty = [];
const scenarios = [];
for (const events of COUNTS) {
  const rounds = { firsthop: [], plain: [] };
  // The first round is for the compilers: V8 makes fast code of what it has seen run often.
  for (let round = 0; round <= ROUNDS; round++) {
    for (const name of ['firsthop', 'plain']) {
      const result = await measure(name, workers[name], events, upstream);
      if (round > 0) rounds[name].push(result);
    }
    if (events === 1 && round > 0) empty.push(await measure('empty', workers.empty, events, upstream));
  }
  const of = (key) => middle(rounds.firsthop.map((ours, i) => ours[key] / rounds.plain[i][key]));
  const scenario = { events, firsthop: summary(rounds.firsthop), plain: summary(rounds.plain), throughput: of('requestsPerSecond'), cpu: 1 / of('cpuMicros') };
  scenarios.push(scenario);
  say(`${events}: ${whole(scenario.firsthop.requestsPerSecond)} beside ${whole(scenario.plain.requestsPerSecond)} requests/s`);
}

// The same sealed frames, read here, passed on unread from afar, and passed on by a handler that does nothing else.
const sealed = { process: [], forward: [], relay: [] };
const options = { seal: upstream.seal, sessions: workers.firsthop.address };
for (let round = 0; round <= ROUNDS; round++) {
  for (const [what, name, head] of [['process', 'governed', HERE], ['forward', 'governed', FAR], ['relay', 'relay', FAR]]) {
    const result = await measure(name, workers[name], SEALED, upstream, options, head);
    if (round > 0) sealed[what].push(result);
  }
}
// What each adds to the bare passing on, in processor time.
const added = (what, i) => sealed[what][i].cpuMicros - sealed.relay[i].cpuMicros;
const forwarding = {
  events: SEALED,
  ...Object.fromEntries(Object.entries(sealed).map(([what, rounds]) => [what, summary(rounds)])),
  share: middle(sealed.relay.map((_, i) => added('forward', i) / added('process', i))),
};
say(`sealed, ${SEALED}: ${whole(forwarding.forward.cpuMicros)} µs to pass on, ${whole(forwarding.process.cpuMicros)} to process, ${whole(forwarding.relay.cpuMicros)} of them the platform's`);

for (const { child } of Object.values(workers)) child.kill('SIGKILL');
const started = await startUp(['firsthop', 'empty']);
console.log(JSON.stringify({ seconds: Number(seconds), loadBefore, scenarios, empty: summary(empty), forwarding, startUp: started }, null, 2));
process.exit(0);
