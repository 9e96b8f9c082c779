/**
 * The lab: real packets of a real workload through a firewall and back, on this machine, in network
 * namespaces; a story in steps, each checked on the wire. `sudo ./scripts/lab` makes everything
 * ready and starts this. Exit code 0 only if every step held.
 */
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import Table from 'cli-table3';
import { Command, InvalidArgumentError, Option } from 'commander';
import pc from 'picocolors';
import { agentCommand } from './agent.ts';
import { keepRunDirectory } from './certificates.ts';
import type { Encapsulation, FirewallEvent, FirewallKind } from './firewalls.ts';
import { playHaStory } from './ha-story.ts';
import { selectFlows } from './joined-flows.ts';
import { keepNamespaces, removeStaleNamespaces } from './namespace.ts';
import { type Stage, setStage } from './stage.ts';
import type { StepListener, StepResult } from './step.ts';
import { playStory } from './story.ts';
import { countTraffic, createLive, createView, type Live, type View } from './view.ts';

type Options = {
  readonly scenario: 'agent' | 'ha';
  readonly json: boolean;
  readonly keep: boolean;
  readonly firewall: FirewallKind;
  readonly encapsulation?: Encapsulation;
  readonly duration: number;
};

const refreshEveryMs = 250;
/** Between two looks at the agent's counters: short enough to be live, long enough for a rate. */
const statusEveryMs = 500;
const longestSeconds = 3600;

function readOptions(): Options {
  return new Command('lab')
    .description('Shows the agent at work between namespaces of this machine. Needs root.')
    .addOption(
      new Option('--scenario <name>', 'one firewall and the agent, or two firewalls that fail')
        .choices(['agent', 'ha'])
        .default('agent'),
    )
    .option('--json', 'print the result as JSON and nothing else', false)
    .option('--keep', 'leave the namespaces up and say how to look around in them', false)
    .addOption(
      new Option('--firewall <kind>', "our stand-in, the kernel's VXLAN device, or Suricata")
        .choices(['builtin', 'vxlan', 'suricata'])
        .default('builtin'),
    )
    .addOption(
      new Option('--encapsulation <kind>', 'default: geneve; vxlan unless builtin').choices([
        'geneve',
        'gwlb',
        'gcp',
        'vxlan',
      ]),
    )
    .option('--duration <seconds>', 'of bulk TCP through the firewall, each way', readSeconds, 4)
    .parse()
    .opts<Options>();
}

function readSeconds(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= longestSeconds) return value;
  throw new InvalidArgumentError(`A whole number from 1 to ${longestSeconds} is expected.`);
}

async function main(): Promise<number> {
  const options = readOptions();
  const isVxlan = options.firewall !== 'builtin';
  const encapsulation = options.encapsulation ?? (isVxlan ? 'vxlan' : 'geneve');
  if (isVxlan && encapsulation !== 'vxlan') {
    const who = options.firewall;
    console.error(`The ${who} firewall speaks VXLAN only: leave out --encapsulation.`);
    return 2;
  }
  if (process.getuid?.() !== 0) {
    console.error('Root is needed for network namespaces: run sudo ./scripts/lab.');
    return 3;
  }
  removeStaleNamespaces();
  const live = createLive(options.firewall, encapsulation);
  const shown = process.stdout.isTTY === true ? 'terminal' : 'lines';
  const view = createView(live, options.json ? 'silent' : shown);
  const onFirewallEvent = (event: FirewallEvent) => noteFirewall(live, view, event);
  if (options.scenario === 'ha') return await showHa(live, view, options.json);
  view.begin(live.stepTitle);
  const stage = await setStage({ firewall: options.firewall, encapsulation, onFirewallEvent });
  const watching = watchAgent(stage, live, view);
  const results = await play(stage, live, view, options.duration);
  clearInterval(watching.drawing);
  clearInterval(watching.asking);
  live.stepTitle = '';
  view.finish();
  if (options.json) console.log(JSON.stringify(toJson(stage, live, results), null, 2));
  else printResults(live, results);
  if (options.keep) keep(stage, options.json);
  return results.every((result) => result.verdict === 'held') ? 0 : 1;
}

/** Two firewalls of our own, by geneve, whatever else was chosen. */
async function showHa(live: Live, view: View, isJson: boolean): Promise<number> {
  const drawing = setInterval(() => view.refresh(), refreshEveryMs);
  const steps = await playHaStory(shownBy(live, view));
  clearInterval(drawing);
  live.stepTitle = '';
  view.finish();
  const held = steps.every(({ verdict }) => verdict === 'held');
  if (isJson) console.log(JSON.stringify({ held, scenario: 'ha', steps }, null, 2));
  else printResults(live, steps);
  return held ? 0 : 1;
}

/** The view and the live picture follow the steps. */
function shownBy(live: Live, view: View): StepListener {
  return {
    onStep: (title) => {
      live.stepTitle = title;
      live.stepStartedAt = performance.now();
      view.begin(title);
    },
    onResult: (result) => {
      live.results.push(result);
      view.end(result);
    },
  };
}

function play(
  stage: Stage,
  live: Live,
  view: View,
  durationSeconds: number,
): Promise<StepResult[]> {
  return playStory(stage, {
    durationSeconds,
    ...shownBy(live, view),
    onFlows: (flows) => live.flows.push(...flows),
    onThroughput: (bits, words) => {
      live.throughput = words === '' ? '' : `${(bits / 1e9).toFixed(2)} Gbit/s ${words}`;
    },
  });
}

function noteFirewall(live: Live, view: View, event: FirewallEvent): void {
  if (event.event === 'counters') live.firewallCounters = event;
  if (event.event !== 'allowed' && event.event !== 'blocked') return;
  live.verdicts.push(event);
  view.verdict(event);
}

