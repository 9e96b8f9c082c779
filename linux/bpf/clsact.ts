/**
 * Attaching by filters on `clsact`, for kernels without TCX.
 *
 * A filter belongs to its interface: it outlives the process, whether that is wanted or not. So the
 * filter itself says what the next run must know, by its name:
 *
 *     microperimeter-egress          one of ours
 *     microperimeter-egress+qdisc    and the clsact under it was not there before us
 *     microperimeter-guard-egress    the boot guard's, with +qdisc as above
 *
 * With `onAgentFailure: pass` a dead run's programs let everything pass once the heartbeat is old;
 * with `drop` they drop. Either way they stay until the next run or `microperimeter release`.
 *
 * First in line: priority 1, and the kernel puts the newest of a priority before the others
 * (cls_bpf_change in net/sched/cls_bpf.c). Other people's filters see what our programs let go on.
 * Whoever deletes the whole priority or the clsact deletes ours with it.
 */
import { constants } from 'node:os';
import { callFailed, SystemError, UnsupportedFeature } from '../errors.ts';
import { listInterfaces } from '../netlink.ts';
import { dump, requestChange } from '../netlink-socket.ts';
import type { Fd } from '../syscall.ts';
import { type AttachMethod, type Attachment, around, type Hook, type Owner } from './attach.ts';
import {
  createQdisc,
  deleteFilter,
  deleteQdisc,
  type Filter,
  type FilterPlace,
  firstPriority,
  listFilters,
  listQdiscs,
  putFilter,
  type Qdisc,
  readFilter,
  readHookQdisc,
} from './clsact-message.ts';

const { EEXIST, EINVAL, ENODEV, ENOENT, EOPNOTSUPP } = constants.errno;

const hooks: readonly Hook[] = ['egress', 'ingress'];
const ourName = /^microperimeter-(guard-)?(?:egress|ingress)(\+qdisc)?$/;
/** Ours begin here ('mp'); people and tools count from 1. */
const handleBase = 0x6d70_0001;
/** Our filters on one hook: this run's, and one for each run that died without being cleared. */
const handleCount = 16;

export const clsact: AttachMethod = {
  name: 'clsact',
  attach(program, interfaceIndex, hook, owner) {
    const ownsQdisc = ensureQdisc(interfaceIndex);
    const prefix = owner === 'agent' ? '' : 'guard-';
    const name = `microperimeter-${prefix}${hook}${ownsQdisc ? '+qdisc' : ''}`;
    try {
      return addFilter(program, interfaceIndex, hook, name);
    } catch (error) {
      if (ownsQdisc) removeEmptyQdisc(interfaceIndex);
      throw error;
    }
  },
  leftovers(_directory, owner) {
    const names = new Map(listInterfaces().map(({ index, name }) => [index, name]));
    return clsactInterfaces().flatMap((interfaceIndex) =>
      ownFilters(interfaceIndex)
        .filter(({ name }) => ownerOf(name) === owner)
        .map(({ hook, handle, name }) => {
          const filter = new ClsactFilter({ interfaceIndex, hook, handle }, name);
          const label = `${names.get(interfaceIndex) ?? interfaceIndex} ${hook}`;
          return { name: label, release: () => filter.remove() };
        }),
    );
  },
};

/** Whether the clsact of the interface is ours to remove: made now, or by a run before. */
function ensureQdisc(interfaceIndex: number): boolean {
  const cause = requestChange(createQdisc(interfaceIndex));
  if (cause === 0) return true;
  if (cause === ENOENT || cause === EOPNOTSUPP) {
    throw new UnsupportedFeature('TCX and no clsact (module sch_ingress)', '6.6', cause);
  }
  if (cause !== EEXIST) throw failed('RTM_NEWQDISC clsact', interfaceIndex, cause);
  const found = hookQdiscs().find((qdisc) => qdisc.interfaceIndex === interfaceIndex);
  if (found?.kind === 'ingress') throw onlyIngress(interfaceIndex, cause);
  return ownFilters(interfaceIndex).some(({ name }) => ownsQdisc(name));
}

/** A filter for its egress hook would end on its ingress hook. */
function onlyIngress(interfaceIndex: number, cause: number): SystemError {
  const message = `interface ${interfaceIndex} has the qdisc "ingress", which has no egress hook`;
  return new SystemError('ERR_SYSTEM_CALL', message, {
    call: 'rtnetlink(RTM_NEWQDISC clsact)',
    errno: cause,
    advice: 'Use "clsact" in its place, which takes the same filters (tc qdisc show).',
  });
}

function ownsQdisc(filterName: string): boolean {
  return ourName.exec(filterName)?.[2] !== undefined;
}

function ownerOf(filterName: string): Owner {
  return ourName.exec(filterName)?.[1] === undefined ? 'agent' : 'guard';
}

function hookQdiscs(): Qdisc[] {
  return dump(listQdiscs(), 'RTM_GETQDISC')
    .map(({ payload }) => readHookQdisc(payload))
    .filter((qdisc) => qdisc !== null);
}

