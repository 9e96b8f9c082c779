/** The service manager's end of sd_notify(3), by system calls: Node has no datagrams on AF_UNIX. */
import {
  AF_UNIX,
  MSG_DONTWAIT,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  sockaddr_un,
} from '../../linux/abi/net.ts';
import { allocate, bind, check, close, LITTLE_ENDIAN, recv, socket } from '../../linux/syscall.ts';

export type NotifySocket = {
  /** What has come since the last time, each datagram as its fields. */
  take(): Record<string, string>[];
  close(): void;
};

/** @param path in a file system, or with `@` in none */
export function openNotifySocket(path: string): NotifySocket {
  const address = allocate(sockaddr_un.size);
  address.view.setUint16(sockaddr_un.sun_family, AF_UNIX, LITTLE_ENDIAN);
  address.bytes.set(Buffer.from(path.replace(/^@/, '\0')), sockaddr_un.sun_path);
  const fd = check(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
  check(bind(fd, address.address, sockaddr_un.sun_path + path.length), 'bind');
  const message = allocate(4096);
  return {
    take() {
      const taken: Record<string, string>[] = [];
      for (;;) {
        const length = recv(fd, message.address, message.bytes.length, MSG_DONTWAIT);
        if (length < 0) return taken;
        const lines = Buffer.from(message.bytes.subarray(0, length)).toString().split('\n');
        taken.push(Object.fromEntries(lines.map((line) => line.split(/=(.*)/s).slice(0, 2))));
      }
    },
    close: () => void close(fd),
  };
}
