import { readFileSync } from 'node:fs';
import t from 'tap';
import { layers } from '../../scripts/layers.ts';
import { readSource, separate } from '../../scripts/source.ts';
import { readTree, tidy } from '../../scripts/tidy.ts';

/** Findings of one rule as `path:line`, for files planted in an otherwise empty tree. */
function found(rule: string, files: Record<string, string>): string[] {
  return tidy(new Map(Object.entries(files)))
    .filter((finding) => finding.rule === rule)
    .map(({ path, line }) => `${path}:${line}`);
}

/** A marker's word, which may not stand in this file's own comments. */
const marker = ['TO', 'DO'].join('');

t.test('a layer imports only what its row allows', async (t) => {
  const rows: [name: string, path: string, text: string, allowed: boolean][] = [
    ['its own folder', 'parsers/a.ts', "import { b } from './b.ts';", true],
    ['a folder below', 'tunnel/a.ts', "import { b } from '../parsers/b.ts';", true],
    ['a folder above', 'parsers/a.ts', "import { b } from '../tunnel/b.ts';", false],
    ['a type from above', 'parsers/a.ts', "import type { B } from '../engine/b.ts';", false],
    ['a re-export from above', 'tunnel/a.ts', "export { b } from '../engine/b.ts';", false],
    ['a dynamic import', 'engine/a.ts', "await import('../linux/b.ts');", false],
    ['a type in place', 'engine/a.ts', "type B = import('../linux/b.ts').B;", false],
    ['an import for its effects', 'engine/a.ts', "import '../linux/b.ts';", false],
    ['engine from linux', 'linux/a.ts', "import type { Io } from '../engine/io.ts';", true],
    ['more of engine from linux', 'linux/a.ts', "import { b } from '../engine/loop.ts';", false],
    ['pieces from linux', 'linux/a.ts', "import { b } from '../tunnel/pieces.ts';", true],
    ['linux from lab', 'lab/a.ts', "import { b } from '../linux/tun.ts';", true],
    ['parsers from lab', 'lab/a.ts', "import { b } from '../parsers/ipv4.ts';", false],
    ['lab from cli', 'cli/a.ts', "import { b } from '../lab/b.ts';", false],
    ['everything from cli', 'cli/a.ts', "import { b } from '../linux/b.ts';", true],
    ['koffi in its place', 'linux/syscall.ts', "import koffi from 'koffi';", true],
    ['koffi elsewhere in linux', 'linux/tun.ts', "import koffi from 'koffi';", false],
    ['koffi in cli', 'cli/a.ts', "import koffi from 'koffi';", false],
    ['a module of node in parsers', 'parsers/a.ts', "import os from 'node:os';", false],
    ['threads in engine', 'engine/a.ts', "import { Worker } from 'node:worker_threads';", true],
    ['files in engine', 'engine/a.ts', "import { open } from 'node:fs';", false],
    ['https in telemetry', 'engine/telemetry.worker.ts', "import https from 'node:https';", true],
    ['a package in engine', 'engine/a.ts', "import { z } from 'zod';", false],
    ['a scoped package in control', 'control/a.ts', "import { z } from '@a/b/c';", true],
    ['a package in scripts', 'scripts/a.ts', "import { z } from 'zod';", false],
    ['an import in a comment', 'parsers/a.ts', "// import { b } from '../engine/b.ts'", true],
    ['an import in a string', 'parsers/a.ts', 'const a = "import b from \'node:fs\'";', true],
    ['a folder of no row', 'other/a.ts', "import { b } from '../parsers/b.ts';", false],
  ];
  for (const [name, path, text, allowed] of rows) {
    t.same(found('layer', { [path]: `\n${text}\n` }), allowed ? [] : [`${path}:2`], name);
  }
});

t.test('an import over several lines is found at its first', async (t) => {
  const text = "const a = 1;\nimport {\n  type B,\n  c as d,\n} from '../engine/b.ts';\n";
  t.same(found('layer', { 'parsers/a.ts': text }), ['parsers/a.ts:2']);
  const [read] = readSource('parsers/a.ts', text).imports;
  t.same(read?.names, ['B', 'c']);
  t.equal(read?.target, 'engine/b.ts');
});

t.test('code and comments are told apart', async (t) => {
  const rows: [name: string, text: string, code: string][] = [
    ['a slash in a string', "a('//b'); // c", "a('   ');"],
    ['a quote in a comment', "/* it's */ a('b')", "           a(' ')"],
    ['a quote in a regular expression', "a = /'[/']/; b('c')", "a =        ; b(' ')"],
    ['a division', "a = b / c; d('e') / f", "a = b / c; d(' ') / f"],
    ['a template with code in it', `\`a ${'$'}{b('c}')} // d\`; e`, "`   {b('  ')}     `; e"],
    ['a template in a template', `\`a${'$'}{\`b${'$'}{c}\`}d\`; e`, '`  {`  {c}`} `; e'],
    ['an escaped quote', "a('\\'//'); b", "a('    '); b"],
  ];
  for (const [name, text, code] of rows) {
    t.equal(separate(text).code.trimEnd(), code, name);
    t.equal(separate(text).code.length, text.length, `${name}: the length stays`);
  }
});

