/**
 * The programs on the TCX hooks of interfaces, as a program of its own: the question is answered
 * for the network namespace of who asks. `node dist/lab/tcx.js NAME:INDEX …` prints a line for
 * each hook that has any; nothing where the kernel has no TCX.
 */
import type { Hook } from '../linux/bpf/attach.ts';
import { programsOn } from '../linux/bpf/tcx-link.ts';

const hooks: readonly Hook[] = ['ingress', 'egress'];

for (const argument of process.argv.slice(2)) {
  const [name = '', index = ''] = argument.split(':');
  for (const hook of hooks) {
    const programs = ask(Number(index), hook);
    if (programs.length > 0) console.log(`${name} ${hook} ${programs.join(' ')}`);
  }
}

function ask(index: number, hook: Hook): number[] {
  try {
    return programsOn(index, hook);
  } catch {
    return [];
  }
}
