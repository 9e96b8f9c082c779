import { readFileSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { Direction } from '../../../engine/io.ts';
import { encode, type Program, programLength } from '../../../linux/bpf/asm.ts';
import {
  CounterKind,
  counterNames,
  heartbeatBias,
  heartbeatBiasHigh,
  networkHalf,
  networkWord,
  queueMask,
  queueOf,
} from '../../../linux/bpf/policy.ts';
import { nicProgram } from '../../../linux/bpf/programs/nic.ts';
import { filterProgram, selectorProgram, tunProgram } from '../../../linux/bpf/programs/tun.ts';
import { carrying, encapsulations, maps, policy } from './policies.ts';

t.test('programs encode, and stay small', async (t) => {
  const table: [Program, number][] = [
    [nicProgram(policy, 0, Direction.Egress), 256],
    [nicProgram(policy, 0, Direction.Ingress), 256],
    [tunProgram(policy), 80],
    [selectorProgram(), 3],
    [filterProgram(), 6],
  ];
  for (const [program, limit] of table) {
    const length = programLength(program.items);
    t.ok(length <= limit, `${program.name}: ${length} instructions, at most ${limit}`);
    t.equal(encode(program.items, maps).length, 8 * length);
  }
});

t.test('programs, byte for byte', async (t) => {
  const golden = 'test/golden/programs.json';
  const programs: [string, Program][] = [
    ['egress', nicProgram(policy, 0, Direction.Egress)],
    ['ingress', nicProgram(policy, 0, Direction.Ingress)],
    ['tun', tunProgram(policy)],
    ...encapsulations.flatMap((name): [string, Program][] => [
      [`egress, ${name}`, nicProgram(carrying(name), 0, Direction.Egress)],
      [`ingress, ${name}`, nicProgram(carrying(name), 0, Direction.Ingress)],
    ]),
  ];
  const bytes = Object.fromEntries(
    programs.map(([name, { items }]) => {
      const hex = Buffer.from(encode(items, maps)).toString('hex');
      return [name, hex.match(/.{16}/g) ?? []];
    }),
  );
  if (process.argv.includes('--update')) {
    writeFileSync(golden, `${JSON.stringify(bytes, null, 2)}\n`);
  }
  t.same(bytes, JSON.parse(readFileSync(golden, 'utf8')));
  for (const [name, slots] of Object.entries(bytes)) {
    // The verifier of 5.10 walks a million instructions at most, and a program may have as many.
    t.ok(slots.length < 800, `${name}: ${slots.length} instructions`);
  }
});

t.test('the shared layout', async (t) => {
  const page = new DataView(new ArrayBuffer(8));
  page.setFloat64(0, heartbeatBias + 0x1_2345_6789);
  t.equal(page.getUint32(0), heartbeatBiasHigh + 1, 'a heartbeat is the bias and an integer');
  t.equal(page.getUint32(4), 0x2345_6789);
  t.equal(networkWord(0x0a4d_00ff), 0xff00_4d0a | 0);
  t.equal(networkHalf(0x86dd), 0xdd86);
  t.match(
    counterNames.map((name) => CounterKind[name]),
    counterNames.map((_, index) => index),
    'kinds are the indexes of the counter map',
  );
  t.ok(queueOf(127, Direction.Ingress) < queueMask, 'more queues than a TUN device has (256)');
});
