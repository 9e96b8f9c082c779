/**
 * The rules of this repository that a program can check and biome does not: `node
 * dist/scripts/tidy.js` prints what breaks them, one line each, and exits with 1.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { folders, forbidden } from './layers.ts';
import { lineAt, readSource, type Source } from './source.ts';

const fileLinesMax = 400;
const lineLengthMax = 100;

/** What a bundle has in the place of other files: their names are those files'. */
const embedded = /^packaging\/embedded\//;

/** Where programs start: nobody imports them. What a shell file or package.json names is one. */
const entries: readonly RegExp[] = [
  /^cli\/main\.ts$/,
  /\.worker\.ts$/,
  /\.test\.ts$/,
  /\.bench\.ts$/,
  /\.d\.ts$/,
  embedded,
  // Programs that tests start in a namespace.
  /^test\/vm\/(journey|verifier)\.ts$/,
  /^test\/net\/(cap-watcher|raw-sender|segment-sender|steering-agent|tcx-intruder)\.ts$/,
  /^scripts\/(test|tidy|abi-golden|terminal-picture)\.ts$/,
];

const reasonFile = 'parsers/reason.ts';

export interface Finding {
  rule: string;
  path: string;
  line: number;
  /** What is wrong and what to do. */
  text: string;
}

/** The repository's text files by path from its root. */
export type Tree = ReadonlyMap<string, string>;

export function tidy(tree: Tree): Finding[] {
  const sources = [...tree]
    .filter(([path]) => path.endsWith('.ts'))
    .map(([path, text]) => readSource(path, text));
  return [
    ...sources.flatMap(layering),
    ...[...tree].flatMap(([path, text]) => sizes(path, text)),
    ...sources.flatMap(markers),
    ...sources.flatMap(exportsByDefault),
    ...sources.flatMap(codeInComments),
    ...deadFiles(sources, tree),
    ...unusedExports(sources),
    ...unusedReasons(sources),
    ...namesInDocuments(tree),
  ];
}

function layering(source: Source): Finding[] {
  return source.imports.flatMap((imported) => {
    const text = forbidden(source, imported);
    return text ? [{ rule: 'layer', path: source.path, line: imported.line, text }] : [];
  });
}

function sizes(path: string, text: string): Finding[] {
  if (path.endsWith('.md') || path.endsWith('.json')) return [];
  const lines = text.replace(/\n$/, '').split('\n');
  const findings: Finding[] = [];
  if (lines.length > fileLinesMax) {
    const advice = `${lines.length} lines; split by protocol or by step below ${fileLinesMax}`;
    findings.push({ rule: 'file-size', path, line: fileLinesMax + 1, text: advice });
  }
  lines.forEach((line, index) => {
    // The formatter breaks code; what it leaves long is one piece of text, better found whole.
    const isFormatted = path.endsWith('.ts') && !/^\s*(\/\/|\/?\*)/.test(line);
    if (line.length <= lineLengthMax || isFormatted) return;
    const advice = `${line.length} characters; break the line at ${lineLengthMax}`;
    findings.push({ rule: 'line-length', path, line: index + 1, text: advice });
  });
  return findings;
}

function markers({ path, code, comments }: Source): Finding[] {
  const leftOver = [...comments.matchAll(/\b(TODO|FIXME|XXX)\b/g)].map((found) => ({
    rule: 'marker',
    path,
    line: lineAt(comments, found.index),
    text: `${found[1]} in a comment; do it, or write down the fact without the word`,
  }));
  if (!/^(parsers|tunnel|engine)\//.test(path)) return leftOver;
  const prints = [...code.matchAll(/\bconsole\s*\./g)].map((found) => ({
    rule: 'console',
    path,
    line: lineAt(code, found.index),
    text: 'the packet path does not print; count it under a reason, or leave it to cli',
  }));
  return [...leftOver, ...prints];
}

function exportsByDefault({ path, exports }: Source): Finding[] {
  // What others export is theirs.
  if (path.endsWith('.d.ts')) return [];
  return exports
    .filter(({ name }) => name === 'default')
    .map(({ line }) => ({
      rule: 'default-export',
      path,
      line,
      text: 'a default export has no name to search for; export it by name',
    }));
}

/** A line comment that is a whole statement. Sentences end otherwise. */
const statement =
  /\/\/ *(?:(?:const|let|import|export|return|await|if|for)\b.*[;{]|\}[;,)]*|[\w$.]+\(.*\);)$/gm;

