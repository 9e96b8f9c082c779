/** What the kernel may decide by itself from now on. */
import { type FlowKey, KeyKind } from '../parsers/flow-key.ts';
import { Protocol } from '../parsers/ipv4.ts';
import { Verdict } from './flows.ts';
import { Direction, KernelVerdict } from './io.ts';
import { GateView, type Path } from './path.ts';

/**
 * What needs no more thinking stays in the kernel from the next packet on. Taught whenever such a
 * packet comes up, since the kernel forgets: the least recently used, at each SYN, and everything
 * when a policy is replaced. Not while the gate is closed, when verdicts do not hold.
 */
export function teachKernel(
  { gate, io }: Path,
  key: FlowKey,
  verdict: Verdict,
  direction: Direction,
): void {
  const { destination, destinationPort, kind, protocol, source, sourcePort } = key;
  if (verdict === Verdict.PassBuiltIn || verdict === Verdict.Observe) return;
  if (gate === GateView.Closed || kind !== KeyKind.Plain) return;
  if (protocol !== Protocol.Tcp && protocol !== Protocol.Udp) return;
  const { steering } = io;
  const kernel = verdict === Verdict.Drop ? KernelVerdict.Drop : KernelVerdict.Pass;
  if (direction === Direction.Egress) {
    steering.remember(source, destination, sourcePort, destinationPort, protocol, kernel);
  } else {
    steering.remember(destination, source, destinationPort, sourcePort, protocol, kernel);
  }
}
