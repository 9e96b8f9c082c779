/** What the programs in the kernel are told of a flow, so that they need not ask again. */
import { type FlowKey, KeyKind } from '../parsers/flow-key.ts';
import { Protocol } from '../parsers/ipv4.ts';
import { Verdict } from './flows.ts';
import { Direction, KernelVerdict, type PacketDevice } from './io.ts';
import { GateView, type Path } from './path.ts';

/** Other packets come up whatever the kernel knows of their flow. */
function hasPorts({ kind, protocol }: FlowKey): boolean {
  return kind === KeyKind.Plain && (protocol === Protocol.Tcp || protocol === Protocol.Udp);
}

/**
 * What needs no more thinking stays in the kernel from the next packet on. Taught whenever such a
 * packet comes up, since the kernel forgets: the least recently used, at each SYN, and everything
 * when a policy is replaced. Not while the gate is closed, when verdicts do not hold.
 */
export function teachKernel(path: Path, key: FlowKey, verdict: Verdict, direction: Direction) {
  if (verdict === Verdict.PassBuiltIn || verdict === Verdict.Observe) return;
  if (path.gate === GateView.Closed || !hasPorts(key)) return;
  tell(path, key, verdict === Verdict.Drop ? KernelVerdict.Drop : KernelVerdict.Pass, direction);
}

/**
 * A connection begins in fragments. At a SYN the programs forget what they know of an earlier one
 * with its ports, but they do not look into fragments.
 */
export function unteachKernel(path: Path, key: FlowKey, direction: Direction): void {
  tell(path, key, KernelVerdict.Ask, direction);
}

function tell(path: Path, key: FlowKey, kernel: KernelVerdict, direction: Direction): void {
  const { destination, destinationPort, protocol, source, sourcePort } = key;
  const { steering } = path.io;
  if (direction === Direction.Egress) {
    steering.remember(source, destination, sourcePort, destinationPort, protocol, kernel);
  } else {
    steering.remember(destination, source, destinationPort, sourcePort, protocol, kernel);
  }
}

/** The programs in the kernel may carry what is plain, and count what they leave to us. */
export function mayCarry(
  path: Path,
  key: FlowKey,
  flow: number,
  flags: number,
  { direction, interfaceIndex }: PacketDevice,
  firewall: number,
): void {
  if (!hasPorts(key)) return;
  path.carried.redirected(flow, direction, flags, firewall, interfaceIndex);
}
