/**
 * The boot guard's program: what is never redirected goes on, all other IPv4 is dropped. It looks
 * at nothing but the packet, so that it needs nobody who lives.
 */
import { Direction } from '../../../engine/io.ts';
import { BPF_PROG_TYPE_SCHED_CLS, TC_ACT_SHOT, TC_ACT_UNSPEC } from '../../abi/bpf.ts';
import { goto, type Item, label, mov, type Program, R1, R6 } from '../asm.ts';
import { CounterKind, type Exclusions } from '../policy.ts';
import { finish, finishing } from './count.ts';
import { addressExclusions, fragmentExclusions, portExclusions } from './exclusions.ts';
import { counterAt } from './frame.ts';
import { onlyIpv4, onlyToUs, readAddresses, readPorts } from './nic.ts';

export function guardProgram(policy: Exclusions, direction: Direction): Program {
  const items: Item[] = [
    mov.reg(R6, R1),
    ...(direction === Direction.Ingress ? onlyToUs() : []),
    ...onlyIpv4(policy),
    ...readAddresses(direction),
    ...addressExclusions(policy, direction),
    ...readPorts(direction),
    ...portExclusions(policy, direction),
    goto('control'),
    label('fragment'),
    ...fragmentExclusions(policy, direction),
    label('control'),
    ...finish(TC_ACT_SHOT, CounterKind.droppedStarting),
    label('excluded'),
    ...finish(TC_ACT_UNSPEC, CounterKind.excluded),
    ...finishing(counterAt),
  ];
  return { name: 'mp_guard', type: BPF_PROG_TYPE_SCHED_CLS, items };
}
