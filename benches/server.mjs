// The server under load, on loopback, beside nginx that answers 204 and throws the body away:
//
//     node benches/server.mjs FIRSTHOP LOAD FOLDER [SECONDS] >server.json
//
// FIRSTHOP and LOAD are the binaries, FOLDER is where data may go: on a disk, since what is measured includes its fsync. Progress goes to
// standard error. Every scenario has a server and a data folder of its own, and ends by `firsthop verify`: what was acknowledged must be there.
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

const run = promisify(execFile);
const [firsthop, load, folder] = process.argv.slice(2, 5).map((path) => resolve(path));
const seconds = Number(process.argv[5] ?? 10);

const SCENARIOS = [
  { name: 'frames of 300', mode: 'frames', events: 300, connections: 32 },
  { name: 'frames of 20', mode: 'frames', events: 20, connections: 64 },
  { name: 'one event per request, native', mode: 'frames', events: 1, connections: 64, besideNginx: true },
  { name: 'one event per request, Segment', mode: 'track', events: 1, connections: 64, besideNginx: true },
];

const started = new Set();
const stopAll = () => started.forEach((child) => child.kill('SIGKILL'));
process.on('exit', stopAll);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], ...options });
  started.add(child);
  child.on('exit', () => started.delete(child));
  return child;
}

async function stop(child) {
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const [code, signal] = await ended;
  if (code !== 0) throw new Error(`${child.spawnfile} ended with ${code ?? signal}`);
}

const say = (text) => process.stderr.write(`    ${text}\n`);
const whole = (number) => Math.round(number).toLocaleString('en');

/** Memory and processor time that a process has used. */
function usage(pid) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  const kib = (name) => Number(status.match(new RegExp(`^${name}:\\s+(\\d+)`, 'm'))[1]);
  // Clock ticks of 10 ms: USER_HZ is 100 on every Linux that matters.
  return { peakMiB: kib('VmHWM') / 1024, residentMiB: kib('VmRSS') / 1024, cpuSeconds: (Number(stat[11]) + Number(stat[12])) / 100 };
}

async function scenario({ name, mode, events, connections }) {
  const data = join(folder, 'data');
  rmSync(data, { recursive: true, force: true });
  const { stdout: added } = await run(firsthop, ['tenant', 'add', 'bench', '--data', data]);
  const writeKey = added.match(/fh_[0-9a-f]{16}_\w+/)[0];

  const listen = ['--listen', '127.0.0.1:0', '--internal-listen', '127.0.0.1:0'];
  const server = start(firsthop, ['serve', '--data', data, ...listen, '--log-format', 'json', '--drain-timeout', '120s'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const address = await ready(server);
  const before = usage(server.pid);
  const body = join(folder, `${mode}-${events}.body`);
  const args = [mode, '--address', address, '--write-key', writeKey, '--events', events, '--connections', connections];
  const { stdout } = await run(load, [...args, '--seconds', seconds, '--save-body', body].map(String), { maxBuffer: 1 << 20 });
  const result = JSON.parse(stdout);
  const after = usage(server.pid);
  const stopping = Date.now();
  await stop(server);
  const drained = (Date.now() - stopping) / 1000;

  const { stdout: verified } = await run(firsthop, ['verify', '--data', data]);
  const journaled = Number(verified.match(/: (\d+) events in/)[1]);
  const rows = Number(verified.match(/(\d+) rows in the events table/)[1]);
  const expected = result.stored + result.eventsBefore;
  rmSync(data, { recursive: true, force: true });
  const refused = Object.entries(result.statuses).filter(([status]) => status >= 300);
  return {
    name,
    ...result,
    body,
    journaled,
    // Nothing acknowledged is missing, nothing is there twice, and every event of every acknowledged request was stored.
    balanced: journaled === expected && result.stored === result.acknowledgedEvents && result.duplicate === 0,
    refused: Object.fromEntries(refused),
    peakMiB: after.peakMiB,
    residentMiB: after.residentMiB,
    cpuMicrosPerEvent: ((after.cpuSeconds - before.cpuSeconds) * 1e6) / result.acknowledgedEvents,
    // How long the events table took to catch up; undefined if the server's patience ended first.
    caughtUpSeconds: rows === journaled ? drained : undefined,
  };
}

/** The public address, once the server's log says that it is ready. */
async function ready(server) {
  const lines = [];
  for (const stream of [server.stdout, server.stderr]) createInterface({ input: stream }).on('line', (line) => lines.push(line));
  for (let tries = 0; tries < 200; tries++) {
    const found = lines.map((line) => line.match(/"public":"([^"]+)"/)).find(Boolean);
    if (found) return found[1];
    if (server.exitCode !== null) break;
    await new Promise((wake) => setTimeout(wake, 50));
  }
  throw new Error(`the server did not become ready:\n${lines.join('\n')}`);
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

/** nginx answering 204 on two workers, for as long as `use` takes. */
async function withNginx(use) {
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
  const nginx = start('nginx', ['-e', 'stderr', '-p', dir, '-c', join(dir, 'nginx.conf')]);
  try {
    await new Promise((wake) => setTimeout(wake, 500));
    if (nginx.exitCode !== null) throw new Error('nginx did not start');
    return await use(`127.0.0.1:${port}`);
  } finally {
    await stop(nginx);
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Requests per second that nginx answers for the same body, asked by wrk and by our own generator. */
async function beside(address, body) {
  const script = join(folder, 'post.lua');
  writeFileSync(
    script,
    `wrk.method = "POST"\nwrk.body = io.open(os.getenv("BENCH_BODY"), "rb"):read("*a")\nwrk.headers["Content-Type"] = "text/plain"\n`,
  );
  const time = Math.max(3, Math.round(seconds / 2));
  const env = { ...process.env, BENCH_BODY: body };
  const { stdout: wrk } = await run('wrk', ['-t2', '-c64', `-d${time}`, '--latency', '-s', script, `http://${address}/`], { env });
  const { stdout: own } = await run(load, ['plain', '--address', address, '--body', body, '--connections', '64', '--seconds', String(time)]);
  return { wrk: Number(wrk.match(/Requests\/sec:\s+([\d.]+)/)[1]), own: JSON.parse(own).requestsPerSecond };
}

const has = async (command) => run('sh', ['-c', `command -v ${command}`]).then(() => true, () => false);

mkdirSync(folder, { recursive: true });
// What else the machine was doing.
const loadBefore = loadavg()[0];
const scenarios = [];
for (const wanted of SCENARIOS) {
  say(`${wanted.name}, ${wanted.connections} connections, ${seconds} s …`);
  const result = await scenario(wanted);
  const rate = `${whole(result.eventsPerSecond)} events/s, p50 ${result.p50Ms.toFixed(1)} ms, p99 ${result.p99Ms.toFixed(1)} ms`;
  say(`  ${rate}; ${whole(result.journaled)} in the journal: ${result.balanced ? 'all that was acknowledged' : 'THAT IS NOT WHAT WAS ACKNOWLEDGED'}`);
  scenarios.push(result);
}

if ((await has('nginx')) && (await has('wrk'))) {
  await withNginx(async (address) => {
    for (const [i, result] of scenarios.entries()) {
      if (!SCENARIOS[i].besideNginx) continue;
      say(`nginx, ${result.bytesPerRequest} bytes …`);
      result.nginx = await beside(address, result.body);
      say(`  ${whole(result.nginx.wrk)} requests/s (wrk), ${whole(result.nginx.own)} (our generator)`);
    }
  });
} else {
  say('nginx or wrk is missing: no comparison with them');
}
console.log(JSON.stringify({ seconds, loadBefore, scenarios }, null, 2));
