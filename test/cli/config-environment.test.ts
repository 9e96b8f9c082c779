import { readFileSync } from 'node:fs';
import t from 'tap';
import { overridesOf } from '../../cli/config/environment.ts';
import { ConfigError, formatProblem, readConfig } from '../../cli/config/parse.ts';
import { file } from './config-file.ts';

const read = (environment: Record<string, string>, text = file()) =>
  readConfig(text, 'f', overridesOf({ HOME: '/root', MICROPERIMETER_FULL: '1', ...environment }));

function problems(environment: Record<string, string>): string[] {
  try {
    read(environment);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems.map((problem) => formatProblem('f', problem));
  }
}

t.test('keys of the environment override those of the file, and are told', async (t) => {
  const { config, warnings } = read({
    MICROPERIMETER__POLICY__ON_TELEMETRY_LOSS: 'drop',
    MICROPERIMETER__FIREWALLS__0__ADDRESS: '10.9.0.5',
    MICROPERIMETER__FIREWALLS__0__TELEMETRY__URL: 'https://10.9.0.5/v1/metrics',
    MICROPERIMETER__WORKLOAD__INTERFACES: '[eth0, eth1]',
    MICROPERIMETER__RULES__0: '{ remotePort: [443], action: pass }',
    MICROPERIMETER__WORKLOAD__IPV6: 'drop',
  });
  t.equal(config.policy.onTelemetryLoss, 'drop');
  t.equal(config.firewalls[0]?.address, 0x0a090005);
  t.same(config.workload.interfaces, ['eth0', 'eth1']);
  t.equal(config.workload.ipv6, 'drop');
  t.equal(config.rules.length, 1);
  t.equal(warnings.length, 6);
  t.match(
    formatProblem('f', warnings[0]!),
    /^f: firewalls\[0\].address: taken from MICROPERIMETER__FIREWALLS__0__ADDRESS, not/,
  );
});

t.test('without them nothing is told', async (t) => t.same(read({}).warnings, []));

t.test('every key of the schema has a variable', async (t) => {
  const names = new Set<string>();
  JSON.parse(readFileSync('schema/microperimeter.schema.json', 'utf8'), (name, value) => {
    if (name === 'properties') for (const key of Object.keys(value)) names.add(key);
    return value;
  });
  t.ok(names.size > 80, `${names.size} keys`);
  for (const name of names) {
    const variable = name.replace(/[A-Z]/g, '_$&').toUpperCase();
    t.same(overridesOf({ [`MICROPERIMETER__${variable}`]: '1' })[0]?.path, [name]);
  }
});

t.test('what is wrong is told with the name of the variable', async (t) => {
  const rows: [variable: string, value: string, problem: RegExp][] = [
    ['POLICY__MODE', 'watch', /^f: policy.mode: .*\(from MICROPERIMETER__POLICY__MODE\)$/],
    ['POLICY__MODUS', 'good', /^f: policy.modus: unknown key: .* \(from MICRO/],
    ['POLICY', '[', /^f: MICROPERIMETER__POLICY: is not YAML: /],
    ['POLICY__', 'x', /^f: MICROPERIMETER__POLICY__: a key is missing/],
    ['FIREWALLS__2__ADDRESS', '10.9.0.5', /there are only 1 in the list/],
    ['FIREWALLS__ADDRESS', '10.9.0.5', /a list wants a number/],
    ['POLICY__0', 'x', /^f: policy: must be a block of keys \(from MICROPERIMETER__POLICY__0\)/],
    ['VERSION__MINOR', '2', /VERSION__MINOR: something else than a block is there/],
    ['POLICY__MODE', '*nothing', /POLICY__MODE: is not YAML: /],
    ['RULES', '[&a {}, *a]', /RULES: is not YAML: /],
  ];
  for (const [variable, value, problem] of rows) {
    const [first, ...others] = problems({ [`MICROPERIMETER__${variable}`]: value });
    t.match(first, problem, variable);
    t.same(others, [], variable);
  }
});
