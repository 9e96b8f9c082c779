/**
 * `microperimeter run`: the agent in the foreground, until it is told to stop or ends by itself.
 */
import { resolve } from 'node:path';
import { type MetricsServer, startMetricsServer } from '../../control/metrics.ts';
import { type ControlServer, startControlServer } from '../../control/server.ts';
import type { Settings } from '../../engine/config.ts';
import type { Agent } from '../agent.ts';
import { assemble } from '../assemble.ts';
import { compileInThread } from '../compile-thread.ts';
import { formatException } from '../config/text.ts';
import { ExitCode } from '../exit-codes.ts';
import { createLogger } from '../log.ts';
import { startStatusPage } from '../page.ts';
import { giveUpPrivileges, heldCapabilities } from '../privileges.ts';
import { Reloader } from '../reload.ts';
import { Service } from '../service.ts';
import {
  describeSession,
  exceptionFor,
  findIpv6Session,
  findSshSession,
  sshConnectionOf,
} from '../ssh-session.ts';
import { UsageError } from '../usage-error.ts';

const controlSocket = 'the control socket';

/** Resolves with the exit code when everything of the agent is gone. */
export async function run(options: { config: string }): Promise<number> {
  const file = resolve(options.config);
  const session = findSshSession();
  const ipv6Session = findIpv6Session();
  giveUpPrivileges(file, session === undefined ? ipv6Session : sshConnectionOf(session));
  const exceptions = session === undefined ? [] : [exceptionFor(session)];
  const compile = (file: string, before: SharedArrayBuffer | undefined) =>
    compileInThread(file, before, exceptions);
  const { next: compiled, warnings } = await compile(file, undefined);
  if (compiled === undefined) throw new Error('nothing was compiled');
  const { settings: config } = compiled;
  if (ipv6Session !== undefined && config.workload.ipv6 === 'drop') {
    const [client] = ipv6Session.split(' ');
    throw new UsageError(
      `workload.ipv6 is drop, and the SSH session that starts this agent comes by IPv6 from ` +
        `${client}: it would end. Come by IPv4, or start the agent as a service`,
    );
  }
  const logger = createLogger(config.log);
  logger.debug({ capabilities: heldCapabilities() }, 'what it may do');
  for (const warning of warnings) logger.warn(warning);
  if (session !== undefined) {
    const exception = formatException(exceptionFor(session));
    logger.warn(
      `started by SSH ${describeSession(session)}: ${exception} is never redirected or dropped ` +
        'while this agent runs. Name it in workload.management to keep it so',
    );
  }
  const stop = new StopRequest();
  let agent: Agent | undefined;
  const reloader = new Reloader(file, compiled, logger, compile, async (next, reclassify) => {
    if (agent === undefined) throw new Error('the agent is still starting');
    await agent.reload(next, reclassify);
  });
  const service = new Service(process.env, logger);
  const reload = (askedBy: string, reclassify = false) =>
    service.whileReloading(() => reloader.reload(askedBy, reclassify));
  const forget = listenToSignals(stop, reload);
  const flows = (query: URLSearchParams) => agent?.flows(query) ?? { matching: 0, flows: [] };
  const status = () =>
    agent === undefined
      ? { state: 'starting' }
      : { ...agent.status(exceptions.length), configuration: reloader.status() };
  let control: ControlServer | undefined;
  let page: { close(): Promise<void> } | undefined;
  let metrics: MetricsServer | undefined;
  try {
    // First, because it tells whether another agent runs, before anything in the kernel is touched.
    control = await startControlServer(config.control.socket, {
      status,
      flows,
      capture: (query) => agent?.capture(query),
      reload: (reclassify) => reload(controlSocket, reclassify),
      apply: (candidate, seconds, reclassify) =>
        reloader.try(candidate, seconds * 1000, reclassify),
      confirm: () => reloader.confirm(),
      rollback: () => reloader.rollBack(`asked by ${controlSocket}`),
      configuration: () => reloader.configuration(),
      stop: () => stop.ask(controlSocket),
    });
    page = await startStatusPage(config, file, {
      status,
      flows,
      reload: () => reload('the status page'),
    });
    const running = await assemble(compiled, logger);
    agent = running;
    metrics = await startMetrics(config, running);
    service.watch(() => running.health());
    const code = await Promise.race([agent.ended, stop.asked]);
    if (typeof code === 'number') return code;
    logger.info(`stopping: asked by ${code}`);
    service.tellStopping();
    await agent.stop();
    // A person wants the host as it was; a service manager that stops may be about to start again.
    if (code === controlSocket) agent.disarmGuard('asked to stop');
    logger.info('stopped');
    return ExitCode.Ok;
  } catch (error) {
    logger.debug({ err: error }, 'where it failed');
    throw error;
  } finally {
    await metrics?.close();
    await page?.close();
    await control?.close();
    forget();
    reloader.close();
    service.close();
  }
}

/** An agent whose metrics cannot be had does not start: it is stopped again. */
async function startMetrics(config: Settings, agent: Agent): Promise<MetricsServer | undefined> {
  if (config.metrics === undefined) return undefined;
  const { address, port } = config.metrics;
  try {
    return await startMetricsServer(address, port, () => agent.measurements());
  } catch (error) {
    await agent.stop();
    throw error;
  }
}

class StopRequest {
  /** Resolves with who asked first. */
  readonly asked: Promise<string>;
  private resolve: (by: string) => void = () => {};

  constructor() {
    this.asked = new Promise((resolve) => {
      this.resolve = resolve;
    });
  }

  ask(by: string): void {
    this.resolve(by);
  }
}

function listenToSignals(stop: StopRequest, reload: (by: string) => unknown): () => void {
  const onStop = (signal: NodeJS.Signals) => stop.ask(signal);
  const onReload = (signal: NodeJS.Signals) => void reload(signal);
  process.on('SIGTERM', onStop);
  process.on('SIGINT', onStop);
  process.on('SIGHUP', onReload);
  return () => {
    process.off('SIGTERM', onStop);
    process.off('SIGINT', onStop);
    process.off('SIGHUP', onReload);
  };
}
