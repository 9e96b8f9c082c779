/**
 * Loads every program there is, of every profile, into the kernel that it runs on: a line for each,
 * with the verifier's words where it refuses one. Exit code 1 when it refuses any.
 */
import { Direction } from '../../engine/io.ts';
import {
  BPF_F_MMAPABLE,
  BPF_F_NO_PREALLOC,
  BPF_MAP_TYPE_ARRAY,
  BPF_MAP_TYPE_LPM_TRIE,
  BPF_MAP_TYPE_LRU_HASH,
  BPF_MAP_TYPE_PERCPU_ARRAY,
} from '../../linux/abi/bpf.ts';
import { createMap, loadProgram } from '../../linux/bpf/load.ts';
import {
  controlPage,
  counterNames,
  flowKey,
  flowValue,
  type SteeringPolicy,
} from '../../linux/bpf/policy.ts';
import { guardProgram } from '../../linux/bpf/programs/guard.ts';
import { nicProgram } from '../../linux/bpf/programs/nic.ts';
import { filterProgram, selectorProgram, tunProgram } from '../../linux/bpf/programs/tun.ts';
import { createRecords } from '../../linux/carrier.ts';
import type { VerifierError } from '../../linux/errors.ts';
import { close } from '../../linux/syscall.ts';
import { carrying, encapsulations, policy } from '../linux/bpf/policies.ts';

const map = (
  name: string,
  type: number,
  keyLength: number,
  valueLength: number,
  capacity: number,
  flags = 0,
) => createMap({ name, type, keyLength, valueLength, capacity, flags });
const maps = {
  control: map('control', BPF_MAP_TYPE_ARRAY, 4, controlPage.size, 1, BPF_F_MMAPABLE),
  flows: map('flows', BPF_MAP_TYPE_LRU_HASH, flowKey.size, flowValue.size, 64),
  counters: map('counters', BPF_MAP_TYPE_PERCPU_ARRAY, 4, 16, counterNames.length),
  networks: map('networks', BPF_MAP_TYPE_LPM_TRIE, 8, 4, 64, BPF_F_NO_PREALLOC),
  records: createRecords(64),
};
const policies: [string, SteeringPolicy][] = [
  ['plain', policy],
  ['two workers', { ...policy, spread: { workers: 2, seed: 7 } }],
  ['passing', { ...policy, ipv6: 'pass', onBoot: 'pass', onAgentFailure: 'pass' }],
  ...encapsulations.map((name): [string, SteeringPolicy] => [name, carrying(name)]),
];
const only = process.argv[2];
let refused = 0;
for (const [name, each] of policies) {
  const programs = [
    selectorProgram(),
    filterProgram(),
    tunProgram(each),
    ...[Direction.Egress, Direction.Ingress].flatMap((direction) => [
      nicProgram(each, 0, direction),
      guardProgram(each, direction),
    ]),
  ];
  for (const program of programs) {
    try {
      close(loadProgram(program, maps));
      console.log(`ok ${name}: ${program.name}`);
    } catch (error) {
      refused++;
      console.log(`refused ${name}: ${(error as Error).message}`);
      if (only === `${name}:${program.name}`) console.log((error as VerifierError).log);
    }
  }
}
process.exitCode = refused === 0 ? 0 : 1;
