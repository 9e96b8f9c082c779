/**
 * Programs and maps in the kernel: everything about eBPF that depends on the running one. All of
 * it throws SystemError (VerifierError when a program is refused); descriptors belong to the
 * caller. Cold: attributes are allocated for each call.
 */
import { constants } from 'node:os';
import {
  BPF_MAP_CREATE,
  BPF_MAP_DELETE_ELEM,
  BPF_MAP_LOOKUP_ELEM,
  BPF_MAP_UPDATE_ELEM,
  BPF_OBJ_GET,
  BPF_OBJ_NAME_LEN,
  BPF_OBJ_PIN,
  BPF_PROG_LOAD,
  mapCreate,
  mapElem,
  objPin,
  progLoad,
} from '../abi/bpf.ts';
import { callFailed, VerifierError } from '../errors.ts';
import { liftMemoryLimit } from '../locked-memory.ts';
import {
  allocate,
  bpf,
  check,
  errno,
  type Fd,
  LITTLE_ENDIAN,
  mmap,
  type Region,
  setPointer,
  viewAt,
} from '../syscall.ts';
import { encode, type Program, programLength } from './asm.ts';

const { EAGAIN, ENOENT, ENOSPC, EPERM } = constants.errno;

/**
 * A load takes a few milliseconds; signals that interrupt all of these in a row are no accident.
 */
const loadAttempts = 20;

/** The verifier's log, at first and at most (kernel 5.2 and later allow 1 GiB). */
const logLength = 64 * 1024;
const logLengthMax = 16 * 1024 * 1024;

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;

function setU32(region: Region, at: number, value: number): void {
  region.view.setUint32(at, value, LITTLE_ENDIAN);
}
function setName(region: Region, at: number, name: string): void {
  if (name.length >= BPF_OBJ_NAME_LEN) throw new RangeError(`name ${name} is too long`);
  for (let index = 0; index < name.length; index++) {
    region.bytes[at + index] = name.charCodeAt(index);
  }
}
function regionOf(bytes: Uint8Array): Region {
  const region = allocate(Math.max(bytes.length, 1));
  region.bytes.set(bytes);
  return region;
}
/** A C string; keep the region reachable until the call returns. */
export function textRegion(text: string): Region {
  return regionOf(new TextEncoder().encode(`${text}\0`));
}

export type MapDescription = {
  /** At most 15 characters. */
  readonly name: string;
  /** enum bpf_map_type */
  readonly type: number;
  readonly keyLength: number;
  readonly valueLength: number;
  readonly capacity: number;
  readonly flags: number;
};

export function createMap(map: MapDescription): Fd {
  const attributes = allocate(mapCreate.size);
  setU32(attributes, mapCreate.map_type, map.type);
  setU32(attributes, mapCreate.key_size, map.keyLength);
  setU32(attributes, mapCreate.value_size, map.valueLength);
  setU32(attributes, mapCreate.max_entries, map.capacity);
  setU32(attributes, mapCreate.map_flags, map.flags);
  setName(attributes, mapCreate.map_name, map.name);
  const create = () => bpf(BPF_MAP_CREATE, attributes.address, mapCreate.size);
  let fd = create();
  if (fd < 0 && errno() === EPERM && liftMemoryLimit()) fd = create();
  return check(fd, `bpf(BPF_MAP_CREATE ${map.name})`);
}

/**
 * The values of a BPF_F_MMAPABLE map as memory, shared with the programs and other threads. It
 * stays mapped for the life of the process: whoever holds the buffer must never meet a hole.
 *
 * @param length of all values together, each rounded up to 8 bytes; the kernel maps whole pages
 */
export function mapValues(map: Fd, length: number): ArrayBuffer {
  const address = mmap(0, length, PROT_READ_WRITE, MAP_SHARED, map, 0);
  // MAP_FAILED is all ones.
  if (address > Number.MAX_SAFE_INTEGER) throw callFailed('mmap(BPF map)', errno());
  return viewAt(address, length);
}

/** The three calls on one element. Keys and values are copied: they may be any bytes. */
function elementCall(command: number, map: Fd, key: Region, value: Region | null): number {
  const attributes = allocate(mapElem.size);
  setU32(attributes, mapElem.map_fd, map);
  setPointer(attributes.view, mapElem.key, key.address);
  setPointer(attributes.view, mapElem.value, value?.address ?? 0);
  return bpf(command, attributes.address, mapElem.size);
}

