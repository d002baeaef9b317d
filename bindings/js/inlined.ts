// The WebAssembly module as part of the script: deflated, six bits a character.
//
// The characters are the script's own most frequent ones (`build.mjs` chooses them), because gzip has one code for both: with those of
// base64, code and module would each make the other longer, by a sixth.

import type { Wasm } from './wasm.ts';

declare const ALPHABET: string;
declare const WASM: string;

export async function instantiate(): Promise<Wasm> {
  const deflated: number[] = [];
  let bits = 0;
  let count = 0;
  for (const char of WASM) {
    bits = (bits << 6) | ALPHABET.indexOf(char);
    if ((count += 6) > 7) deflated.push(bits >> (count -= 8));
  }
  const stream = new Blob([new Uint8Array(deflated)]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  const { instance } = await WebAssembly.instantiate(await new Response(stream).arrayBuffer());
  return instance.exports as unknown as Wasm;
}
