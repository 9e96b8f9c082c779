/**
 * What the documents tell a reader to type works. Every line of a shell block must be one that is
 * known here: run now, or run by the test that is named. YAML blocks must be configurations, or
 * parts of one, that `check` accepts. Names of options, keys, reasons and codes must exist.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { parse, stringify } from 'yaml';
import { exitCodeHelp } from '../../cli/exit-codes.ts';
import { reasonNames } from '../../parsers/reason.ts';

const documents = ['README.md', 'CONTRIBUTING.md', ...readdirSync('docs').map((f) => `docs/${f}`)]
  .filter((path) => path.endsWith('.md'))
  .map((path) => ({ path, text: readFileSync(path, 'utf8') }));
const directory = mkdtempSync(join(tmpdir(), 'microperimeter-docs-'));
t.teardown(() => rmSync(directory, { recursive: true }));

function blocks(text: string, language: string): string[] {
  const found = text.matchAll(new RegExp(`^ *\`\`\`${language}\\n(.*?)^ *\`\`\``, 'gms'));
  return [...found].map(([, body]) => body ?? '');
}

function readme(): string {
  return documents.find(({ path }) => path === 'README.md')!.text;
}

const config = join(directory, 'config.yaml');
writeFileSync(config, blocks(readme(), 'yaml').at(-1) ?? '');

type How = { readonly run: string; readonly code: number } | { readonly testedBy: string };

/** Commands by what they look like, without sudo and comments. */
const known: readonly [RegExp, How][] = [
  [/^\.\/scripts\/lab\b/, { testedBy: 'test/net/lab.test.ts' }],
  [/^\.\/scripts\/test\b/, { testedBy: '.ci/run' }],
  [/^\.\/scripts\/package( --deb| --rpm)?$/, { testedBy: 'test/net/binary.test.ts' }],
  [/^\.\/scripts\/package --arch arm64 --deb --rpm$/, { testedBy: 'test/net/arm64.test.ts' }],
  [/^dist\/microperimeter version$/, { testedBy: 'test/net/binary.test.ts' }],
  [/^dnf install \.\/dist\/microperimeter-\S+\.rpm$/, { testedBy: 'test/net/binary.test.ts' }],
  [/^apt install \.\/dist\/microperimeter_\S+\.deb$/, { testedBy: 'test/net/binary.test.ts' }],
  [
    /^systemctl (enable --now|status|reload) microperimeter$/,
    { testedBy: 'test/packaging/service-unit.test.ts' },
  ],
  [/^systemctl enable microperimeter-guard$/, { testedBy: 'test/packaging/service-unit.test.ts' }],
  [/^microperimeter guard (status|disarm)$/, { testedBy: 'test/net/guard.test.ts' }],
  [
    /^microperimeter check \/etc\/microperimeter\/config\.yaml$/,
    { run: 'check packaging/config.yaml', code: 0 },
  ],
  [/^npm ci\b/, { testedBy: 'scripts/bootstrap.sh' }],
  [/^npm (run (build|check|check:net|format)|test)\b/, { testedBy: 'package.json' }],
  [/^(bin\/)?microperimeter check config\.yaml$/, { run: `check ${config}`, code: 0 }],
  [/^(bin\/)?microperimeter run --config\b/, { testedBy: 'test/net/hairpin.test.ts' }],
  [/^ssh -L 9478:/, { testedBy: 'test/net/page.test.ts' }],
  [/^microperimeter capture --?[cdw]/, { testedBy: 'test/net/capture.test.ts' }],
  [/^microperimeter capture learn \S+$/, { testedBy: 'test/cli/learn.test.ts' }],
  [/^microperimeter doctor\b/, { testedBy: 'test/net/doctor.test.ts' }],
  [/^(bin\/)?microperimeter release$/, { testedBy: 'test/net/failure.test.ts' }],
  [/^microperimeter (apply|confirm|rollback)\b/, { testedBy: 'test/net/lock-out.test.ts' }],
  [/^microperimeter diag\b/, { testedBy: 'test/cli/diag.test.ts' }],
  [/^microperimeter top$/, { testedBy: 'test/cli/top/model.test.ts' }],
  [
    /^microperimeter (configure|enable|rule|dump-config|export-config|import-config)\b/,
    { testedBy: 'test/cli/reference-verbs.test.ts' },
  ],
  [/^microperimeter completion bash\b/, { run: 'completion bash', code: 0 }],
  [/^microperimeter man\b/, { run: 'man', code: 0 }],
  [
    /^microperimeter health_check$/,
    { run: `health_check --socket ${directory}/none.sock`, code: 6 },
  ],
  [/^(bin\/)?microperimeter version$/, { run: 'version', code: 0 }],
  [
    /^(bin\/)?microperimeter (status|stop|reload|flows)\b/,
    { run: `status --socket ${directory}/none.sock`, code: 6 },
  ],
];

t.test('every command in a shell block is known, and works', async (t) => {
  for (const { path, text } of documents) {
    const lines = blocks(text, 'sh').flatMap((block) => block.split('\n'));
    for (const line of lines.map((one) => one.replace(/\s*#.*$/, '').trim())) {
      if (line === '') continue;
      const command = line.replace(/^sudo /, '');
      const how = known.find(([pattern]) => pattern.test(command))?.[1];
      if (how === undefined) t.fail(`${path}: nobody tests "${line}"`);
      else if ('testedBy' in how) t.ok(readFileSync(how.testedBy), `${path}: ${line}`);
      else {
        const { status, stderr } = spawnSync('bin/microperimeter', how.run.split(' '));
        t.equal(status, how.code, `${path}: ${line}: ${stderr}`);
      }
    }
  }
});

t.test('every YAML block is a configuration, or a part of one', async (t) => {
  const base = parse(blocks(readme(), 'yaml').at(-1) ?? '');
  let count = 0;
  for (const { path, text } of documents) {
    for (const block of blocks(text, 'yaml')) {
      const file = join(directory, `${count++}.yaml`);
      writeFileSync(file, stringify({ ...base, ...parse(block) }));
      const { status, stderr } = spawnSync('bin/microperimeter', ['check', file]);
      t.equal(status, 0, `${path}: ${block.slice(0, 40)}… ${stderr}`);
    }
  }
  t.ok(count >= 2);
});

t.test('the exit codes in the document are those of the program', async (t) => {
  const { text } = documents.find(({ path }) => path === 'docs/troubleshooting.md')!;
  const told = [...text.matchAll(/^\| (\d) \| (.*) \|$/gm)].map(
    ([, code, words]) => `${code}  ${words}`,
  );
  const printed = exitCodeHelp.split('\n').map((line) => line.trim());
  t.same(
    told,
    printed.filter((line) => /^\d/.test(line)),
  );
});

t.test('reasons that the documents name exist', async (t) => {
  const { text } = documents.find(({ path }) => path === 'docs/troubleshooting.md')!;
  const table = text.slice(text.indexOf('| counter |'), text.indexOf('## Everything'));
  const named = [...table.matchAll(/^\| `([a-z0-9-]+)`/gm)].map(([, name]) => name!);
  t.ok(named.length >= 5);
  for (const name of named) t.ok(reasonNames.includes(name), name);
});
