// Load for one Worker, with the server behind it: what the benchmark and the figures beside the platform's limits share.
import { once } from 'node:events';
import { createInterface } from 'node:readline';

import { generate, start, usage } from '../server/kit.mjs';
import { CF_HEADER } from './workerd.mjs';

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
export const HERE = headers('ZRH', 'CH');
/** Where nobody may read what is for the EU. */
export const FAR = headers('IAD', 'US');
/** The empty Worker gets a body as large as a frame of one event. */
const MODES = { firsthop: 'frames', plain: 'batch', empty: 'plain', governed: 'frames', relay: 'frames' };

/** The server behind the Workers. */
export async function startUpstream(binary) {
  const child = start(binary, []);
  const [line] = await once(createInterface({ input: child.stdout }), 'line');
  const said = JSON.parse(line);
  const forwarded = async () => {
    const counts = await (await fetch(`http://${said.address}/counts`)).json();
    return (counts['/v1/e'] ?? 0) + (counts['/v1/f'] ?? 0) + (counts['/v1/batch'] ?? 0);
  };
  return { ...said, forwarded };
}

/** What a Worker is told. */
export function bindings(name, { address, region, enrolment, governed, writeKey }) {
  const UPSTREAM = `http://${address}`;
  return {
    firsthop: { UPSTREAM, REGION: region, ENROLMENTS: enrolment },
    governed: { UPSTREAM, REGION: region, ENROLMENTS: governed },
    plain: { UPSTREAM, WRITE_KEY: writeKey, SECRET: 's'.repeat(32) },
    relay: { UPSTREAM },
    empty: {},
  }[name];
}

/** How much is made beforehand, in MB: no Worker uses up so much in the time. */
function memory(events, seconds) {
  const bytes = 2_000 + events * 300;
  const most = { 1: 20_000, 10: 15_000, 50: 10_000, 300: 4_000 }[events];
  return Math.ceil((most * Number(seconds) * bytes) / 1e6);
}

/** One Worker under load: `wanted` are the generator's options, of which `events` and `seconds` must be there. */
export async function underLoad(load, name, worker, wanted, upstream, head = HERE) {
  const before = await upstream.forwarded();
  const cpu = usage(worker.child.pid).cpuSeconds;
  const { events, seconds } = wanted;
  const options = { address: worker.address, connections: 32, 'write-key': upstream.writeKey, sources: 64, 'memory-mb': memory(events, seconds), ...wanted };
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
    cpuMicros: ((after.cpuSeconds - cpu) * 1e6) / (wanted.sessions ? result.acknowledged : sent),
    peakMiB: after.peakMiB,
  };
}
