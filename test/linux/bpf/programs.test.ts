import { readFileSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { tunnelTemplateOf } from '../../../cli/tunnel-template.ts';
import { type Config, defaults } from '../../../engine/config.ts';
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
  type SteeringPolicy,
} from '../../../linux/bpf/policy.ts';
import { nicProgram } from '../../../linux/bpf/programs/nic.ts';
import { filterProgram, selectorProgram, tunProgram } from '../../../linux/bpf/programs/tun.ts';

const address = 0x0a4d_0002;
const policy: SteeringPolicy = {
  interfaces: [{ name: 'eth0', index: 2, mac: Uint8Array.of(2, 0, 0, 0, 0, 1) }],
  tun: { fd: 3, index: 4 },
  firewalls: [{ address, port: 6081 }],
  tunnelPorts: [6081],
  returnFrom: [{ address, length: 24 }],
  telemetry: [{ address, port: 443 }],
  management: [{ protocol: 6, remote: { address, length: 24 }, port: 22 }],
  broadcasts: [0x0a4d_00ff],
  ipv6: 'drop',
  onAgentFailure: 'drop',
  onBoot: 'drop',
  heartbeatTimeoutMs: 1000,
  acceleration: undefined,
  pinDirectory: '/run/x',
};
const maps = { control: 3, flows: 4, counters: 5, networks: 6, records: 7 };

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

const { tunnel } = defaults;
const vxlan = { ...tunnel.vxlan, egressVni: 801, ingressVni: 800, ingressPort: 4789 };
const encapsulations = ['geneve', 'gwlb', 'gcp', 'vxlan'] as const;

/** With which the programs carry flows by themselves. */
function carrying(encapsulation: Config['tunnel']['encapsulation']): SteeringPolicy {
  const settings = { ...tunnel, encapsulation, mtu: 0, port: tunnel.port[encapsulation], vxlan };
  return { ...policy, acceleration: { tunnel: tunnelTemplateOf(settings), flows: 1024 } };
}

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
