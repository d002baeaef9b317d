// What a page and a point of presence load, in bytes, as JSON: the page SDK's files as its build weighed them, and the Worker's.
import { readFileSync } from 'node:fs';

import { weigh } from '../edge-worker/size.mjs';

const sizes = JSON.parse(readFileSync(new URL('../bindings/dist/sizes.json', import.meta.url)));
const sdk = Object.entries(sizes).map(([name, bytes]) => ({ name, ...bytes }));
const worker = weigh().map(({ name, ...bytes }) => ({ name: name.startsWith('index') ? `Worker: ${name}` : name, ...bytes }));
console.log(JSON.stringify({ rows: [...sdk, ...worker] }, null, 2));