/** Keeps the live picture up to date; both timers are the caller's to clear. */
function watchAgent(
  stage: Stage,
  live: Live,
  view: View,
): { drawing: NodeJS.Timeout; asking: NodeJS.Timeout } {
  let askedAt = performance.now();
  const ask = async () => {
    const before = live.status;
    const now = await stage.agent?.status();
    const seconds = Math.max(0.001, (performance.now() - askedAt) / 1000);
    askedAt = performance.now();
    live.status = now;
    if (now !== undefined) live.traffic = countTraffic(before, now, seconds);
  };
  const drawing = setInterval(() => {
    const lost = stage.pulses.all.filter((pulse) => !pulse.ok).length;
    live.requests = { answered: stage.pulses.all.length - lost, lost };
    view.refresh();
  }, refreshEveryMs);
  return { drawing, asking: setInterval(() => void ask(), statusEveryMs) };
}

function toJson(stage: Stage, live: Live, steps: readonly StepResult[]): object {
  return {
    held: steps.every((step) => step.verdict === 'held'),
    firewall: live.firewall,
    encapsulation: live.encapsulation,
    steps,
    requests: live.requests,
    traffic: live.traffic,
    firewallCounters: stage.firewall.counters ?? null,
    blocked: live.verdicts.filter((event) => event.event === 'blocked'),
    connections: live.flows,
  };
}

function createTable(head: readonly string[], options: Table.TableConstructorOptions = {}) {
  const lines = { top: '', bottom: '', left: '', right: '', mid: '', middle: ' ' };
  const corners = { 'top-mid': '', 'top-left': '', 'top-right': '', 'bottom-mid': '' };
  const ends = { 'bottom-left': '', 'bottom-right': '', 'left-mid': '', 'right-mid': '' };
  return new Table({
    head: head.map((word) => pc.bold(word)),
    chars: { ...lines, ...corners, ...ends, 'mid-mid': '' },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 1 },
    ...options,
  });
}

/** Connections as both sides counted them, with what the firewall said of them. */
function printFlows(live: Live): void {
  const head = ['opened by', 'to', 'about', 'agent out/in', 'firewall out/in', 'firewall says'];
  const table = createTable(head);
  for (const { about, agent, reason, source, target, toClient, toServer } of selectFlows(
    live.flows,
  )) {
    const verdict = reason === '' ? pc.green('allowed') : pc.red(`blocked: ${reason}`);
    const counts = [`${agent.toServer} / ${agent.toClient}`, `${toServer} / ${toClient}`];
    table.push([source, target, about, ...counts, verdict]);
  }
  console.log(`\n${table.toString()}`);
}

function printResults(live: Live, results: readonly StepResult[]): void {
  const table = createTable(['step', 'expected', 'seen', 'time'], {
    wordWrap: true,
    colWidths: columnWidths(process.stdout.columns ?? 130),
  });
  for (const result of results) table.push(...resultRows(result));
  console.log(table.toString());
  if (live.flows.length > 0) printFlows(live);
  const held = results.filter((result) => result.verdict === 'held').length;
  const setting = `${live.firewall} firewall, ${live.encapsulation}`;
  const words = `\n${held} of ${results.length} steps held (${setting})`;
  console.log(held === results.length ? pc.green(words) : pc.red(words));
}

/** The step and its verdict, then a line for each check. */
function resultRows({ title, checks, verdict, durationMs }: StepResult): string[][] {
  const colours = { held: pc.green, failed: pc.red, skipped: pc.yellow };
  const time = `${(durationMs / 1000).toFixed(1)} s`;
  const rows = checks.map((check) => {
    const mark = check.holds ? pc.green('✓') : pc.red('✗');
    return ['', `${mark} ${check.expected}`, check.seen, ''];
  });
  return [['', '', '', ''], [pc.bold(title), colours[verdict](verdict), '', time], ...rows];
}

/** Of step, expected, seen, time: the width of the terminal, within reason. */
function columnWidths(width: number): number[] {
  const [step, time] = [33, 8];
  const rest = Math.max(50, Math.min(width, 160) - step - time - 3);
  return [step, Math.ceil(rest * 0.55), Math.floor(rest * 0.45), time];
}

function keep(stage: Stage, quietly: boolean): void {
  const { workload, router, transit, firewall, server } = stage.topology;
  keepNamespaces();
  keepRunDirectory(stage.directory);
  if (quietly) return;
  const inside = (path: string, command: string) => `  nsenter --net=${path} ${command}`;
  const hosts = [workload, router, transit, firewall, server];
  const firewallCommand = stage.firewall.program.child.spawnargs.join(' ');
  const agent = `${agentCommand} run --config ${join(stage.directory, 'agent.yaml')}`;
  console.log(
    [
      '',
      pc.bold('The hosts stay; the programs in them have ended.'),
      inside(workload.path, 'bash'),
      inside(firewall.path, 'tcpdump -ni eth0'),
      `  ${firewallCommand}`,
      inside(workload.path, agent),
      `  tshark -r ${join(stage.directory, 'redirect-firewall.pcap')}    # what the firewall saw`,
      'The next run removes them; so does:',
      `  for name in ${hosts.map((host) => host.name).join(' ')}; do ip netns del $name; done`,
      `  rm -r ${stage.directory}`,
    ].join('\n'),
  );
}

main().then(
  (code) => process.exit(code),
  (error: Error) => {
    const words = process.env.DEBUG === undefined ? error.message : error.stack;
    console.error(stripVTControlCharacters(words ?? ''));
    process.exit(1);
  },
);
