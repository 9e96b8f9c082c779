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
  pinDirectory: '/run/x',
};
const maps = { control: 3, flows: 4, counters: 5, networks: 6 };

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
