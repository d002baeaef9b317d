// What the server's benchmarks share: processes, their memory and figures, the load generator, nginx.
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

export const run = promisify(execFile);
export const say = (text) => process.stderr.write(`    ${text}\n`);
export const whole = (number) => Math.round(number).toLocaleString('en');

/** The one in the middle of an odd number of values, by what `of` says of each. */
export const middle = (values, of = (value) => value) => values.toSorted((a, b) => of(a) - of(b))[values.length >> 1];

/** Between which two half of the values lie. */
export function quartiles(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const most = sorted.length - 1;
  return [sorted[Math.floor(most / 4)], sorted[Math.ceil((3 * most) / 4)]];
}

const started = new Set();
const stopAll = () => started.forEach((child) => child.kill('SIGKILL'));
process.on('exit', stopAll);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

export function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], ...options });
  started.add(child);
  child.on('exit', () => started.delete(child));
  return child;
}

export async function stop(child) {
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const [code, signal] = await ended;
  if (code !== 0) throw new Error(`${child.spawnfile} ended with ${code ?? signal}`);
}

/** Memory and processor time that a process has used. */
export function usage(pid) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  const kib = (name) => Number(status.match(new RegExp(`^${name}:\\s+(\\d+)`, 'm'))[1]);
  // Clock ticks of 10 ms: USER_HZ is 100 on every Linux that matters.
  return { peakMiB: kib('VmHWM') / 1024, residentMiB: kib('VmRSS') / 1024, cpuSeconds: (Number(stat[11]) + Number(stat[12])) / 100 };
}

/** What producers send: it is measured, and learnt from. */
export const SCENARIOS = [
  { name: 'frames of 300', mode: 'frames', events: 300, connections: 32 },
  { name: 'frames of 20', mode: 'frames', events: 20, connections: 64 },
  { name: 'one event per request, native', mode: 'frames', events: 1, connections: 64, besideNginx: true },
  { name: 'one event per request, native, 512 connections', mode: 'frames', events: 1, connections: 512, besideNginx: true },
  { name: 'one event per request, Segment', mode: 'track', events: 1, connections: 64, besideNginx: true },
];

/** A data folder with one tenant. Returns its write key. */
export async function makeFolder(firsthop, data) {
  rmSync(data, { recursive: true, force: true });
  const { stdout } = await run(firsthop, ['tenant', 'add', 'bench', '--data', data]);
  return stdout.match(/fh_[0-9a-f]{16}_\w+/)[0];
}

/** A server on a data folder, ready: the process, its addresses, and how long it took. */
export async function serve(firsthop, data) {
  const listen = ['--listen', '127.0.0.1:0', '--internal-listen', '127.0.0.1:0'];
  const began = performance.now();
  // The table need not catch up at the end: what counts is the journal.
  const server = start(firsthop, ['serve', '--data', data, ...listen, '--log-format', 'json', '--drain-timeout', '1s'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines = [];
  const ready = Promise.withResolvers();
  for (const stream of [server.stdout, server.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line);
      const found = line.match(/"public":"([^"]+)","internal":"([^"]+)"/);
      if (found) ready.resolve({ address: found[1], internal: found[2], readyMs: performance.now() - began });
    });
  }
  server.on('exit', () => ready.reject(new Error(`the server did not become ready:\n${lines.join('\n')}`)));
  const timer = setTimeout(() => ready.reject(new Error(`not ready within a minute:\n${lines.join('\n')}`)), 60_000);
  try {
    const found = await ready.promise;
    const answer = await fetch(`http://${found.internal}/readyz`);
    if (!answer.ok) throw new Error(`/readyz says ${answer.status}: ${await answer.text()}`);
    return { server, ...found };
  } finally {
    clearTimeout(timer);
  }
}

/** The server's figures: name with labels, as it stands in /metrics, to number. */
export async function metrics(internal) {
  const text = await (await fetch(`http://${internal}/metrics`)).text();
  const samples = text.split('\n').filter((line) => line && !line.startsWith('#'));
  return new Map(samples.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]));
}

/** The sum of a metric's samples that have all these labels. */
export function figure(samples, name, ...labels) {
  let sum = 0;
  for (const [key, value] of samples) {
    if ((key === name || key.startsWith(`${name}{`)) && labels.every((label) => key.includes(label))) sum += value;
  }
  return sum;
}

/** Of a histogram, the share of what took at most so many seconds, for every bound. */
export function histogram(samples, name) {
  const bounds = [...samples].filter(([key]) => key.startsWith(`${name}_bucket{`));
  const count = figure(samples, `${name}_count`);
  const buckets = bounds.map(([key, value]) => ({ seconds: key.match(/le="([^"]+)"/)[1], share: value / count }));
  return { count, meanMs: (figure(samples, `${name}_sum`) / count) * 1000, buckets };
}

/** Runs the load generator to its end, and returns what it says. */
export async function generate(load, mode, options, headers = []) {
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
  for (const header of headers) args.push('--header', header);
  const { stdout } = await run(load, [mode, ...args], { maxBuffer: 1 << 20 });
  return JSON.parse(stdout);
}

/** Whether the journal has what was acknowledged: nothing missing, nothing twice, every event of every acknowledged request. */
export async function isBalanced(firsthop, data, results) {
  const { stdout } = await run(firsthop, ['verify', '--data', data]).catch((error) => error);
  const journaled = Number(stdout.match(/: (\d+) events in/)?.[1]);
  const expected = results.reduce((sum, result) => sum + result.stored + result.eventsBefore, 0);
  const exact = results.every((result) => result.stored === result.acknowledgedEvents && result.duplicate === 0);
  return { journaled, balanced: journaled === expected && exact };
}

/** A port that was free a moment ago. */
async function freePort() {
  const socket = createServer().listen(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  await once(socket, 'close');
  return port;
}

/** nginx answering 204 on two workers. */
export async function nginx(folder) {
  const dir = join(folder, 'nginx');
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  const port = await freePort();
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${dir}/${kind};`).join(' ');
  writeFileSync(
    join(dir, 'nginx.conf'),
    // Started by root, nginx would look for a user of its own, which need not be there.
    `${process.getuid() === 0 ? 'user root;\n' : ''}daemon off;
worker_processes 2;
pid ${dir}/nginx.pid;
error_log stderr warn;
events { worker_connections 1024; }
http {
  ${temporary}
  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 1m;
  server { listen 127.0.0.1:${port} reuseport; location / { return 204; } }
}
`,
  );
  const child = start('nginx', ['-e', 'stderr', '-p', dir, '-c', join(dir, 'nginx.conf')]);
  await sleep(500);
  if (child.exitCode !== null) throw new Error('nginx did not start');
  return { child, address: `127.0.0.1:${port}` };
}

export const has = async (command) => run('sh', ['-c', `command -v ${command}`]).then(() => true, () => false);
