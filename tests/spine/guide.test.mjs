// The guide of edge-worker/README.md, typed as it stands there: the commands of "On your own machine", and what each is said to print. What
// the test puts in its place: free ports, and a folder of its own for wrangler.toml and what was built. (The build command itself is typed by `tools/test
// deploy`.) The rest of the guide needs an account.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Server, freePorts, until } from './parts.mjs';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** The commands of the first block of a section, each with what it is said to print: '…' is anything. */
async function commandsOf(heading) {
  const text = await readFile(path.join(ROOT, 'edge-worker/README.md'), 'utf8');
  const [, block] = text.slice(text.indexOf(`## ${heading}\n`)).match(/```console\n([^]*?)```/);
  return block.split(/^\$ /m).slice(1).map((part) => {
    const [line, ...printed] = part.trimEnd().split('\n');
    const [, command, remark = ''] = line.match(/^(.*?)(?: {2,}# (.*))?$/);
    return { command, stays: remark.startsWith('stays'), printed: printed.join('\n') };
  });
}

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
const matching = (printed) => new RegExp(`^${escaped(printed).replaceAll('…', '[^]*')}\\s*$`);

test('what the guide says to type works, and prints what it says', async (t) => {
  const commands = await commandsOf('On your own machine');
  const folder = await mkdtemp(path.join(tmpdir(), 'firsthop-guide-'));
  const [port, internal, dev, inspector] = Array.from({ length: 4 }, (_, i) => i).map(((first) => (i) => first + i)(await freePorts(4)));
  const children = [];
  t.after(async () => {
    for (const child of children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      process.kill(-child.pid, 'SIGTERM');
      const late = setTimeout(() => process.kill(-child.pid, 'SIGKILL'), 10_000);
      await ended;
      clearTimeout(late);
    }
    await rm(folder, { recursive: true, force: true });
  });

  // The repository, as far as wrangler looks at it.
  const edge = path.join(folder, 'edge-worker');
  await mkdir(path.join(folder, 'bin'));
  await symlink(Server.binary, path.join(folder, 'bin/firsthop'));
  await cp(path.join(ROOT, 'edge-worker/build'), path.join(edge, 'build'), { recursive: true });
  await symlink(path.join(ROOT, 'node_modules'), path.join(folder, 'node_modules'));
  const config = (await readFile(path.join(ROOT, 'edge-worker/wrangler.toml'), 'utf8'))
    .replace(/^\[build\]\n[^]*?\n\n/m, '')
    .replace('127.0.0.1:8080', `127.0.0.1:${port}`)
    .replace('127.0.0.1:9090', `127.0.0.1:${internal}`);
  await writeFile(path.join(edge, 'wrangler.toml'), config);

  const env = {
    ...process.env,
    PATH: `${folder}/bin:${ROOT}node_modules/.bin:${process.env.PATH}`,
    FIRSTHOP_DATA: path.join(folder, 'data'),
    FIRSTHOP_LISTEN: `127.0.0.1:${port}`,
    FIRSTHOP_INTERNAL_LISTEN: `127.0.0.1:${internal}`,
    // Asks nobody outside.
    CLOUDFLARE_CF_FETCH_ENABLED: 'false',
    WRANGLER_SEND_METRICS: 'false',
    CI: 'true',
  };
  let cwd = folder;
  const type = (command) => {
    const child = spawn('bash', ['-c', command], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    children.push(child);
    for (const stream of ['stdout', 'stderr']) {
      child[`${stream}Said`] = '';
      child[stream].on('data', (chunk) => (child[`${stream}Said`] += chunk));
    }
    return child;
  };

  const known = { 'fhe_…': undefined, 'fh_…': undefined };
  let followed;
  for (let { command, stays, printed } of commands) {
    for (const [written, value] of Object.entries(known)) {
      if (command.includes(written)) command = command.replace(written, value ?? assert.fail(`${written} is not known yet: ${command}`));
    }
    command = command.replace('localhost:8787', `localhost:${dev}`);
    if (command === 'npx wrangler dev') command += ` --port ${dev} --inspector-port ${inspector}`;
    if (command.startsWith('cd ')) {
      cwd = path.join(cwd, command.slice(3));
    } else if (stays) {
      const child = type(command);
      const here = { 'firsthop serve': `http://127.0.0.1:${port}/readyz`, 'npx wrangler dev': `http://localhost:${dev}/livez` };
      const url = Object.entries(here).find(([begin]) => command.startsWith(begin))?.[1];
      if (url) {
        await until(command, async () => {
          assert.equal(child.exitCode, null, child.stdoutSaid + child.stderrSaid);
          return (await fetch(url)).ok;
        });
      } else followed = child;
      if (command === 'firsthop serve') [known['fh_…']] = (await until('a write key', () => child.stdoutSaid.match(/fh_[0-9a-f]{16}_\w+/)));
    } else {
      const child = type(command);
      const [code] = await once(child, 'close');
      assert.equal(code, 0, `${command}: ${child.stderrSaid}`);
      assert.match(child.stdoutSaid, matching(printed), command);
      known['fhe_…'] = child.stdoutSaid.match(/fhe_\w+/)?.[0] ?? known['fhe_…'];
    }
  }
  await until('the event, in what stays', () => /Edge Tried/.test(followed.stdoutSaid));
});
