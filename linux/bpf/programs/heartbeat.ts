/** Whether the engine lives, by the control page. */
import { helper } from '../../abi/bpf.ts';
import {
  add,
  call,
  type Item,
  jeq,
  jsgt,
  loadConstant,
  loadMapValue,
  R0,
  R1,
  R9,
  rsh,
  sub,
} from '../asm.ts';
import { heartbeatBiasHigh, type SteeringPolicy, tickShift, ticksPerMs } from '../policy.ts';
import { workerAt } from './frame.ts';
import { loadHeartbeat } from './spread.ts';

/**
 * The age of the heartbeat, signed: another processor may have written one that is newer than our
 * clock. A page that was never written is as old as can be. Policy.ts says how the heartbeat is
 * written. R9 becomes the control page.
 *
 * @param never where to jump before the first heartbeat; `target`, when it is not given
 */
export function jumpUnlessAlive(policy: SteeringPolicy, target: string, never?: string): Item[] {
  return [
    call(helper.ktime_get_ns),
    loadMapValue(R9, 'control'),
    rsh.imm(R0, tickShift),
    loadConstant(R1, heartbeatBiasHigh, 0),
    add.reg(R0, R1),
    ...loadHeartbeat(policy, workerAt),
    ...(never === undefined ? [] : [jeq.imm(R1, 0, never)]),
    sub.reg(R0, R1),
    jsgt.imm(R0, Math.ceil(policy.heartbeatTimeoutMs * ticksPerMs), target),
  ];
}
