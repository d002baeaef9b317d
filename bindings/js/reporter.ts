// Tells listeners, and the console where nobody listens. Whatever a listener throws stays here.

import type { Events } from './firsthop.d.ts';

type Name = keyof Events;
type Listener = (event: never) => void;

export type Reporter = ReturnType<typeof createReporter>;

export function createReporter() {
  const listeners: { [name in Name]?: Set<Listener> } = {};
  const warned: { [code: string]: boolean } = {};

  const of = (name: Name): Set<Listener> => (listeners[name] ??= new Set());

  /** Once for each code. */
  const warn = (code: string, cause?: unknown): void => {
    if (!warned[code]) console.warn('firsthop:', code, cause);
    warned[code] = true;
  };

  const emit = <N extends Name>(name: N, event: Events[N]): void =>
    of(name).forEach((listener) => {
      try {
        listener(event as never);
      } catch (cause) {
        warn('listener', cause);
      }
    });

  const fail = (code: string, cause?: unknown): void => (of('error').size ? emit('error', { code, cause }) : warn(code, cause));

  return {
    emit,
    fail,
    /** Whatever goes wrong in it stays there. */
    guard:
      (act: (...args: any[]) => void) =>
      (...args: any[]): void => {
        try {
          act(...args);
        } catch (cause) {
          fail('internal', cause);
        }
      },
    on: (name: Name, listener: Listener): unknown => of(name).add(listener),
    off: (name: Name, listener: Listener): unknown => of(name).delete(listener),
  };
}
