// The script: works off what the snippet has queued, and takes its place.

import { createFirsthop, type Moment } from './client.ts';
import type { Firsthop } from './firsthop.d.ts';
import { instantiate } from './inlined.ts';

/** A call: the method's name and its arguments. The snippet notes when and where it was made. */
type Call = ArrayLike<unknown> & { at?: Moment };
type Queue = Call[];

const page = window as unknown as { firsthop?: (Firsthop & { push(...calls: Queue): void }) | Queue };
const { firsthop: queue } = page;

// A page that has the script twice keeps the first.
if (!queue || Array.isArray(queue)) {
  let at: Moment | undefined;
  const firsthop = createFirsthop(instantiate, () => at);

  const push = (...calls: Queue): void => {
    for (const call of calls) {
      const [method, ...args] = Array.from(call ?? []);
      at = call?.at;
      (firsthop as any)[method as string]?.(...args);
      at = undefined;
    }
  };
  page.firsthop = Object.assign(firsthop, { push });
  if (queue) {
    // Whoever kept the snippet's own function still calls it.
    queue.push = push as never;
    push(...queue);
  }
}
