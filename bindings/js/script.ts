// The script: works off what the snippet has queued, and takes its place.

import { createFirsthop } from './client.ts';
import type { Firsthop } from './firsthop.d.ts';
import { instantiate } from './inlined.ts';

type Queue = ArrayLike<unknown>[];

const page = window as unknown as { firsthop?: (Firsthop & { push(...calls: Queue): void }) | Queue };
const { firsthop: queue } = page;

// A page that has the script twice keeps the first.
if (!queue || Array.isArray(queue)) {
  const firsthop = createFirsthop(instantiate);

  const push = (...calls: Queue): void => {
    for (const call of calls) {
      const [method, ...args] = Array.from(call ?? []);
      (firsthop as any)[method as string]?.(...args);
    }
  };
  page.firsthop = Object.assign(firsthop, { push });
  if (queue) {
    // Whoever kept the snippet's own function still calls it.
    queue.push = push as never;
    push(...queue);
  }
}
