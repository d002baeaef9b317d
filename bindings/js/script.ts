// The script: loads itself if its tag says with what, works off what the snippet has queued, and takes its place.

import { createFirsthop, type Moment } from './client.ts';
import type { Firsthop } from './firsthop.d.ts';
import { instantiate } from './inlined.ts';

/** A call: the method's name and its arguments. The snippet notes when and where it was made. */
type Call = ArrayLike<unknown> & { at?: Moment };
type Queue = Call[];

declare global {
  var firsthop: (Firsthop & { push(...calls: Queue): void }) | Queue | undefined;
}
const queue = window.firsthop;

// A page that has the script twice keeps the first.
if (!queue || Array.isArray(queue)) {
  let at: Moment | undefined;
  const firsthop = createFirsthop(instantiate, () => at);

  const push = (...calls: Queue): void =>
    calls.forEach((call) => {
      const [method, ...args] = Array.from(call ?? []);
      at = call?.at;
      (firsthop as any)[method as string]?.(...args);
      at = undefined;
    });
  window.firsthop = Object.assign(firsthop, { push });
  // A tag that says all itself needs no other script beside it, which a Content-Security-Policy would have to allow.
  const tag = document.currentScript as HTMLScriptElement | null;
  if (tag?.dataset.writeKey) {
    // A script from elsewhere has no `/sdk/` in its address: nobody takes events there.
    const [host, file] = tag.src.split('/sdk/');
    // An attribute is a text: any would be a yes to what is kept beyond the page, and an empty one a no to Global Privacy Control.
    firsthop.load({ endpoint: file && host, ...tag.dataset, gpc: tag.dataset.gpc != 'false', persist: false } as never);
    firsthop.page();
  }
  if (queue) {
    // Whoever kept the snippet's own function still calls it.
    queue.push = push as never;
    push(...queue);
  }
}
