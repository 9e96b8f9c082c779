/** `microperimeter top`: the running agent live, in a terminal. */
import { hostname } from 'node:os';
import { render, useApp, useInput } from 'ink';
import { createElement as h, type ReactElement, useEffect, useState } from 'react';
import { request } from '../../control/client.ts';
import type { FlowRow } from '../../control/flows.ts';
import { ExitCode } from '../exit-codes.ts';
import { isComplete, readStatus } from '../status-of-agent.ts';
import { AlertFile } from '../top/alerts.ts';
import { type Reading, sortKeys, TopModel } from '../top/model.ts';
import { type Size, type TopSettings, TopView } from '../top/view.ts';
import { UsageError } from '../usage-error.ts';

/** Of which the first by rate are shown; more would cost the agent time. */
const askedFlows = 1000;
const enterScreen = '\u001b[?1049h\u001b[2J\u001b[H';
const leaveScreen = '\u001b[?1049l';
const clearScreen = '\u001b[2J\u001b[H';
/** Terminals that know it show what is between at once; others do not heed it. */
const beginFrame = '\u001b[?2026h';
const endFrame = '\u001b[?2026l';

type Options = {
  readonly socket: string;
  readonly interval: string;
  /** File of alerts to follow. */
  readonly alerts?: string;
};

/** Until its user quits. Throws a ControlError when there is no agent at the beginning. */
export async function top(options: Options): Promise<number> {
  const intervalMs = Number(options.interval) * 1000;
  if (!(intervalMs >= 100 && intervalMs <= 60_000)) {
    throw new UsageError(
      `--interval is a number of seconds from 0.1 to 60, not ${options.interval}`,
    );
  }
  if (!process.stdout.isTTY || !process.stdin.isTTY) {
    throw new UsageError('top needs a terminal; status --json and flows --json do not');
  }
  const alerts = options.alerts === undefined ? undefined : openAlerts(options.alerts);
  await readStatus(options.socket);
  process.stdout.write(enterScreen);
  try {
    const read = () => readAgent(options.socket, alerts);
    const app = render(h(Top, { read, intervalMs, host: hostname() }), { stdout: wholeFrames() });
    await app.waitUntilExit();
  } finally {
    process.stdout.write(leaveScreen);
    alerts?.close();
  }
  return ExitCode.Ok;
}

/** Standard output, each picture written as one. */
function wholeFrames(): NodeJS.WriteStream {
  const write = (text: string) => process.stdout.write(`${beginFrame}${text}${endFrame}`);
  return new Proxy(process.stdout, {
    get(target, name) {
      if (name === 'write') return write;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

function openAlerts(file: string): AlertFile {
  try {
    return new AlertFile(file);
  } catch (error) {
    throw new UsageError(`${file} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
}

async function readAgent(socket: string, alerts: AlertFile | undefined): Promise<Reading> {
  alerts?.look();
  const status = await readStatus(socket);
  if (!isComplete(status)) throw new Error('the agent is not up yet');
  const answer = await request(socket, 'GET', `/flows?sort=bytes&limit=${askedFlows}`);
  const { flows, matching } = answer.body as { matching: number; flows: FlowRow[] };
  const alertOf = alerts && ((flow: FlowRow) => alerts.of(flow));
  return { nowMs: performance.now(), status, flows, matching, alertOf };
}

export type TopProps = {
  readonly read: () => Promise<Reading>;
  readonly intervalMs: number;
  readonly host: string;
};

export function Top({ host, intervalMs, read }: TopProps): ReactElement {
  const { exit } = useApp();
  const [model] = useState(() => new TopModel());
  const [, draw] = useState(0);
  const size = useSize();
  const [settings, setSettings] = useState<TopSettings>({
    sort: 'rate',
    filter: '',
    typing: false,
    paused: false,
    help: false,
    host,
    problem: '',
  });
  const { paused } = settings;
  useEffect(() => {
    if (paused) return;
    let left = false;
    const look = async () => {
      let problem = '';
      try {
        model.take(await read());
      } catch (error) {
        problem = error instanceof Error ? error.message : String(error);
      }
      if (left) return;
      setSettings((old) => (old.problem === problem ? old : { ...old, problem }));
      draw((count) => count + 1);
      timer = setTimeout(look, intervalMs);
    };
    let timer = setTimeout(look, 0);
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [paused, intervalMs, model, read]);
  useInput((input, key) => {
    if (!settings.typing && input === 'q') exit();
    setSettings((old) => press(old, input, key));
  });
  return h(TopView, { model, settings, size });
}

type Key = {
  readonly escape: boolean;
  readonly return: boolean;
  readonly backspace: boolean;
  readonly delete: boolean;
  readonly ctrl: boolean;
  readonly meta: boolean;
};

/** What a key makes of the settings. */
function press(old: TopSettings, input: string, key: Key): TopSettings {
  if (old.typing) {
    if (key.return) return { ...old, typing: false };
    if (key.escape) return { ...old, typing: false, filter: '' };
    if (key.backspace || key.delete) return { ...old, filter: old.filter.slice(0, -1) };
    return key.ctrl || key.meta ? old : { ...old, filter: old.filter + input };
  }
  if (key.escape) return { ...old, filter: '', help: false };
  switch (input) {
    case 's':
      return { ...old, sort: sortKeys[(sortKeys.indexOf(old.sort) + 1) % sortKeys.length]! };
    case '/':
      return { ...old, typing: true, filter: '' };
    case 'p':
    case ' ':
      return { ...old, paused: !old.paused };
    case 'h':
    case '?':
      return { ...old, help: !old.help };
    default:
      return old;
  }
}

/** The terminal's, now. */
function useSize(): Size {
  const { stdout } = process;
  const read = () => ({ columns: stdout.columns ?? 80, rows: stdout.rows ?? 24 });
  const [size, setSize] = useState(read);
  useEffect(() => {
    const onResize = () => {
      stdout.write(clearScreen);
      setSize(read());
    };
    stdout.on('resize', onResize);
    return () => {
      stdout.off('resize', onResize);
    };
  });
  return size;
}
