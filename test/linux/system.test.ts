/** What of linux/ needs neither root nor a namespace. */
import { readdirSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import t from 'tap';
import { openClock } from '../../linux/clock.ts';
import { createWaker, openReadiness } from '../../linux/epoll.ts';
import { callFailed, SystemError, UnsupportedFeature } from '../../linux/errors.ts';
import { Closers } from '../../linux/fd.ts';
import { features, requireFeature } from '../../linux/feature.ts';
import { insideNamespace } from '../../linux/namespace.ts';
import { listInterfaces } from '../../linux/netlink.ts';
import { NetlinkRequest, parseAttributes, parseMessages } from '../../linux/netlink-message.ts';

const descriptors = () => readdirSync('/proc/self/fd').length;

t.test('a wait ends by its limit, by a wake before it and by a wake during it', async (t) => {
  const before = descriptors();
  const waker = createWaker();
  const other = createWaker();
  const readiness = openReadiness([other.fd], waker.fd);
  const waited = (limitMs: number) => {
    const start = performance.now();
    readiness.wait(limitMs);
    return performance.now() - start;
  };
  t.ok(waited(30) >= 29, 'the limit');
  waker.wake();
  waker.wake();
  t.ok(waited(5000) < 1000, 'two wakes before the wait');
  t.ok(waited(30) >= 29, 'are heard once');
  other.wake();
  t.ok(waited(5000) < 1000 && waited(5000) < 1000, 'what is not read to the end wakes again');
  readiness.close();
  readiness.close();
  waker.close();
  waker.close();
  other.close();
  t.equal(descriptors(), before, 'no descriptor is left');
  t.throws(() => openReadiness([9999], 9998), { code: 'ERR_SYSTEM_CALL' });
  t.equal(descriptors(), before, 'nor by a failure');
});

t.test('the clock is monotonic and counts milliseconds', async (t) => {
  const clock = openClock();
  const first = clock.now();
  const start = performance.now();
  while (performance.now() - start < 20);
  const passed = clock.now() - first;
  t.ok(passed >= 19.9 && passed < 2000, `${passed} ms`);
});

t.test('netlink messages are taken apart no further than they go', async (t) => {
  const request = new NetlinkRequest(16, 5, 16).number32(4, 1500).number8(8, 1);
  const bytes = request.bytes();
  const [message] = parseMessages(bytes);
  t.equal(message?.type, 16);
  t.equal(message?.flags, 5);
  const payload = message?.payload ?? new DataView(new ArrayBuffer(0));
  const whole = parseAttributes(payload, 16);
  t.equal(whole.get(4)?.getUint32(0, true), 1500);
  t.equal(whole.get(8)?.getUint8(0), 1);
  for (let length = 0; length < bytes.length; length++) {
    t.same(parseMessages(bytes.slice(0, length)), [], `${length} bytes are no message`);
  }
  const short = new DataView(payload.buffer, payload.byteOffset, 16 + 7);
  t.equal(parseAttributes(short, 16).size, 0, 'an attribute one byte short');
  const zero = new Uint8Array(bytes.length);
  t.same(parseMessages(zero), [], 'a length of 0 does not loop');
});

t.test('errors say what to do', async (t) => {
  t.match(callFailed('bind', 1), { code: 'ERR_NOT_PERMITTED', call: 'bind', errno: 1 });
  t.match(callFailed('bind', 22), { code: 'ERR_SYSTEM_CALL', message: 'bind failed: EINVAL' });
  const missing = { name: 'teleport', since: '9.1', probe: () => 95 };
  t.throws(() => requireFeature(missing), {
    code: 'ERR_UNSUPPORTED_FEATURE',
    feature: 'teleport',
    advice: 'It came with Linux 9.1.',
  });
  t.ok(new UnsupportedFeature('x', '1', 95) instanceof SystemError);
  t.doesNotThrow(() => requireFeature(features.udpSegmentation));
  t.doesNotThrow(() => requireFeature(features.udpJoining));
  t.throws(() => insideNamespace('/run/netns/there-is-none', () => 0), {
    code: 'ERR_SYSTEM_CALL',
  });
});

t.test('closers undo in reverse, once, whatever throws', async (t) => {
  const order: number[] = [];
  const closers = new Closers();
  closers.add(() => order.push(1));
  closers.add(() => {
    throw new Error('second');
  });
  closers.add(() => order.push(3));
  t.throws(() => closers.closeAll(), { message: 'second' });
  t.doesNotThrow(() => closers.closeAll());
  t.same(order, [3, 1]);
});

t.test('asking the kernel leaves no descriptor', async (t) => {
  const before = descriptors();
  t.match(
    listInterfaces().find(({ name }) => name === 'lo'),
    { index: 1, type: 772, mac: '00:00:00:00:00:00' },
  );
  t.equal(descriptors(), before);
});
