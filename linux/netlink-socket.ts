/**
 * One rtnetlink request and its answer. Every call opens a socket, asks, and closes it. The calling
 * thread's network namespace is the one that answers.
 */
import { AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW } from './abi/net.ts';
import * as abi from './abi/netlink.ts';
import { callFailed } from './errors.ts';
import { type NetlinkMessage, type NetlinkRequest, parseMessages } from './netlink-message.ts';
import { allocate, check, close, LITTLE_ENDIAN, recv, send, socket } from './syscall.ts';

export const dumpFlags = abi.NLM_F_REQUEST | abi.NLM_F_DUMP;
/** The kernel fills at most 32 KiB in one receive of a dump (net/netlink/af_netlink.c). */
const answerLength = 65536;
/** A dump during which the tables changed is asked again; under constant change the last counts. */
const dumpAttempts = 5;

/** Everything that answers a dump. Throws SystemError. */
export function dump(request: NetlinkRequest, name: string): NetlinkMessage[] {
  let messages: NetlinkMessage[] = [];
  for (let attempt = 0; attempt < dumpAttempts; attempt++) {
    const answer = exchange(request, () => false);
    if (answer.errno !== 0) throw callFailed(`rtnetlink(${name})`, answer.errno);
    messages = answer.messages;
    if (!messages.some(({ flags }) => (flags & abi.NLM_F_DUMP_INTR) !== 0)) break;
  }
  return messages;
}

/** Ask once; collect until the kernel says done, acknowledges, refuses, or `enough` is true. */
export function exchange(
  request: NetlinkRequest,
  enough: (messages: readonly NetlinkMessage[]) => boolean,
): { messages: NetlinkMessage[]; errno: number } {
  const fd = check(
    socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, abi.NETLINK_ROUTE),
    'socket(AF_NETLINK)',
  );
  const region = allocate(answerLength);
  try {
    const asked = request.bytes();
    region.bytes.set(asked);
    check(send(fd, region.address, asked.length, 0), 'send(AF_NETLINK)');
    const messages: NetlinkMessage[] = [];
    while (!enough(messages)) {
      const length = check(recv(fd, region.address, answerLength, 0), 'recv(AF_NETLINK)');
      // A copy: the next receive overwrites the region, and views into it are kept.
      for (const message of parseMessages(region.bytes.slice(0, length))) {
        if (message.type === abi.NLMSG_DONE) return { messages, errno: 0 };
        if (message.type !== abi.NLMSG_ERROR) messages.push(message);
        else return { messages, errno: -message.payload.getInt32(0, LITTLE_ENDIAN) };
      }
    }
    return { messages, errno: 0 };
  } finally {
    close(fd);
  }
}

/** Ask for a change; 0, or the errno of the refusal. */
export function requestChange(request: NetlinkRequest): number {
  return exchange(request, () => false).errno;
}
