/**
 * Filters in the language of pcap-filter(7), compiled and run by the host's libpcap: the one that
 * tcpdump uses. Raw IP, a packet at a time, in memory.
 */
import { type Address, allocate, LITTLE_ENDIAN, loadLibrary } from './syscall.ts';

/** Debian's name, and that of other distributions. */
const names = ['libpcap.so.0.8', 'libpcap.so.1', 'libpcap.so'];
/** DLT_RAW (pcap/dlt.h). */
const dltRaw = 12;
const snapLength = 262_144;
/** PCAP_NETMASK_UNKNOWN (pcap/pcap.h). */
const netmaskUnknown = 0xffff_ffff;
/** struct bpf_program: a count and a pointer. */
const programSize = 16;
/** struct pcap_pkthdr: timeval, caplen, len. */
const headerSize = 24;
const capturedAt = 16;
const lengthAt = 20;

/** What cannot be filtered by; a sentence. */
class FilterError extends Error {
  readonly code = 'ERR_USAGE';
}

/** Whether a packet that begins with an IP header matches. */
export type PacketFilter = (packet: Uint8Array, originalLength: number) => boolean;

/** Throws a FilterError: no libpcap on this host, or what it says of the expression. */
export function compileFilter(expression: string): PacketFilter {
  const library = loadLibrary(names);
  if (library === undefined) {
    throw new FilterError(
      'a filter needs libpcap, which this host does not have: apt-get install libpcap0.8 ' +
        '(or libpcap), or filter what was captured with tshark -Y',
    );
  }
  const openDead: (link: number, snap: number) => Address = library.func(
    'uintptr_t pcap_open_dead(int, int)',
  );
  const compile: (
    handle: Address,
    program: Address,
    text: string,
    optimize: number,
    mask: number,
  ) => number = library.func('int pcap_compile(uintptr_t, uintptr_t, const char*, int, uint32_t)');
  const lastError: (handle: Address) => string = library.func('const char* pcap_geterr(uintptr_t)');
  const matches: (program: Address, header: Address, packet: Address) => number = library.func(
    'int pcap_offline_filter(uintptr_t, uintptr_t, uintptr_t)',
  );
  const handle = openDead(dltRaw, snapLength);
  const program = allocate(programSize);
  if (compile(handle, program.address, expression, 1, netmaskUnknown) !== 0) {
    throw new FilterError(`the filter is not one (man pcap-filter): ${lastError(handle)}`);
  }
  const header = allocate(headerSize);
  const copy = allocate(snapLength);
  return (packet, originalLength) => {
    copy.bytes.set(packet);
    header.view.setUint32(capturedAt, packet.length, LITTLE_ENDIAN);
    header.view.setUint32(lengthAt, originalLength, LITTLE_ENDIAN);
    return matches(program.address, header.address, copy.address) !== 0;
  };
}