t.test('sizes of files and lines have a limit', async (t) => {
  const lines = (count: number) => 'a;\n'.repeat(count);
  t.same(found('file-size', { 'cli/a.ts': lines(400) }), []);
  t.same(found('file-size', { 'cli/a.ts': lines(401) }), ['cli/a.ts:401']);
  t.same(found('line-length', { 'cli/a.ts': `// ${'a'.repeat(97)}` }), []);
  t.same(found('line-length', { 'cli/a.ts': `\n// ${'a'.repeat(98)}` }), ['cli/a.ts:2']);
  t.same(
    found('line-length', { 'cli/a.ts': `f('${'a'.repeat(100)}')` }),
    [],
    'the formatter leaves it',
  );
  t.same(found('line-length', { 'scripts/a.sh': 'a'.repeat(101) }), ['scripts/a.sh:1']);
  t.same(found('line-length', { 'docs/a.md': 'a'.repeat(101) }), []);
});

t.test('markers, prints, default exports and dead code are found', async (t) => {
  t.same(found('marker', { 'cli/a.ts': `a;\n// ${marker} b` }), ['cli/a.ts:2']);
  t.same(found('marker', { 'cli/a.ts': `const a = '${marker}';` }), []);
  t.same(found('console', { 'engine/a.ts': 'console.log(1);' }), ['engine/a.ts:1']);
  t.same(found('console', { 'cli/a.ts': 'console.log(1);' }), []);
  t.same(found('default-export', { 'cli/a.ts': 'export default 1;' }), ['cli/a.ts:1']);
  const text = 'a;\n// const b = c();\n// b.d(1);\n// A return to b (see c); and so on.\n// }\n';
  t.same(
    found('commented-out', { 'cli/a.ts': text }),
    [2, 3, 5].map((line) => `cli/a.ts:${line}`),
  );
});

t.test('files and exports that nobody imports are found', async (t) => {
  const files = {
    'cli/main.ts': "import { used } from './a.ts';\nimport * as all from './b.ts';",
    'cli/a.ts': 'export const used = 1;\nexport function unused() {}\nexport type used = 1;',
    'cli/b.ts': 'export const b = 1;',
    'cli/c.worker.ts': 'export type Shape = 1;\nexport type No = 2;\nconst c: Shape = 1;',
    'cli/dead.ts': 'const c = 1;',
    'cli/named-by-shell.ts': 'const d = 1;',
    'scripts/run': 'node dist/cli/named-by-shell.js',
    'engine/a.worker.ts': "const e = new URL('./found.js', import.meta.url);",
    'engine/found.ts': 'const f = 1;',
  };
  t.same(found('dead-file', files), ['cli/dead.ts:1']);
  t.same(found('unused-export', files), ['cli/a.ts:2', 'cli/c.worker.ts:2']);
});

t.test('reasons that no packet ends under are found', async (t) => {
  const table =
    "const rows = {\n  Ok: ['ok'],\n  TooBig: [\n    'too-big',\n  ],\n  Lost: ['lost'],\n};\n";
  const files = {
    'parsers/reason.ts': table,
    'engine/a.ts': 'count(Reason.Ok); // Reason.Lost',
    'test/engine/a.test.ts': 'count(Reason.TooBig);',
  };
  t.same(found('unused-reason', files), ['parsers/reason.ts:3', 'parsers/reason.ts:6']);
});

t.test('a file named in a document exists', async (t) => {
  const document =
    'See\n`engine/a.ts`, engine/b.ts and test/<folder>/<file>.test.ts, x/engine/c.ts.';
  t.same(found('document-name', { 'docs/a.md': document, 'engine/a.ts': '' }), ['docs/a.md:2']);
});

t.test('the tree is read with what the rules look at', async (t) => {
  const tree = readTree(process.cwd());
  for (const path of ['parsers/reason.ts', 'package.json', 'scripts/bootstrap.sh', '.ci/run']) {
    t.ok(tree.has(path), path);
  }
  for (const path of tree.keys()) t.notMatch(path, /^(node_modules|dist)\//);
});

t.test('every folder that is compiled has its row', async (t) => {
  const { include } = JSON.parse(readFileSync('tsconfig.json', 'utf8')) as { include: string[] };
  t.same([...include].sort(), Object.keys(layers).sort());
});
