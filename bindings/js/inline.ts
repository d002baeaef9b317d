// The ES module with the WebAssembly module inside, for bundlers that would lose the file beside it.

import { createFirsthop } from './client.ts';
import { instantiate } from './inlined.ts';

const firsthop = createFirsthop(instantiate);

export const { load, track, page, identify, group, alias, consent, reset, flush, on, off } = firsthop;
export default firsthop;