/** None on a kernel without traffic control. */
function clsactInterfaces(): number[] {
  try {
    const found = hookQdiscs().filter(({ kind }) => kind === 'clsact');
    return found.map(({ interfaceIndex }) => interfaceIndex);
  } catch (error) {
    if (error instanceof SystemError && error.errno === EOPNOTSUPP) return [];
    throw error;
  }
}

function filtersOn(interfaceIndex: number, hook: Hook): Filter[] {
  const answer = dump(listFilters(interfaceIndex, hook), 'RTM_GETTFILTER');
  return answer.map(({ payload }) => readFilter(payload));
}

function ownFilters(interfaceIndex: number): (Filter & { hook: Hook })[] {
  return hooks.flatMap((hook) =>
    filtersOn(interfaceIndex, hook)
      .filter(({ name }) => ourName.test(name))
      .map((filter) => ({ ...filter, hook })),
  );
}

function addFilter(program: Fd, interfaceIndex: number, hook: Hook, name: string): ClsactFilter {
  let cause = 0;
  for (let handle = handleBase; handle < handleBase + handleCount; handle++) {
    const place = { interfaceIndex, hook, handle };
    cause = requestChange(putFilter(place, 'new', program, name));
    if (cause === 0) return new ClsactFilter(place, name);
    if (cause !== EEXIST) break;
  }
  if (cause === ENOENT) {
    throw new UnsupportedFeature('TCX and no bpf filters (module cls_bpf)', '6.6', cause);
  }
  if (cause === EINVAL && isPriorityTaken(interfaceIndex, hook)) {
    throw priorityTaken(interfaceIndex, hook, cause);
  }
  throw failed(`RTM_NEWTFILTER ${hook}`, interfaceIndex, cause);
}

function isPriorityTaken(interfaceIndex: number, hook: Hook): boolean {
  return filtersOn(interfaceIndex, hook).some(({ priority }) => priority === firstPriority);
}

/** Of another kind or for one protocol: ours cannot join it, and after it we would see its rest. */
function priorityTaken(interfaceIndex: number, hook: Hook, cause: number): SystemError {
  const message =
    `another filter has priority ${firstPriority} on the ${hook} hook of interface ` +
    `${interfaceIndex}; what it takes would not be inspected`;
  return new SystemError('ERR_SYSTEM_CALL', message, {
    call: 'rtnetlink(RTM_NEWTFILTER)',
    errno: cause,
    advice: 'Give it a larger priority (tc filter show).',
  });
}

function failed(request: string, interfaceIndex: number, cause: number): SystemError {
  return callFailed(`rtnetlink(${request} of interface ${interfaceIndex})`, cause);
}

/**
 * A filter that somebody adds between the question and the removal goes with it: the kernel has no
 * removal that asks by itself.
 */
function removeEmptyQdisc(interfaceIndex: number): void {
  if (hooks.some((hook) => filtersOn(interfaceIndex, hook).length > 0)) return;
  const cause = requestChange(deleteQdisc(interfaceIndex));
  if (cause !== 0 && !isGone(cause)) throw failed('RTM_DELQDISC', interfaceIndex, cause);
}

/** The filter, its priority, the clsact (EINVAL, without parent) or the interface is not there. */
function isGone(cause: number): boolean {
  return cause === ENOENT || cause === ENODEV || cause === EINVAL;
}

class ClsactFilter implements Attachment {
  private readonly place: FilterPlace;
  private readonly name: string;
  private isAttached = true;

  constructor(place: FilterPlace, name: string) {
    this.place = place;
    this.name = name;
  }

  replace(program: Fd): void {
    const cause = requestChange(putFilter(this.place, 'replace', program, this.name));
    const { hook, interfaceIndex } = this.place;
    if (cause !== 0) throw failed(`RTM_NEWTFILTER ${hook}`, interfaceIndex, cause);
  }

  isInPlace(): boolean {
    const { handle, hook, interfaceIndex } = this.place;
    const isListed = ownFilters(interfaceIndex).some((f) => f.hook === hook && f.handle === handle);
    return this.isAttached && isListed;
  }

  others(): { before: number; after: number } {
    const { handle, hook, interfaceIndex } = this.place;
    // A message without a handle speaks of a whole priority.
    const all = filtersOn(interfaceIndex, hook).filter((filter) => filter.handle !== 0);
    return around(all, (filter) => filter.handle === handle && filter.name === this.name);
  }

  /** It outlives the process by itself, and its name is on it. */
  keep(): void {}

  /** It cannot go with the process: its program looks at the heartbeat and lets pass. */
  letGo(): void {}

  detach(): void {
    if (!this.isAttached) return;
    this.isAttached = false;
    this.remove();
  }

  /** False when it was gone. */
  remove(): boolean {
    const { hook, interfaceIndex } = this.place;
    const cause = requestChange(deleteFilter(this.place));
    if (cause !== 0 && !isGone(cause)) {
      throw failed(`RTM_DELTFILTER ${hook}`, interfaceIndex, cause);
    }
    if (ownsQdisc(this.name)) removeEmptyQdisc(interfaceIndex);
    return cause === 0;
  }
}
