/** The devices in memory obey what the kernel's do (test/net runs the same contracts on those). */
import t from 'tap';
import { createArena } from '../../engine/arena.ts';
import { Direction } from '../../engine/io.ts';
import { packetDeviceContract } from '../contract/packet-device.ts';
import { tunnelSocketContract } from '../contract/tunnel-socket.ts';
import { FakeDevice, FakeSocket } from './io.ts';

t.test('the device in memory', async (t) => {
  const arena = createArena(4, 1);
  const device = new FakeDevice(arena, Direction.Egress);
  packetDeviceContract(t, () => ({
    device,
    arena,
    deliver: (bytes) => void device.inbox.push({ bytes }),
    written: () => device.written.splice(0).map(({ bytes }) => bytes),
    close: () => {},
  }));
});

t.test('the socket in memory', async (t) => {
  const arena = createArena(1, 4);
  const socket = new FakeSocket(arena);
  const peer = 0x0a4d0002;
  await tunnelSocketContract(t, {
    socket,
    arena,
    peer,
    arrive: async (bytes) => void socket.inbox.push({ bytes, source: peer }),
    sent: async (count) =>
      socket.sent.splice(0, count).map(({ bytes, entropy }) => ({ payload: bytes, port: entropy })),
    close: () => {},
  });
});
