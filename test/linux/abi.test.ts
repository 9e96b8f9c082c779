import { readFileSync } from 'node:fs';
import t from 'tap';
import * as net from '../../linux/abi/net.ts';
import * as netlink from '../../linux/abi/netlink.ts';

type Golden = {
  structs: Record<string, Record<string, number>>;
  constants: Record<string, number>;
};

const golden: Golden = JSON.parse(readFileSync('test/golden/abi.json', 'utf8'));

t.test('every struct and constant is what the C compiler says', async (t) => {
  for (const [name, value] of Object.entries({ ...net, ...netlink })) {
    if (typeof value === 'number') {
      // ioctl numbers are unsigned; C prints some enum and flag constants as signed.
      t.equal(value >>> 0, (golden.constants[name] ?? Number.NaN) >>> 0, name);
      t.ok(name in golden.constants, `${name} is in test/golden/abi.json`);
    } else if (typeof value === 'object' && name !== 'epoll_event') {
      const { size, ...offsets } = value as Record<string, number>;
      const { size: trueSize, ...trueOffsets } = golden.structs[name] ?? {};
      t.same(offsets, trueOffsets, name);
      if (size !== undefined) t.equal(size, trueSize, `${name} size`);
    }
  }
});

t.test('epoll_event is packed on x86-64 alone', async (t) => {
  t.same(net.epollEventLayout('x64'), golden.structs.epoll_event);
  t.same(net.epollEventLayout('arm64'), { size: 16, events: 0, data: 8 });
});
