/**
 * Cold path: addresses and prefixes from and to text. Addresses are int32 as everywhere; they are
 * made unsigned here, where a person reads them, and nowhere else.
 */

/** Dotted quad of an int32 address. */
export function formatAddress(address: number): string {
  const unsigned = address >>> 0;
  const parts = [unsigned >>> 24, (unsigned >>> 16) & 255, (unsigned >>> 8) & 255, unsigned & 255];
  return parts.join('.');
}

/**
 * A strict dotted quad as int32: four decimal numbers without sign, spaces or leading zeros (which
 * other parsers take for octal). undefined for anything else.
 */
export function parseAddress(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let address = 0;
  for (const part of parts) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part)) return undefined;
    const value = Number(part);
    if (value > 255) return undefined;
    address = (address << 8) | value;
  }
  return address;
}

/**
 * `10.0.0.0/8`, or an address alone as a /32. Bits after the length are kept as written, so that a
 * caller can say that they are there; mask with `prefixMask`.
 */
export function parsePrefix(text: string): { address: number; length: number } | undefined {
  const slash = text.indexOf('/');
  const address = parseAddress(slash < 0 ? text : text.slice(0, slash));
  if (address === undefined) return undefined;
  if (slash < 0) return { address, length: 32 };
  const lengthText = text.slice(slash + 1);
  if (!/^(0|[1-9][0-9]?)$/.test(lengthText)) return undefined;
  const length = Number(lengthText);
  return length > 32 ? undefined : { address, length };
}

/** The int32 mask of a prefix length, 0 to 32. */
export function prefixMask(length: number): number {
  return length === 0 ? 0 : -1 << (32 - length);
}