function codeInComments({ path, comments }: Source): Finding[] {
  return [...comments.matchAll(statement)].map((found) => ({
    rule: 'commented-out',
    path,
    line: lineAt(comments, found.index),
    text: 'commented-out code; delete it, git keeps it',
  }));
}

function deadFiles(sources: readonly Source[], tree: Tree): Finding[] {
  const imported = new Set(sources.flatMap(({ imports }) => imports.map(({ target }) => target)));
  const commands = [...tree].filter(([path]) => !/\.(ts|md)$/.test(path)).map(([, text]) => text);
  const isEntry = (path: string) =>
    entries.some((entry) => entry.test(path)) ||
    commands.some((text) => text.includes(`dist/${path.replace(/\.ts$/, '.js')}`));
  return sources
    .filter(({ path }) => !imported.has(path) && !isEntry(path))
    .map(({ path }) => ({
      rule: 'dead-file',
      path,
      line: 1,
      text: 'nobody imports it; delete it, or name it in `entries` of scripts/tidy.ts',
    }));
}

function unusedExports(sources: readonly Source[]): Finding[] {
  const used = new Set<string>();
  for (const { imports } of sources) {
    for (const { target, names } of imports) {
      for (const name of names) used.add(`${target} ${name}`);
    }
  }
  // A type that its own file uses is the shape of something that others do import.
  const isUsedInside = (code: string, name: string) =>
    code.split(new RegExp(`\\b${name}\\b`)).length > 2;
  return sources.flatMap(({ path, code, exports }) =>
    used.has(`${path} *`) || path.endsWith('.d.ts') || embedded.test(path)
      ? []
      : exports
          .filter(({ name }) => !used.has(`${path} ${name}`))
          .filter(({ name, isType }) => !(isType && isUsedInside(code, name)))
          .map(({ name, line }) => ({
            rule: 'unused-export',
            path,
            line,
            text: `${name} is imported nowhere; drop \`export\`, or the whole thing`,
          })),
  );
}

function unusedReasons(sources: readonly Source[]): Finding[] {
  const table = sources.find(({ path }) => path === reasonFile);
  if (!table) return [];
  const elsewhere = sources.filter(
    ({ path }) => path !== reasonFile && !/^(test|bench|scripts)\//.test(path),
  );
  const used = new Set(
    elsewhere.flatMap(({ code }) => [...code.matchAll(/\bReason\.(\w+)/g)].map(([, name]) => name)),
  );
  return [...table.code.matchAll(/^ {2}([A-Z]\w*): \[/gm)]
    .filter(([, name]) => !used.has(name))
    .map((found) => ({
      rule: 'unused-reason',
      path: reasonFile,
      line: lineAt(table.code, found.index),
      text: `no packet ends as ${found[1]}; use it or delete its row`,
    }));
}

function namesInDocuments(tree: Tree): Finding[] {
  const name = new RegExp(`(?<![\\w/.<>-])(?:${folders.join('|')})/[\\w/.-]+\\.ts\\b`, 'g');
  return [...tree]
    .filter(([path]) => path.endsWith('.md'))
    .flatMap(([path, text]) =>
      [...text.matchAll(name)]
        .filter(([file]) => !tree.has(file))
        .map((found) => ({
          rule: 'document-name',
          path,
          line: lineAt(text, found.index),
          text: `there is no ${found[0]}; name the file that took its place`,
        })),
    );
}

/** Everything the rules look at: sources, shell files, documents, package.json. */
export function readTree(root: string): Tree {
  const paths = [
    ...folders.flatMap((folder) => filesUnder(root, folder)),
    ...filesUnder(root, 'docs'),
    ...filesUnder(root, 'bin'),
    ...['README.md', 'CONTRIBUTING.md', 'package.json', '.ci/run'],
  ].filter((path) => /\.(ts|md|sh)$|^package\.json$|^[^.]*$|^\.ci\//.test(path));
  const tree = new Map<string, string>();
  for (const path of paths.sort()) {
    try {
      tree.set(path, readFileSync(resolve(root, path), 'utf8'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return tree;
}

function filesUnder(root: string, folder: string): string[] {
  try {
    return readdirSync(resolve(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => resolve(entry.parentPath, entry.name).slice(resolve(root).length + 1))
      .filter((path) => !path.includes('/node_modules/'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function main(): void {
  for (const { rule, path, line, text } of tidy(readTree(process.cwd()))) {
    console.log(`${path}:${line}: ${text} [${rule}]`);
    process.exitCode = 1;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
