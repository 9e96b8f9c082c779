/** The maps that the steering programs share with each other and with user space. */
import {
  BPF_F_MMAPABLE,
  BPF_F_NO_PREALLOC,
  BPF_MAP_TYPE_ARRAY,
  BPF_MAP_TYPE_LPM_TRIE,
  BPF_MAP_TYPE_LRU_HASH,
  BPF_MAP_TYPE_PERCPU_ARRAY,
} from '../abi/bpf.ts';
import { createRecords } from '../carrier.ts';
import type { Closers } from '../fd.ts';
import type { Fd } from '../syscall.ts';
import { createMap } from './load.ts';
import {
  controlPage,
  counterNames,
  counterValue,
  flowCapacity,
  flowKey,
  flowValue,
  networkCapacity,
  networkKey,
  networkValueSize,
  type SteeringMapName,
} from './policy.ts';

/** `records` is -1 when nothing is carried: no program names it then. */
export type Maps = Readonly<Record<SteeringMapName, Fd>>;

/**
 * @param carriedFlows 0: nothing is carried
 * @throws SystemError
 */
export function createMaps(
  closers: Closers,
  carriedFlows: number,
  flows = flowCapacity,
  prefixes = networkCapacity,
): Maps {
  const map = (name: string, type: number, sizes: [number, number, number], flags = 0): Fd => {
    const [keyLength, valueLength, capacity] = sizes;
    const fd = createMap({ name, type, keyLength, valueLength, capacity, flags });
    return closers.own(fd);
  };
  const networks: [number, number, number] = [networkKey.size, networkValueSize, prefixes];
  const counters: [number, number, number] = [4, counterValue.size, counterNames.length];
  return {
    control: map('mp_control', BPF_MAP_TYPE_ARRAY, [4, controlPage.size, 1], BPF_F_MMAPABLE),
    flows: map('mp_flows', BPF_MAP_TYPE_LRU_HASH, [flowKey.size, flowValue.size, flows]),
    networks: map('mp_networks', BPF_MAP_TYPE_LPM_TRIE, networks, BPF_F_NO_PREALLOC),
    counters: map('mp_counters', BPF_MAP_TYPE_PERCPU_ARRAY, counters),
    records: carriedFlows === 0 ? -1 : closers.own(createRecords(carriedFlows)),
  };
}
