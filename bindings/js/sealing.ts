// What the sealed build adds: each frame is sealed to the key of its region that is in force when it is begun, or is not begun. Other builds
// have none of it: `SEALED` is false there (`build.mjs`), and what stands behind it is left out.

import type { RegionKey, SealedLoadOptions } from './firsthop-sealed.d.ts';
import { REASONS, type SealingWasm, type Wasm } from './wasm.ts';

declare global {
  const SEALED: boolean;
}

const bytesOf = (base64: string): Uint8Array => {
  try {
    return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
};

/** Whether a page says what sealing needs: its region, and at least one key for it, in force or not. */
export const isSealable = ({ region, regionKeys }: Partial<SealedLoadOptions>): boolean =>
  /^[A-Z]{2}$/.test(region!) && Array.isArray(regionKeys) && regionKeys.some((key) => key.region === region && bytesOf(key.public).length === 32);

/** The module, so that the frames that it begins are sealed. */
export function createSealing(module: Wasm, { region, regionKeys }: SealedLoadOptions): Wasm {
  const wasm = module as SealingWasm;
  const memory = new Uint8Array(wasm.memory.buffer);
  const staging = wasm.stagingAt();
  const noKey = REASONS.push('region-key') - 1;
  let current: RegionKey | undefined;

  /**
   * Of the keys that are in force, the one that began last. Where none has begun it is the clock that is behind, since the server has published them:
   * then the one that begins first.
   */
  const inForce = (now: number): RegionKey | undefined => {
    const ours = regionKeys.filter((key) => key.region === region).sort((a, b) => b.from - a.from || b.id - a.id);
    const begun = ours.filter((key) => key.from <= now);
    return begun.length ? begun.filter((key) => !(key.until! <= now))[0] : ours.at(-1);
  };

  const choose = (): void => {
    const key = inForce(Date.now());
    if (key === current) return;
    // Without one, the module forgets the last: no frame is begun then.
    memory.fill(0, staging, staging + 32);
    if (key) memory.set(bytesOf(key.public).subarray(0, 32), staging);
    current = wasm.sealTo(key ? key.id : 0) ? undefined : key;
  };

  return {
    ...wasm,
    beginFrame(...args) {
      choose();
      const code = wasm.beginFrame(...args);
      return current ? code : noKey;
    },
    finishFrame(...args) {
      // The module wipes what it has used.
      crypto.getRandomValues(memory.subarray(staging, staging + 32));
      return wasm.finishFrame(...args);
    },
  };
}
