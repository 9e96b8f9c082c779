/** Who may import whom (docs/architecture.md says why). Type imports count. */
import type { Import, Source } from './source.ts';

interface Layer {
  /** Files and folders (with a slash at the end) beside its own. */
  files: readonly string[];
  /** Node's modules: a list, or all of them. */
  node: readonly string[] | 'all';
  /** Packages: a list, or all of them (but see `reserved`). */
  packages: readonly string[] | 'all';
}

const product = ['parsers/', 'tunnel/', 'engine/', 'linux/', 'control/'];

export const layers: Readonly<Record<string, Layer>> = {
  parsers: { files: [], node: [], packages: [] },
  tunnel: { files: ['parsers/'], node: [], packages: [] },
  engine: { files: ['parsers/', 'tunnel/'], node: ['node:worker_threads'], packages: [] },
  linux: {
    files: ['engine/io.ts', 'engine/arena.ts', 'parsers/reason.ts', 'tunnel/pieces.ts'],
    node: 'all',
    packages: [],
  },
  control: { files: ['engine/', 'parsers/'], node: 'all', packages: 'all' },
  cli: { files: product, node: 'all', packages: 'all' },
  // A judge must not share the mistakes of what it judges.
  lab: { files: ['linux/'], node: 'all', packages: 'all' },
  // Benches measure what tests generate.
  bench: { files: [...product, 'lab/', 'scripts/', 'test/model/'], node: 'all', packages: 'all' },
  // What it builds with is in its own node_modules, and loaded from there.
  packaging: { files: [], node: 'all', packages: [] },
  scripts: { files: [], node: 'all', packages: [] },
  test: { files: [...product, 'cli/', 'lab/', 'bench/', 'scripts/'], node: 'all', packages: 'all' },
};

/** Files that may import more than their folder may. */
const exceptions: Readonly<Record<string, Partial<Layer>>> = {
  'engine/telemetry.worker.ts': { node: 'all', packages: 'all' },
  // Its parts: the request, its body, and the probe beside it.
  'engine/telemetry-client.ts': { node: 'all' },
  'engine/endpoint-probe.ts': { node: 'all' },
  'engine/telemetry-report.ts': { packages: 'all' },
  'scripts/tap.ts': { packages: ['tap-parser'] },
  'linux/syscall.ts': { packages: ['koffi'] },
};

/** Packages that one file alone may import. */
const reserved: Readonly<Record<string, string>> = { koffi: 'linux/syscall.ts' };

export const folders: readonly string[] = Object.keys(layers);

function folderOf(path: string): string {
  return path.slice(0, path.indexOf('/'));
}

/** Why the import is not allowed; undefined when it is. */
export function forbidden(source: Source, { specifier, target }: Import): string | undefined {
  const folder = folderOf(source.path);
  const layer = layers[folder];
  if (!layer) return `scripts/layers.ts has no folder ${folder}; add it there`;
  const exception = exceptions[source.path];
  if (target !== undefined) {
    const files = [`${folder}/`, ...(exception?.files ?? layer.files)];
    if (files.some((file) => target === file || (file.endsWith('/') && target.startsWith(file)))) {
      return undefined;
    }
    return `${folder} may not import ${target}; it may import ${files.join(', ')}`;
  }
  const isNode = specifier.startsWith('node:');
  const allowed = isNode
    ? (exception?.node ?? layer.node)
    : (exception?.packages ?? layer.packages);
  const name = isNode ? specifier : packageOf(specifier);
  const only = reserved[name];
  if (only !== undefined && only !== source.path) return `only ${only} may import ${name}`;
  if (allowed === 'all' || allowed.includes(name)) return undefined;
  const kind = isNode ? "Node's modules" : 'packages';
  const others = allowed.length > 0 ? allowed.join(', ') : `no ${kind}`;
  return `${folder} may not import ${name}; it may import ${others}`;
}

function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}
