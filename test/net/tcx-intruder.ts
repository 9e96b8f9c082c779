/**
 * Somebody else with programs on the hooks of eth0, in the namespace that it is started in:
 * `attach` puts one before all others and stays until it is killed; `detach` takes every program
 * off the egress hook.
 */
import { exit, mov, R0 } from '../../linux/bpf/asm.ts';
import { loadProgram } from '../../linux/bpf/load.ts';
import { createLink, describeTcxLink, detachLink, programsOn } from '../../linux/bpf/tcx-link.ts';
import { interfaceByName } from '../../linux/netlink.ts';
import { allocate, bpf } from '../../linux/syscall.ts';

const BPF_LINK_GET_FD_BY_ID = 30;
const BPF_LINK_GET_NEXT_ID = 31;
const BPF_PROG_TYPE_SCHED_CLS = 3;
const TC_ACT_UNSPEC = -1;

const { index } = interfaceByName('eth0');
if (process.argv[2] === 'attach') {
  const items = [mov.imm(R0, TC_ACT_UNSPEC), exit()];
  const program = loadProgram({ name: 'other', type: BPF_PROG_TYPE_SCHED_CLS, items }, {});
  createLink(program, index, 'egress');
  setInterval(() => {}, 1000);
} else {
  const attributes = allocate(16);
  for (let id = 0; ; ) {
    attributes.view.setUint32(0, id, true);
    if (bpf(BPF_LINK_GET_NEXT_ID, attributes.address, 12) < 0) break;
    id = attributes.view.getUint32(4, true);
    attributes.view.setUint32(0, id, true);
    const fd = bpf(BPF_LINK_GET_FD_BY_ID, attributes.address, 4);
    if (fd < 0) continue;
    const link = describeTcxLink(fd);
    if (link?.interfaceIndex !== index) continue;
    if (programsOn(index, 'egress').includes(link.program)) detachLink(fd);
  }
}
