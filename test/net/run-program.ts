/**
 * A program run by the kernel over bytes of ours (BPF_PROG_TEST_RUN, Linux 4.12): no interface, no
 * network. What it would send by redirect is what comes out; nothing is sent.
 */
import { allocate, bpf, check, type Fd, setPointer } from '../../linux/syscall.ts';

const BPF_PROG_TEST_RUN = 10;
/** union bpf_attr, its part for this command */
const progTestRun = {
  size: 80,
  prog_fd: 0,
  retval: 4,
  data_size_in: 8,
  data_size_out: 12,
  data_in: 16,
  data_out: 24,
  repeat: 32,
  duration: 36,
  ctx_size_in: 40,
  ctx_size_out: 44,
  ctx_in: 48,
  ctx_out: 56,
} as const;

/** struct __sk_buff, which may be given and is given back. */
const contextSize = 192;
const context = { mark: 8, priority: 32, gsoSize: 176 } as const;

export type Outcome = {
  /** What the program returned, such as TC_ACT_REDIRECT. */
  readonly action: number;
  readonly frame: Buffer;
  readonly mark: number;
};

/** Of enum tc actions: what bpf_redirect and bpf_redirect_neigh return. */
export const TC_ACT_REDIRECT = 7;

export function runProgram(program: Fd, frame: Uint8Array, gsoSize = 0): Outcome {
  const input = allocate(frame.length);
  input.bytes.set(frame);
  const output = allocate(frame.length + 512);
  const given = allocate(contextSize);
  given.view.setUint32(context.gsoSize, gsoSize, true);
  const taken = allocate(contextSize);
  const { address, view } = allocate(progTestRun.size);
  view.setUint32(progTestRun.prog_fd, program, true);
  view.setUint32(progTestRun.data_size_in, frame.length, true);
  view.setUint32(progTestRun.data_size_out, output.bytes.length, true);
  setPointer(view, progTestRun.data_in, input.address);
  setPointer(view, progTestRun.data_out, output.address);
  view.setUint32(progTestRun.repeat, 1, true);
  view.setUint32(progTestRun.ctx_size_in, contextSize, true);
  view.setUint32(progTestRun.ctx_size_out, contextSize, true);
  setPointer(view, progTestRun.ctx_in, given.address);
  setPointer(view, progTestRun.ctx_out, taken.address);
  check(bpf(BPF_PROG_TEST_RUN, address, progTestRun.size), 'bpf(BPF_PROG_TEST_RUN)');
  return {
    action: view.getInt32(progTestRun.retval, true),
    frame: Buffer.from(output.bytes.slice(0, view.getUint32(progTestRun.data_size_out, true))),
    mark: taken.view.getUint32(context.mark, true),
  };
}
