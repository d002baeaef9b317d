// The public types of the sealed build: as the other's, but that it takes keys, and needs them.

import type { Firsthop, LoadOptions } from './firsthop.d.ts';

export type * from './firsthop.d.ts';

/** A key that frames for a region are sealed to. */
export interface RegionKey {
  /** Its number, which every frame tells that is sealed to it. */
  readonly id: number;
  readonly region: string;
  /** X25519, 32 bytes in base64. */
  readonly public: string;
  /** Not used before: milliseconds since 1970. */
  readonly from: number;
  /** Not used from then on. Default: never. */
  readonly until?: number;
}

export interface SealedLoadOptions extends LoadOptions {
  /** The region that may read the events, such as `"EU"`. */
  readonly region: string;
  /** The region's keys, as `firsthop region-key config` prints them. Of those in force, the one is used that began last. */
  readonly regionKeys: readonly RegionKey[];
}

/** No method throws. */
export interface SealedFirsthop extends Omit<Firsthop, 'load'> {
  /** Starts. Calls before it wait for it. */
  load(options: SealedLoadOptions): void;
}

export const load: SealedFirsthop['load'];
export const track: Firsthop['track'];
export const page: Firsthop['page'];
export const identify: Firsthop['identify'];
export const group: Firsthop['group'];
export const alias: Firsthop['alias'];
export const consent: Firsthop['consent'];
export const reset: Firsthop['reset'];
export const flush: Firsthop['flush'];
export const on: Firsthop['on'];
export const off: Firsthop['off'];

declare const firsthop: SealedFirsthop;
export default firsthop;
