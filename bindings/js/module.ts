// The ES module. The WebAssembly lies beside it, where bundlers find it by this very expression.

import { createFirsthop } from './client.ts';
import type { Wasm } from './wasm.ts';

const firsthop = createFirsthop(async () => {
  const response = await fetch(new URL('firsthop.wasm', import.meta.url));
  const { instance } = await WebAssembly.instantiate(await response.arrayBuffer());
  return instance.exports as unknown as Wasm;
});

export const { load, track, page, identify, group, alias, consent, reset, flush, on, off } = firsthop;
export default firsthop;
