// wrangler.toml: one region at its top, and environments for several. Wrangler hands no variable and no binding on to an environment, so each is
// read here as wrangler reads it and looked through, and the Worker started with its REGION.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { unstable_readConfig as readConfig } from 'wrangler';

import { pair, refusal } from './pair.mjs';
import { Tenant, newSource } from './server.mjs';
import { until } from './wait.mjs';

const EDGE = fileURLToPath(new URL('..', import.meta.url));
const config = `${EDGE}/wrangler.toml`;
const environments = [...readFileSync(config, 'utf8').matchAll(/^\[env\.(\w+)\]$/gm)].map(([, name]) => name);
const read = (env) => readConfig({ config, env }, { hideWarnings: true });

/** The objects that the Worker asks for, by what its sources say. */
const sources = readdirSync(`${EDGE}/src`, { recursive: true }).filter((name) => name.endsWith('.rs')).map((name) => readFileSync(`${EDGE}/src/${name}`, 'utf8')).join('');
const needed = [...sources.matchAll(/bound\("(\w+)"\)/g)].map(([, binding]) => binding).sort();

test('there are environments, and objects that the Worker needs', () => {
  assert.deepEqual(environments, ['eu', 'us']);
  assert.deepEqual(needed, ['LEASE_STORE', 'SPOOL']);
});

for (const env of ['', ...environments]) {
  test(`${env ? `--env ${env}` : 'one region'}: all that the Worker needs`, async () => {
    const { name, main, vars, durable_objects, migrations, compatibility_date, observability, build, routes } = read(env);
    assert.equal(name, env ? `firsthop-edge-${env}` : 'firsthop-edge');
    assert.deepEqual([main.endsWith('build/index.js'), build.command, routes], [true, 'node build.mjs', undefined]);
    assert.deepEqual(structuredClone(observability), { enabled: true, logs: { enabled: true, invocation_logs: false } }, 'our lines, and not the platform’s record of each request');
    assert.equal(compatibility_date, read('').compatibility_date);
    assert.deepEqual(Object.keys(vars).sort(), ['JURISDICTION', 'LEASES', 'REGION', 'UPSTREAM']);
    if (env) {
      assert.equal(vars.REGION, env.toUpperCase());
      for (const url of [vars.UPSTREAM, vars.LEASES]) assert.match(url, new RegExp(`^https://.*${env}.*\\.example\\.com$`), 'another region, another server');
    }
    const bound = Object.fromEntries(durable_objects.bindings.map(({ name, class_name }) => [name, class_name]));
    assert.deepEqual(Object.keys(bound).sort(), needed);
    const made = migrations.flatMap(({ new_sqlite_classes }) => new_sqlite_classes ?? []);
    assert.deepEqual(Object.values(bound).sort(), made.sort(), 'a migration makes each class');

    assert.ok(['eu', 'fedramp', ''].includes(vars.JURISDICTION));

    // And it works with it, off the platform, where there is no jurisdiction: a frame for its region is taken.
    const tenant = new Tenant(0xc8, { region: vars.REGION });
    const { edge, send } = await pair({ tenants: [tenant], REGION: vars.REGION });
    const answer = await send(tenant.frame({ source: newSource() }));
    assert.equal(answer.status, 200, `${await answer.text()} ${edge.log.join()}`);
  });
}

test('a spool is no larger than its objects can be', async () => {
  const GIB = 2 ** 30;
  for (const [SPOOL_SHARDS, most] of [['1', 8 * GIB], ['4', 32 * GIB]]) {
    const { send, tenant } = await pair({ SPOOL_SHARDS, SPOOL_BYTES: `${most}` });
    assert.equal((await send(tenant.frame({ source: newSource() }))).status, 200);
    const over = await pair({ SPOOL_SHARDS, SPOOL_BYTES: `${most + 1}` });
    await refusal(await over.send(over.tenant.frame({ source: newSource() })), 503, 'unavailable');
    const why = `SPOOL_BYTES is not a whole number from 1 to ${most}`;
    const lines = await until('the log to say why', () => over.edge.log.length > 0 && over.edge.log);
    assert.deepEqual(JSON.parse(lines[0]), { event: 'not-set-up', why });
  }
});
