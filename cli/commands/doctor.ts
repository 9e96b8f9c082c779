/**
 * `microperimeter doctor`: what of this host, its kernel and the way to its firewalls would keep
 * the agent from working, or traffic from being inspected. Changes nothing; works with and without
 * a running agent.
 */
import { request } from '../../control/client.ts';
import type { AgentStatus } from '../../control/status.ts';
import { readConfigFile } from '../config/file.ts';
import { drawFindings } from '../doctor/draw.ts';
import { broken, type Finding, fine, risk } from '../doctor/finding.ts';
import { hostFindings } from '../doctor/host.ts';
import { kernelFindings } from '../doctor/kernel.ts';
import { pathFindings } from '../doctor/path.ts';
import { ExitCode } from '../exit-codes.ts';
import { colorsFor } from '../screen/format.ts';

/** Unhealthy when something is broken; risks alone are for a person to judge. */
export async function doctor(options: { config: string; json: boolean }): Promise<number> {
  const { config } = readConfigFile(options.config);
  const findings = [...kernelFindings(), ...hostFindings(config)];
  for (const firewall of config.firewalls) {
    findings.push(...(await pathFindings(config, firewall)));
  }
  findings.push(await agentFinding(config.control.socket));
  process.stdout.write(
    options.json
      ? `${JSON.stringify(findings, null, 2)}\n`
      : drawFindings(findings, colorsFor(process.stdout)),
  );
  const isBroken = findings.some(({ level }) => level === 'broken');
  return isBroken ? ExitCode.Unhealthy : ExitCode.Ok;
}

async function agentFinding(socket: string): Promise<Finding> {
  try {
    const { cause, state } = (await request(socket, 'GET', '/status')).body as AgentStatus;
    if (state === 'redirecting') return fine('agent', 'runs and redirects');
    return risk('agent', `runs, ${state}: ${cause}`, 'microperimeter status has more.');
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (code === 'ERR_NOT_RUNNING') return fine('agent', 'does not run');
    return broken('agent', error instanceof Error ? error.message : String(error), '');
  }
}
