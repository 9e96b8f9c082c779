/** Texts near a good configuration: each is read, or refused with places and words. */
import { readFileSync } from 'node:fs';
import { ConfigError, readConfig } from '../../cli/config/parse.ts';
import { file } from '../cli/config-file.ts';
import type { Random } from './random.ts';
import { type Fuzzer, must, type Trial } from './trial.ts';

const example = 'test/golden/config.example.yaml';
/** No text of this size may take longer, milliseconds. */
const slowest = 5000;

const words = [
  ...[
    '',
    'null',
    '~',
    'true',
    'no',
    '0',
    '-1',
    '1e309',
    '0x1f',
    '.inf',
    '.nan',
    '1_000',
    '""',
    "''",
  ],
  ...[
    '[]',
    '{}',
    '[[[]]]',
    '{a: {b: 1}}',
    '&a [*a]',
    '*a',
    '<<: *a',
    '!!binary aGk=',
    '!!js/function x',
  ],
  ...[
    '? a',
    '- - -',
    '---',
    '...',
    '%YAML 9.9',
    '|',
    '>',
    '"\\u0000"',
    '# x',
    ': ',
    '__proto__: 1',
  ],
  ...['constructor', 'toString', '10.0.0.0/33', '256.1.1.1', '::1', '1-0', '65536', '4294967296'],
  ...[
    'any',
    'tcp',
    'offices',
    'web',
    'redirect',
    'drop',
    '5s',
    '99999999999h',
    '\t',
    '\u2028',
    '\ud800',
  ],
];

/** One change of a text of lines. */
function change(lines: string[], random: Random): void {
  const at = random.below(lines.length + 1);
  const line = lines[at] ?? '';
  switch (random.below(9)) {
    case 0:
      lines.splice(at, 1);
      return;
    case 1:
      lines.splice(random.below(lines.length + 1), 0, line);
      return;
    case 2:
      lines.splice(at, 0, `${' '.repeat(random.below(8))}${random.pick(words)}`);
      return;
    case 3:
      lines[at] = `${' '.repeat(random.below(4))}${line}`;
      return;
    case 4:
      lines[at] = line.replace(/:.*$/, `: ${random.pick(words)}`);
      return;
    case 5:
      lines[at] = line.replace(/[\w.]+/, random.pick(words));
      return;
    case 6: {
      const place = random.below(line.length + 1);
      const character = String.fromCharCode(
        random.once(4) ? random.below(65536) : random.below(128),
      );
      lines[at] = line.slice(0, place) + character + line.slice(place + random.below(2));
      return;
    }
    case 7:
      lines[at] = line.slice(0, random.below(line.length + 1));
      return;
    default:
      lines.splice(
        at,
        0,
        random.pick(['[', '{', '- ', 'a: ', '"', '&a ']).repeat(random.below(200)),
      );
  }
}

function judge(text: string, read: typeof readConfig): void {
  const started = performance.now();
  try {
    const { config: found, warnings } = read(text, 'fuzz.yaml');
    must(Object.isFrozen(found) && Array.isArray(warnings), () => 'neither read nor refused');
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    must(error.problems.length > 0, () => 'refused without a reason');
    for (const { column, line, message } of error.problems) {
      const isPlace = Number.isInteger(line) && line >= 0 && column >= 0;
      must(isPlace && message.length > 0, () => `at ${line}:${column}: ${message}`);
    }
  }
  const took = performance.now() - started;
  must(took < slowest, () => `took ${took.toFixed()} ms`);
}

function create(read: typeof readConfig) {
  const good = readFileSync(example, 'utf8');
  const policy = good.slice(good.indexOf('sets:'), good.indexOf('limits:'));
  // The example shows what is not supported yet, too; the others are read.
  const bases = [good, file(), file({ policy }), file({ policy })];
  return (trial: Trial) => {
    const { random } = trial;
    const lines = random.pick(bases).split('\n');
    const times = 1 + random.below(6);
    for (let i = 0; i < times; i++) change(lines, random);
    const text = lines.join('\n');
    const none = { gso: 0, gsoSize: 0, checksumStart: 0, checksumOffset: 0 };
    trial.inputs.push({ name: 'text', bytes: Buffer.from(text), ...none });
    judge(text, read);
  };
}

export const config: Fuzzer = {
  name: 'config',
  promise: 'any text is read, or refused by a ConfigError that says where and why',
  smoke: 80,
  create: () => create(readConfig),
};

/** Some refusals are of another kind. */
export const configCanary: Fuzzer = {
  name: 'canary-config',
  promise: 'a reader that throws something else is found out',
  smoke: 50,
  canary: true,
  create: () =>
    create((text, file) => {
      if (text.length % 7 === 0) throw new TypeError('planted');
      return readConfig(text, file);
    }),
};
