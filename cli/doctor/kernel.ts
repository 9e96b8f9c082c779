/** Whether this kernel has what the agent needs, by trying, and whether we may use it. */
import { arch, release } from 'node:os';
import { BPF_PROG_TYPE_SCHED_CLS } from '../../linux/abi/bpf.ts';
import { exit, mov, R0 } from '../../linux/bpf/asm.ts';
import { loadProgram } from '../../linux/bpf/load.ts';
import { hasTcx } from '../../linux/bpf/tcx-link.ts';
import { features } from '../../linux/feature.ts';
import { capabilitySet, has } from '../../linux/privileges.ts';
import { close } from '../../linux/syscall.ts';
import { neededCapabilities } from '../privileges.ts';
import { broken, brokenBy, type Finding, fine, risk } from './finding.ts';

export function kernelFindings(): Finding[] {
  return [version(), ...parts(), capabilitiesFinding(), programs(), hooks()];
}

function version(): Finding {
  const [major = 0, minor = 0] = release().split('.').map(Number.parseFloat);
  const words = `Linux ${release()} on ${arch()}`;
  if (major > 5 || (major === 5 && minor >= 10)) return fine('kernel', words);
  return broken('kernel', `${words} is older than 5.10`, 'Use Linux 5.10 or later, better 6.6.');
}

function parts(): Finding[] {
  return Object.values(features).map(({ name, probe, since }) => {
    if (probe() === 0) return fine('kernel', name);
    const advice =
      'Load the module (modprobe tun), or give the container /dev/net/tun; ' +
      `the kernel itself has it since ${since}.`;
    return broken('kernel', `${name} is missing`, advice);
  });
}

function capabilitiesFinding(): Finding {
  const effective = capabilitySet('CapEff');
  const missing = neededCapabilities.filter(
    (name) => !has(effective, name) && !(name === 'CAP_BPF' && has(effective, 'CAP_SYS_ADMIN')),
  );
  if (missing.length === 0) return fine('capabilities', neededCapabilities.join(', '));
  const advice = 'Run it as root, or give the service these capabilities (docs/install.md).';
  return broken('capabilities', `missing: ${missing.join(', ')}`, advice);
}

/** The smallest program there is: whether we may load any. */
function programs(): Finding {
  const items = [mov.imm(R0, 0), exit()];
  try {
    close(loadProgram({ name: 'mp_doctor', type: BPF_PROG_TYPE_SCHED_CLS, items }, {}));
    return fine('eBPF', 'programs can be loaded');
  } catch (error) {
    return brokenBy('eBPF', error);
  }
}

function hooks(): Finding {
  if (hasTcx()) return fine('hooks', 'programs are attached by TCX, and go with the agent');
  return risk(
    'hooks',
    'this kernel has no TCX (Linux 6.6): programs are attached by clsact filters',
    'After a crash the filters stay, and let pass or drop as onAgentFailure says, until the next ' +
      'start or "microperimeter release". Who deletes the clsact of an interface deletes them.',
  );
}
