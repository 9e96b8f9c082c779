/**
 * The boot guard: a program on each hook of the workload's interfaces that lets through only what
 * is never redirected. No process holds it: it is there before the agent, and until somebody
 * releases it (releaseLeftovers of methods.ts), whatever becomes of the agent meanwhile. An agent's
 * programs come before it on the hook, so what those let go on is still dropped.
 */
import { Direction } from '../../engine/io.ts';
import { BPF_MAP_TYPE_PERCPU_ARRAY } from '../abi/bpf.ts';
import { Closers } from '../fd.ts';
import { close } from '../syscall.ts';
import type { Attachment, Hook } from './attach.ts';
import { createMap, loadProgram } from './load.ts';
import { chooseAttachMethod, findLeftovers } from './methods.ts';
import { counterNames, counterValue, type Exclusions } from './policy.ts';
import { guardProgram } from './programs/guard.ts';

export type GuardPolicy = Exclusions & {
  readonly interfaces: readonly { readonly name: string; readonly index: number }[];
  /** As in SteeringPolicy. */
  readonly pinDirectory: string;
};

const hooks: readonly { hook: Hook; direction: Direction }[] = [
  { hook: 'egress', direction: Direction.Egress },
  { hook: 'ingress', direction: Direction.Ingress },
];

/**
 * Put the guard on all interfaces of `policy`, in the place of an earlier one of this network
 * namespace, without a gap. Throws SystemError, then all is as it was.
 */
export function armGuard(policy: GuardPolicy, method = chooseAttachMethod()): void {
  const undo = new Closers();
  const earlier = findLeftovers(policy.pinDirectory, 'guard');
  const counters = createMap({
    name: 'mp_guard',
    type: BPF_MAP_TYPE_PERCPU_ARRAY,
    keyLength: 4,
    valueLength: counterValue.size,
    capacity: counterNames.length,
    flags: 0,
  });
  try {
    for (const { index, name } of policy.interfaces) {
      for (const { direction, hook } of hooks) {
        const program = loadProgram(guardProgram(policy, direction), { counters });
        let attachment: Attachment;
        try {
          attachment = method.attach(program, index, hook, 'guard');
        } finally {
          close(program);
        }
        undo.add(() => attachment.detach());
        attachment.keep(policy.pinDirectory, name);
      }
    }
  } catch (error) {
    undo.closeAll();
    throw error;
  } finally {
    close(counters);
  }
  for (const leftover of earlier) leftover.release();
}