/** Fills `value` and says whether the key is there. */
export function lookupElement(map: Fd, key: Uint8Array, value: Uint8Array): boolean {
  const target = allocate(value.length);
  const result = elementCall(BPF_MAP_LOOKUP_ELEM, map, regionOf(key), target);
  if (result < 0 && errno() === ENOENT) return false;
  check(result, 'bpf(BPF_MAP_LOOKUP_ELEM)');
  value.set(target.bytes);
  return true;
}

export function updateElement(map: Fd, key: Uint8Array, value: Uint8Array): void {
  const result = elementCall(BPF_MAP_UPDATE_ELEM, map, regionOf(key), regionOf(value));
  check(result, 'bpf(BPF_MAP_UPDATE_ELEM)');
}

/** Says whether the key was there. */
export function deleteElement(map: Fd, key: Uint8Array): boolean {
  const result = elementCall(BPF_MAP_DELETE_ELEM, map, regionOf(key), null);
  if (result < 0 && errno() === ENOENT) return false;
  check(result, 'bpf(BPF_MAP_DELETE_ELEM)');
  return true;
}

/**
 * Load a program. `maps` gives descriptors by the names it uses. The verifier is asked for its log
 * only after it refused; VerifierError carries it.
 */
export function loadProgram(program: Program, maps: Readonly<Record<string, Fd>>): Fd {
  const instructions = regionOf(encode(program.items, maps));
  const license = textRegion('GPL');
  const attributes = allocate(progLoad.size);
  setU32(attributes, progLoad.prog_type, program.type);
  setU32(attributes, progLoad.insn_cnt, programLength(program.items));
  setPointer(attributes.view, progLoad.insns, instructions.address);
  setPointer(attributes.view, progLoad.license, license.address);
  setName(attributes, progLoad.prog_name, program.name);
  const fd = tryLoad(attributes);
  if (fd >= 0) return fd;
  const cause = errno();
  if (cause === EPERM) throw callFailed(`bpf(BPF_PROG_LOAD ${program.name})`, cause);
  return loadForLog(program.name, attributes, cause);
}

/**
 * The verifier gives up with EAGAIN when a signal waits (kernel/bpf/verifier.c do_check), be it a
 * child's end or a profiler's tick. Returns the descriptor or -1, with errno set.
 */
function tryLoad(attributes: Region): Fd {
  for (let attempt = 1; ; attempt++) {
    const fd = bpf(BPF_PROG_LOAD, attributes.address, progLoad.size);
    if (fd >= 0 || errno() !== EAGAIN || attempt === loadAttempts) return fd;
  }
}

/** The same load with a log, larger until it fits. */
function loadForLog(name: string, attributes: Region, cause: number): Fd {
  for (let length = logLength; ; length *= 4) {
    const log = allocate(length);
    setU32(attributes, progLoad.log_level, 1);
    setU32(attributes, progLoad.log_size, length);
    setPointer(attributes.view, progLoad.log_buf, log.address);
    const fd = tryLoad(attributes);
    // Memory was short a moment ago, and no longer is.
    if (fd >= 0) return fd;
    const again = errno();
    if (again === ENOSPC && length < logLengthMax) continue;
    const text = new TextDecoder().decode(log.bytes.subarray(0, log.bytes.indexOf(0)));
    if (text === '') throw callFailed(`bpf(BPF_PROG_LOAD ${name})`, cause);
    throw new VerifierError(name, cause, text);
  }
}

/** Give an object a name in a bpffs, by which it outlives its descriptors. */
export function pinObject(fd: Fd, path: string): void {
  const name = textRegion(path);
  const attributes = allocate(objPin.size);
  setPointer(attributes.view, objPin.pathname, name.address);
  setU32(attributes, objPin.bpf_fd, fd);
  check(bpf(BPF_OBJ_PIN, attributes.address, objPin.size), `bpf(BPF_OBJ_PIN ${path})`);
}

/** Descriptor of a pinned object. */
export function getPinned(path: string): Fd {
  const name = textRegion(path);
  const attributes = allocate(objPin.size);
  setPointer(attributes.view, objPin.pathname, name.address);
  return check(bpf(BPF_OBJ_GET, attributes.address, objPin.size), `bpf(BPF_OBJ_GET ${path})`);
}
