/** Verifiers that take a write for a register kept on the stack accept the programs, too. */
import t from 'tap';
import { Direction } from '../../../engine/io.ts';
import { R1, R10, store16, store32, storeImmediate32 } from '../../../linux/bpf/asm.ts';
import type { SteeringPolicy } from '../../../linux/bpf/policy.ts';
import { guardProgram } from '../../../linux/bpf/programs/guard.ts';
import { nicProgram } from '../../../linux/bpf/programs/nic.ts';
import { emptySlots } from '../../../linux/bpf/programs/slots.ts';
import { tunProgram } from '../../../linux/bpf/programs/tun.ts';
import { corruptedSpills } from '../../support/stack-slots.ts';
import { carrying, encapsulations, policy } from './policies.ts';

t.test('no program writes a part of what may be a register', async (t) => {
  const policies: [string, SteeringPolicy][] = [
    ['plain', policy],
    ['two workers', { ...policy, spread: { workers: 2, seed: 7 } }],
    ['IPv6 passes', { ...policy, ipv6: 'pass', onBoot: 'pass', onAgentFailure: 'pass' }],
    ...encapsulations.map((name): [string, SteeringPolicy] => [name, carrying(name)]),
  ];
  for (const [name, each] of policies) {
    const programs = [
      tunProgram(each),
      ...[Direction.Egress, Direction.Ingress].flatMap((direction) => [
        nicProgram(each, 0, direction),
        guardProgram(each, direction),
      ]),
    ];
    for (const program of programs) {
      t.same(corruptedSpills(program.items), [], `${name}: ${program.name}`);
    }
  }
});

t.test('what would be refused is seen', async (t) => {
  const whole = store32(R10, -8, R1);
  const half = store16(R10, -6, R1);
  t.equal(corruptedSpills([whole, half]).length, 1);
  t.equal(corruptedSpills([storeImmediate32(R10, -8, 1), half]).length, 1);
  t.same(corruptedSpills([storeImmediate32(R10, -8, 0), half]), []);
  t.same(corruptedSpills([half, whole]), []);
  t.same(corruptedSpills([whole, ...emptySlots(-8, 8), half]), []);
  t.same(corruptedSpills([whole, store16(R10, -14, R1)]), [], 'in another slot');
});
