// UUIDv7 (RFC 9562 §5.7): 48 bits of time, and 72 random ones behind version and variant.

const hex = (number: number, length: number): string => number.toString(16).padStart(length, '0');

export function createUuid(): string {
  const random = Array.from(crypto.getRandomValues(new Uint32Array(3)), (number) => hex(number, 8)).join('');
  return `${hex(Date.now(), 12)}7${random.slice(6)}`.replace(/(.{8})(.{4})(.{4})(...)/, '$1-$2-$3-8$4-');
}

export const bytesOf = (uuid: string): number[] => uuid.replaceAll('-', '').match(/../g)!.map((byte) => parseInt(byte, 16));
