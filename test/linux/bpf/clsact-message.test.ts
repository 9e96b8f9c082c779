/** The bytes that ask for a clsact and for filters on it: struct by struct, little-endian. */
import t from 'tap';
import {
  createQdisc,
  deleteFilter,
  deleteQdisc,
  listFilters,
  listQdiscs,
  putFilter,
  readFilter,
  readHookQdisc,
} from '../../../linux/bpf/clsact-message.ts';
import { type NetlinkRequest, parseMessages } from '../../../linux/netlink-message.ts';

const egress = { interfaceIndex: 7, hook: 'egress', handle: 0x6d70_0001 } as const;
const ingress = { ...egress, hook: 'ingress' } as const;
const kindClsact = '0b000100 636c73616374 00 00';
const kindBpf = '08000100 62706600';

/** nlmsghdr (length, type, flags, sequence, port); tcmsg; attributes (length, type, value). */
const table: [name: string, request: NetlinkRequest, bytes: string][] = [
  [
    'a new clsact must not be there',
    createQdisc(7),
    `30000000 2400 0506 00000000 00000000
     00000000 07000000 0000ffff f1ffffff 00000000 ${kindClsact}`,
  ],
  [
    'a clsact goes by its handle',
    deleteQdisc(7),
    `24000000 2500 0500 00000000 00000000
     00000000 07000000 0000ffff f1ffffff 00000000`,
  ],
  [
    'queueing disciplines of all interfaces',
    listQdiscs(),
    `24000000 2600 0103 00000000 00000000
     00000000 00000000 00000000 00000000 00000000`,
  ],
  [
    'a new filter: priority 1, all protocols, egress, direct action',
    putFilter(egress, 'new', 5, 'mp'),
    `48000000 2c00 0506 00000000 00000000
     00000000 07000000 0100706d f3ffffff 00030100 ${kindBpf}
     1c000280 08000600 05000000 07000700 6d7000 00 08000800 01000000`,
  ],
  [
    'a filter in the place of another: ingress',
    putFilter(ingress, 'replace', 5, 'mp'),
    `48000000 2c00 0505 00000000 00000000
     00000000 07000000 0100706d f2ffffff 00030100 ${kindBpf}
     1c000280 08000600 05000000 07000700 6d7000 00 08000800 01000000`,
  ],
  [
    'one filter goes',
    deleteFilter(ingress),
    `2c000000 2d00 0500 00000000 00000000
     00000000 07000000 0100706d f2ffffff 00030100 ${kindBpf}`,
  ],
  [
    'filters of one hook',
    listFilters(7, 'ingress'),
    `24000000 2e00 0103 00000000 00000000
     00000000 07000000 00000000 f2ffffff 00000000`,
  ],
];

t.test('each request has its bytes', async (t) => {
  for (const [name, request, bytes] of table) {
    t.equal(Buffer.from(request.bytes()).toString('hex'), bytes.replaceAll(/\s/g, ''), name);
  }
});

const payloadOf = (request: NetlinkRequest) => parseMessages(request.bytes())[0]!.payload;

t.test('answers are read by the same layout', async (t) => {
  t.same(readHookQdisc(payloadOf(createQdisc(7))), { interfaceIndex: 7, kind: 'clsact' });
  t.equal(readHookQdisc(payloadOf(listQdiscs())), null, 'a qdisc that queues');
  const filter = readFilter(payloadOf(putFilter(egress, 'new', 5, 'microperimeter-egress')));
  t.same(filter, { priority: 1, handle: 0x6d70_0001, name: 'microperimeter-egress' });
  t.equal(readFilter(payloadOf(deleteFilter(egress))).name, '', 'a filter that shows no name');
});
