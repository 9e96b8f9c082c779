// Untimed: another test may run beside this one.
/** Maps and the verifier of the running kernel; needs root. */
import t from 'tap';
import {
  BPF_F_MMAPABLE,
  BPF_MAP_TYPE_ARRAY,
  BPF_MAP_TYPE_LRU_HASH,
  BPF_PROG_TYPE_SCHED_CLS,
} from '../../linux/abi/bpf.ts';
import { exit, goto, type Item, label, mov, R0, R1, R2 } from '../../linux/bpf/asm.ts';
import {
  createMap,
  deleteElement,
  loadProgram,
  lookupElement,
  mapValues,
  updateElement,
} from '../../linux/bpf/load.ts';
import { tcx } from '../../linux/bpf/tcx.ts';
import { hasTcx } from '../../linux/bpf/tcx-link.ts';
import { type SystemError, VerifierError } from '../../linux/errors.ts';
import { close } from '../../linux/syscall.ts';

const tc = (items: Item[]) => ({ name: 'mp_test', type: BPF_PROG_TYPE_SCHED_CLS, items });

t.test('elements of a map', async (t) => {
  const lru = BPF_MAP_TYPE_LRU_HASH;
  const map = createMap({
    name: 'mp_test',
    type: lru,
    keyLength: 4,
    valueLength: 8,
    capacity: 64,
    flags: 0,
  });
  const [key, value] = [Uint8Array.of(1, 2, 3, 4), Uint8Array.of(8, 7, 6, 5, 4, 3, 2, 1)];
  const found = new Uint8Array(8);
  t.notOk(lookupElement(map, key, found));
  updateElement(map, key, value);
  t.ok(lookupElement(map, key, found));
  t.match(found, value);
  t.ok(deleteElement(map, key));
  t.notOk(deleteElement(map, key));
  close(map);
});

t.test('a mapped map is the map', async (t) => {
  const flags = BPF_F_MMAPABLE;
  const map = createMap({
    name: 'mp_test',
    type: BPF_MAP_TYPE_ARRAY,
    keyLength: 4,
    valueLength: 16,
    capacity: 1,
    flags,
  });
  const words = new Uint32Array(mapValues(map, 16), 0, 4);
  words[3] = 77;
  const value = new Uint8Array(16);
  t.ok(lookupElement(map, new Uint8Array(4), value));
  t.equal(value[12], 77);
  close(map);
});

t.test('a refused program throws with what the verifier said', async (t) => {
  const error = t.throws(() => loadProgram(tc([mov.reg(R0, R2), exit()]), {})) as VerifierError;
  t.match(error, { code: 'ERR_VERIFIER', program: 'mp_test', message: /R2 !read_ok/ });
  t.match(error.log, 'processed ');
  const noise = Array.from({ length: 6000 }, (_, index) => mov.imm(R1, index));
  const long = t.throws(() => loadProgram(tc([...noise, mov.reg(R0, R2), exit()]), {}));
  t.match((long as VerifierError).message, /R2 !read_ok/, 'even when the log is long');
  t.throws(() => loadProgram(tc([label('again'), goto('again')]), {}), VerifierError);
});

const skip = !hasTcx() && 'kernel has no TCX';
t.test('an interface that does not exist is not a missing feature', { skip }, async (t) => {
  const program = loadProgram(tc([mov.imm(R0, 0), exit()]), {});
  const error = t.throws(() => tcx.attach(program, 0x7fff_ffff, 'ingress', 'agent')) as SystemError;
  t.match(error, { code: 'ERR_SYSTEM_CALL', message: /ENODEV/ });
  close(program);
});
