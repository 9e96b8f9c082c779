/**
 * The agent's programs in the kernel: how long they are and what a packet pays for them.
 * Instructions are those that the verifier left, in the kernel's own form; times are the kernel's
 * (BPF_ENABLE_STATS, which itself costs some 20 ns a run).
 */
import { readdirSync, readFileSync } from 'node:fs';
import { BPF_OBJ_GET_INFO_BY_FD, infoByFd } from '../../linux/abi/bpf.ts';
import {
  allocate,
  bpf,
  check,
  close,
  type Fd,
  LITTLE_ENDIAN,
  setPointer,
} from '../../linux/syscall.ts';
import type { Figures, Measurement } from '../measure.ts';
import { Datagrams } from './datagrams.ts';

/** enum bpf_cmd; linux/ has what the agent needs. */
const BPF_PROG_GET_FD_BY_ID = 13;
const BPF_ENABLE_STATS = 32;
/** struct bpf_prog_info, include/uapi/linux/bpf.h. */
const info = { size: 80, xlated_prog_len: 20, name: 64 } as const;
const nameLength = 16;
const instructionLength = 8;

const port = 5304;
const rate = 80_000;
const size = 64;

/** Name of the figures by name of the program. */
const kinds: Readonly<Record<string, string>> = {
  mp_egress: 'bpf-out',
  mp_ingress: 'bpf-in',
  mp_tun: 'bpf-tun',
};

export const programs: Measurement = {
  name: 'programs',
  run: async (path, effort) => {
    const found = path.pid === undefined ? [] : programIds(path.pid).map(openProgram);
    if (found.length === 0) return {};
    const datagrams = await Datagrams.open(path, port);
    const attributes = allocate(4);
    const stats = check(bpf(BPF_ENABLE_STATS, attributes.address, 4), 'bpf(BPF_ENABLE_STATS)');
    try {
      const before = found.map(({ fd }) => runsOf(fd));
      await datagrams.trial(size, rate, effort.seconds / 2);
      return Object.assign(
        {},
        ...found.map(({ fd, instructions, name }, index): Figures => {
          const kind = kinds[name];
          const now = runsOf(fd);
          const runs = now.count - before[index]!.count;
          const each = (now.nanoseconds - before[index]!.nanoseconds) / Math.max(runs, 1);
          return kind === undefined ? {} : { [kind]: instructions, [`${kind}-ns`]: each };
        }),
      );
    } finally {
      close(stats);
      for (const { fd } of found) close(fd);
      await datagrams.close();
    }
  },
};

/** What the process keeps attached; a link's description names its program. */
function programIds(pid: number): number[] {
  const directory = `/proc/${pid}/fdinfo`;
  const ids = readdirSync(directory).flatMap((fd) => {
    const id = field(readFileSync(`${directory}/${fd}`, 'utf8'), 'prog_id');
    return id === undefined ? [] : [id];
  });
  return [...new Set(ids)];
}

function openProgram(id: number): { fd: Fd; name: string; instructions: number } {
  const asked = allocate(12);
  asked.view.setUint32(0, id, LITTLE_ENDIAN);
  const fd = check(bpf(BPF_PROG_GET_FD_BY_ID, asked.address, 12), 'bpf(BPF_PROG_GET_FD_BY_ID)');
  const answer = allocate(info.size);
  const { address, view } = allocate(infoByFd.size);
  view.setUint32(infoByFd.bpf_fd, fd, LITTLE_ENDIAN);
  view.setUint32(infoByFd.info_len, info.size, LITTLE_ENDIAN);
  setPointer(view, infoByFd.info, answer.address);
  check(bpf(BPF_OBJ_GET_INFO_BY_FD, address, infoByFd.size), 'bpf(BPF_OBJ_GET_INFO_BY_FD)');
  const name = answer.bytes.subarray(info.name, info.name + nameLength);
  return {
    fd,
    name: new TextDecoder().decode(name).replace(/\0.*$/, ''),
    instructions: answer.view.getUint32(info.xlated_prog_len, LITTLE_ENDIAN) / instructionLength,
  };
}

function runsOf(fd: Fd): { nanoseconds: number; count: number } {
  const text = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
  return { nanoseconds: field(text, 'run_time_ns') ?? 0, count: field(text, 'run_cnt') ?? 0 };
}

function field(text: string, name: string): number | undefined {
  const found = new RegExp(`^${name}:\\s*(\\d+)$`, 'm').exec(text)?.[1];
  return found === undefined ? undefined : Number(found);
}
