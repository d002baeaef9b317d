// What npm runs before it packs: the licences stand at the top of the repository, and what is packed has to have been built.

import { copyFileSync, existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const at = (path) => fileURLToPath(new URL(path, import.meta.url));

for (const name of ['firsthop.mjs', 'firsthop.inline.mjs', 'firsthop.js', 'firsthop.wasm', 'firsthop.d.ts', 'firsthop-sealed.mjs', 'firsthop-sealed.js', 'firsthop-sealed.d.ts', 'integrity.json']) {
  if (!existsSync(at(`dist/${name}`))) throw new Error(`dist/${name} is not there: build first (make sdk)`);
}
const [, version] = readFileSync(at('../Cargo.toml'), 'utf8').match(/^\[workspace\.package\][^[]*^version = "(.+)"/m);
const { version: packed } = JSON.parse(readFileSync(at('package.json')));
if (packed !== version) throw new Error(`package.json says ${packed}, the workspace ${version}`);
for (const name of ['LICENSE', 'LICENSE-APACHE', 'LICENSE-MIT']) copyFileSync(at(`../${name}`), at(name));
