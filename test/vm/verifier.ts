/**
 * Loads every program there is, of every profile, into the kernel that it runs on: a line for each,
 * with the verifier's words where it refuses one. Exit code 1 when it refuses any.
 */
import { Direction } from '../../engine/io.ts';
import { loadProgram } from '../../linux/bpf/load.ts';
import { createMaps } from '../../linux/bpf/maps.ts';
import type { SteeringPolicy } from '../../linux/bpf/policy.ts';
import { guardProgram } from '../../linux/bpf/programs/guard.ts';
import { nicProgram } from '../../linux/bpf/programs/nic.ts';
import { filterProgram, selectorProgram, tunProgram } from '../../linux/bpf/programs/tun.ts';
import type { VerifierError } from '../../linux/errors.ts';
import { Closers } from '../../linux/fd.ts';
import { close } from '../../linux/syscall.ts';
import { carrying, encapsulations, policy } from '../linux/bpf/policies.ts';

const maps = createMaps(new Closers(), 64, 64, 64);
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
