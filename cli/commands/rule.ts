/** `microperimeter rule list|append|insert|delete`: the rules of the configuration file. */
import { isMap, parse } from 'yaml';
import { editConfig, listAt } from '../config/edit.ts';
import { readConfigFile } from '../config/file.ts';
import { readText } from '../config/write.ts';
import { ExitCode } from '../exit-codes.ts';
import { formatTable } from '../table.ts';
import { UsageError } from '../usage-error.ts';
import { reloadIfRunning } from './configure.ts';

export type RuleOptions = {
  readonly config: string;
  readonly action: string;
  readonly name?: string;
  readonly direction?: string;
  readonly proto?: string;
  readonly remoteip?: string;
  readonly remoteport?: string;
  readonly localip?: string;
  readonly localport?: string;
};

type Written = Readonly<Record<string, unknown>>;

/** As they are written, sets by name, numbered from 1 as everywhere here. */
export function ruleList({ config, json }: { config: string; json: boolean }): number {
  readConfigFile(config);
  const { default: action = 'redirect', rules } = parse(readText(config)) as {
    default?: string;
    rules?: Written[] | null;
  };
  const all = rules ?? [];
  if (json) {
    process.stdout.write(`${JSON.stringify({ rules: all, default: action }, null, 2)}\n`);
    return ExitCode.Ok;
  }
  const keys = ['name', 'direction', 'protocol', 'remote', 'remotePort', 'local', 'localPort'];
  const cells = (rule: Written) => keys.map((key) => show(rule[key], key));
  const rows = all.map((rule, index) => [String(index + 1), ...cells(rule), show(rule.action, '')]);
  const last = ['', 'default', ...keys.slice(1).map((key) => show(undefined, key)), action];
  process.stdout.write(formatTable(['#', ...keys, 'action'], [...rows, last]));
  return ExitCode.Ok;
}

function show(value: unknown, key: string): string {
  if (Array.isArray(value)) return value.join(',');
  if (value !== undefined && value !== null) return String(value);
  return key === 'direction' ? 'both' : key === 'name' ? '' : 'any';
}

/** @param place where it goes, from 1; undefined: after the others */
export async function ruleAdd(options: RuleOptions, place?: string): Promise<number> {
  const { config } = options;
  const read = editConfig(config, (document) => {
    const list = listAt(document, ['rules']);
    const index = place === undefined ? list.items.length : placeOf(place, list.items.length + 1);
    list.items.splice(index, 0, document.createNode(ruleOf(options), { flow: true }));
  });
  return reloadIfRunning(config, read);
}

export async function ruleDelete(place: string, { config }: { config: string }): Promise<number> {
  const read = editConfig(config, (document) => {
    const list = listAt(document, ['rules']);
    const [gone] = list.items.splice(placeOf(place, list.items.length), 1);
    const name = isMap(gone) ? gone.get('name') : undefined;
    process.stdout.write(`rule ${name ?? `#${place}`} is gone\n`);
  });
  return reloadIfRunning(config, read);
}

function placeOf(text: string, most: number): number {
  const place = Number(text);
  if (Number.isInteger(place) && place >= 1 && place <= most) return place - 1;
  const range = most === 0 ? 'there are no rules' : `rules are numbered from 1 to ${most}`;
  throw new UsageError(`--index ${text}: ${range} (microperimeter rule list)`);
}

function ruleOf(options: RuleOptions): Written {
  const { action, direction, localip, localport, name, proto, remoteip, remoteport } = options;
  const number = (text: string | undefined) =>
    text !== undefined && /^\d+$/.test(text) ? Number(text) : text;
  const list = <T>(text: string | undefined, item: (one: string) => T) => {
    const items = text?.split(',').map((one) => item(one.trim()));
    return items?.length === 1 ? items[0] : items;
  };
  const entries = Object.entries({
    name,
    direction,
    protocol: number(proto),
    remote: list(remoteip, String),
    remotePort: list(remoteport, number),
    local: list(localip, String),
    localPort: list(localport, number),
    action,
  });
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined));
}
