/** The recipes in packaging/: linted by others' programs, and true to what the agent is. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DaemonSet } from 'kubernetes-models/apps/v1/DaemonSet';
import { ConfigMap } from 'kubernetes-models/v1/ConfigMap';
import { Namespace } from 'kubernetes-models/v1/Namespace';
import t from 'tap';
import { parse, parseAllDocuments, stringify } from 'yaml';
import { readConfig } from '../../cli/config/parse.ts';

const directory = mkdtempSync(join(tmpdir(), 'mp-recipes-'));
t.teardown(() => rmSync(directory, { recursive: true }));

const unit = readFileSync('packaging/systemd/microperimeter.service', 'utf8');
const capabilities = /^CapabilityBoundingSet=(.*)$/m.exec(unit)![1]!.replaceAll('CAP_', '');

function run(command: string, args: readonly string[], cwd = '.') {
  return spawnSync(command, args, { encoding: 'utf8', cwd });
}

/** A lint that is not installed finds nothing; continuous integration installs them. */
function lint(command: string, args: readonly string[], cwd = '.'): string {
  const { error, status, stderr, stdout } = run(command, args, cwd);
  if (error !== undefined && process.env.CI === undefined) return '';
  return status === 0 ? '' : `${error?.message ?? ''}${stdout}${stderr}`;
}

t.test('yamllint and ansible-lint find nothing', async (t) => {
  const folders = ['kubernetes', 'cloud-init', 'ansible', 'observability'];
  const files = folders.map((name) => `packaging/${name}`);
  t.equal(lint('yamllint', ['-s', '-c', 'packaging/.yamllint', ...files]), '');
  const ansible = 'packaging/ansible';
  t.equal(lint('ansible-lint', ['--offline', '-q', 'site.yml', 'roles'], ansible), '');
  t.equal(lint('ansible-playbook', ['--syntax-check', '-i', 'host,', 'site.yml'], ansible), '');
});

t.test('the manifests are what Kubernetes takes, and what the unit allows', async (t) => {
  const text = readFileSync('packaging/kubernetes/daemonset.yaml', 'utf8');
  const documents = parseAllDocuments(text).map((document) => document.toJS());
  const [namespace, config, daemon] = documents;
  new Namespace(namespace).validate();
  new ConfigMap(config).validate();
  new DaemonSet(daemon).validate();
  const bad = structuredClone(daemon);
  bad.spec.template.spec.hostNetwork = 'yes';
  t.throws(() => new DaemonSet(bad).validate(), /hostNetwork must be boolean/);
  t.same(readConfig(config.data['config.yaml'], 'config.yaml').warnings, []);
  const { spec } = daemon.spec.template;
  const [agent] = spec.containers;
  t.same(agent.securityContext.capabilities.add.sort(), capabilities.split(' ').sort());
  t.equal(spec.hostNetwork, true);
  const mounted = agent.volumeMounts.map(({ name }: { name: string }) => name);
  t.same(
    mounted,
    spec.volumes.map(({ name }: { name: string }) => name),
    'each volume is used',
  );
});

t.test('configurations that recipes write are good', async (t) => {
  const cloud = parse(readFileSync('packaging/cloud-init/user-data.yaml', 'utf8'));
  type File = { path: string; content: string };
  const files = cloud.write_files as File[];
  const written = files.find(({ path }) => path === '/etc/microperimeter/config.yaml')!;
  t.same(readConfig(written.content, 'user-data.yaml').warnings, []);
  const role = 'packaging/ansible/roles/microperimeter';
  const defaults = parse(readFileSync(`${role}/defaults/main.yml`, 'utf8'));
  t.same(readConfig(stringify(defaults.microperimeter_config), 'defaults').warnings, []);
  const used = `${readFileSync(`${role}/tasks/main.yml`)}${readFileSync(`${role}/templates/config.yaml.j2`)}`;
  for (const name of Object.keys(defaults)) t.match(used, name, 'each variable is used');
});

t.test('cloud-init takes its file, where there is one', async (t) => {
  // Not installed for a test: it would set up the host anew at its next boot.
  const file = 'packaging/cloud-init/user-data.yaml';
  t.match(readFileSync(file, 'utf8'), /^#cloud-config\n/);
  const { error, status, stderr } = run('cloud-init', ['schema', '--config-file', file]);
  if (error !== undefined) return t.comment('there is no cloud-init here');
  t.equal(status, 0, stderr);
});

t.test('Ansible writes the configuration that its variables say', async (t) => {
  const play = join(directory, 'play.yml');
  const target = join(directory, 'config.yaml');
  const role = join(process.cwd(), 'packaging/ansible/roles/microperimeter');
  writeFileSync(
    play,
    stringify([
      {
        hosts: 'localhost',
        connection: 'local',
        gather_facts: false,
        vars_files: [`${role}/defaults/main.yml`],
        tasks: [{ template: { src: `${role}/templates/config.yaml.j2`, dest: target } }],
      },
    ]),
  );
  const { error, status, stdout } = run('ansible-playbook', ['-i', 'localhost,', play]);
  if (error !== undefined && process.env.CI === undefined) return t.comment('no Ansible here');
  t.equal(status, 0, stdout);
  const { config } = readConfig(readFileSync(target, 'utf8'), target);
  t.equal(config.firewalls[0]?.name, 'fw-a');
});
