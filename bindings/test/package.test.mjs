// The npm package, as somebody has it who installed it.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const tsc = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url));

let folder, packed;

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'firsthop-package-'));
  const json = execFileSync('npm', ['pack', '--json', '--pack-destination', folder], { cwd: root, stdio: ['ignore', 'pipe', 'ignore'] }).toString();
  [packed] = JSON.parse(json.slice(json.indexOf('[')));
  const installed = join(folder, 'node_modules', 'firsthop');
  mkdirSync(installed, { recursive: true });
  execFileSync('tar', ['-xzf', join(folder, packed.filename), '--strip-components=1', '-C', installed]);
  writeFileSync(join(folder, 'package.json'), '{"type":"module","private":true}');
});

after(() => rmSync(folder, { recursive: true }));

const run = (code) => JSON.parse(execFileSync(process.execPath, ['--input-type=module', '--eval', code], { cwd: folder }).toString());

test('what is in it', () => {
  assert.deepEqual(packed.files.map(({ path }) => path).sort(), [
    'LICENSE',
    'LICENSE-APACHE',
    'LICENSE-MIT',
    'README.md',
    'dist/firsthop-sealed.d.ts',
    'dist/firsthop-sealed.js',
    'dist/firsthop-sealed.mjs',
    'dist/firsthop.d.ts',
    'dist/firsthop.inline.mjs',
    'dist/firsthop.js',
    'dist/firsthop.mjs',
    'dist/firsthop.wasm',
    'dist/integrity.json',
    'package.json',
  ]);
  const manifest = JSON.parse(readFileSync(join(folder, 'node_modules/firsthop/package.json')));
  assert.deepEqual([manifest.dependencies, manifest.license, manifest.scripts.install, manifest.scripts.postinstall], [undefined, 'Apache-2.0 OR MIT', undefined, undefined]);
});

for (const name of ['firsthop', 'firsthop/inline', 'firsthop/sealed']) {
  test(`import '${name}' on a server does nothing, and breaks nothing`, () => {
    const found = run(`
      const names = () => Reflect.ownKeys(globalThis).length;
      const before = names();
      const { default: firsthop, ...named } = await import('${name}');
      await firsthop.flush();
      console.log(JSON.stringify({ named: Object.keys(named), same: Object.entries(named).every(([name, method]) => firsthop[name] === method), leaked: names() - before }));
    `);
    assert.deepEqual(found, { named: ['alias', 'consent', 'flush', 'group', 'identify', 'load', 'off', 'on', 'page', 'reset', 'track'], same: true, leaked: 0 });
  });
}

test('its other files are found by their names', () => {
  const found = run(`console.log(JSON.stringify(['firsthop/script', 'firsthop/sealed/script', 'firsthop/firsthop.wasm', 'firsthop/package.json'].map((name) => import.meta.resolve(name).split('/').pop())))`);
  assert.deepEqual(found, ['firsthop.js', 'firsthop-sealed.js', 'firsthop.wasm', 'package.json']);
});

/** Fails with what the compiler said. */
function compile(...command) {
  try {
    execFileSync(...command);
  } catch ({ stdout }) {
    assert.fail(stdout.toString());
  }
}

test('its types take what is right and refuse what is wrong', () => {
  writeFileSync(
    join(folder, 'use.ts'),
    `
    import firsthop, { load, track, type Delivered, type Firsthop } from 'firsthop';
    import inline from 'firsthop/inline';
    import sealed, { load as loadSealed, type RegionKey } from 'firsthop/sealed';

    interface Product { sku: string; price: number }
    const product: Product = { sku: 'G-32', price: 18.99 };
    const same: Firsthop = inline;
    load({ endpoint: 'https://edge.example', writeKey: 'fh_', consent: { analytics: true }, flushAt: 10 });
    track('Product Viewed', { ...product }, { timestamp: new Date() }, () => {});
    track('Product Viewed', product);
    track('Product Viewed', () => {});
    track({ event: 'x', properties: { n: 1n } });
    firsthop.page();
    firsthop.page('Name', { path: '/' });
    firsthop.page('Category', 'Name', null, { context: {} });
    firsthop.identify({ plan: 'pro' });
    firsthop.identify(null, { plan: 'pro' }, () => {});
    firsthop.identify(7);
    firsthop.group('g', product);
    firsthop.alias('new', 'old');
    firsthop.consent({ marketing: false });
    const done: Promise<void> = firsthop.flush();
    firsthop.on('delivered', ({ batch, duplicates }: Delivered) => batch + duplicates);
    firsthop.on('error', ({ code }) => code.length);
    const key: RegionKey = { id: 5, region: 'EU', public: '…', from: 0 };
    loadSealed({ endpoint: 'https://edge.example', writeKey: 'fh_', region: 'EU', regionKeys: [key] });
    sealed.track('Product Viewed', product);
    // @ts-expect-error: nothing to seal to
    sealed.load({ endpoint: 'https://edge.example', writeKey: 'fh_', region: 'EU' });
    // @ts-expect-error: a build that does not seal
    load({ endpoint: 'https://edge.example', writeKey: 'fh_', region: 'EU', regionKeys: [key] });
    // @ts-expect-error: no endpoint
    load({ writeKey: 'fh_' });
    // @ts-expect-error: no name
    track();
    // @ts-expect-error: no such purpose
    firsthop.consent({ analytic: true });
    // @ts-expect-error: no such event
    firsthop.on('delivery', () => {});
    // @ts-expect-error: properties are no text
    track('x', 'text');
    void [same, done];
    `,
  );
  for (const resolution of ['bundler', 'nodenext']) {
    const module = resolution === 'bundler' ? 'esnext' : 'nodenext';
    compile(process.execPath, [tsc, '--strict', '--noEmit', '--target', 'es2022', '--lib', 'es2022,dom', '--module', module, '--moduleResolution', resolution, '--types', '', 'use.ts'], { cwd: folder, stdio: 'pipe' });
  }
});

test('the sources are of their types', () => {
  compile(process.execPath, [tsc, '--project', join(root, 'js')], { stdio: 'pipe' });
});

test('it is as small as promised', () => {
  const sizes = JSON.parse(readFileSync(new URL('../dist/sizes.json', import.meta.url)));
  const limited = Object.entries(sizes).filter(([, { limit }]) => limit);
  assert.equal(limited.length, 6);
  for (const [name, { gzip, limit }] of limited) assert.ok(gzip > 1000 && gzip <= limit, `${name}: ${gzip} of ${limit} bytes`);
});
