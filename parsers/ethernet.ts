/**
 * The Ethernet II header (IEEE 802.3 clause 3) as tunnels carry it: no tags, no checksum.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +---------------------------------------------------------------+
 *     |                     Destination address                       |
 *     +-------------------------------+-------------------------------+
 *     |                               |         Source address        |
 *     +-------------------------------+-------------------------------+
 *     |                                                               |
 *     +-------------------------------+-------------------------------+
 *     |           EtherType           |
 */
const destinationOffset = 0;
const sourceOffset = 6;
const typeOffset = 12;

export const ethernetHeaderLength = 14;
/** IEEE EtherType of IPv4. */
export const etherTypeIpv4 = 0x0800;
/** Transparent Ethernet bridging: GENEVE's protocol type for an inner Ethernet header. */
export const etherTypeEthernet = 0x6558;

/** A MAC address in two numbers: its first two bytes and, as int32, its last four. */
export type MacAddress = { readonly high: number; readonly low: number };

/** Cold: `02:00:00:00:00:01` in two numbers; undefined for anything else. */
export function parseMac(text: string): MacAddress | undefined {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return undefined;
  const digits = text.replaceAll(':', '');
  return {
    high: Number.parseInt(digits.slice(0, 4), 16),
    low: Number.parseInt(digits.slice(4), 16) | 0,
  };
}

/** For a header of which 14 bytes are there. */
export function etherType(view: DataView, at: number): number {
  return view.getUint16(at + typeOffset);
}

/** Write every byte of the header. */
export function writeEthernet(
  view: DataView,
  at: number,
  source: MacAddress,
  destination: MacAddress,
  type: number,
): void {
  view.setUint16(at + destinationOffset, destination.high);
  view.setInt32(at + destinationOffset + 2, destination.low);
  view.setUint16(at + sourceOffset, source.high);
  view.setInt32(at + sourceOffset + 2, source.low);
  view.setUint16(at + typeOffset, type);
}
