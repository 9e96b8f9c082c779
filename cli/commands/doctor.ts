/**
 * `microperimeter doctor`: what of this host, its kernel and the way to its firewalls would keep
 * the agent from working, or traffic from being inspected. Changes nothing; works with and without
 * a running agent.
 */
import type { AgentStatus, FirewallStatus } from '../../control/status.ts';
import { readConfigFile } from '../config/file.ts';
import { drawFindings } from '../doctor/draw.ts';
import { broken, brokenBy, type Finding, fine, risk } from '../doctor/finding.ts';
import { hostFindings } from '../doctor/host.ts';
import { kernelFindings } from '../doctor/kernel.ts';
import { pathFindings } from '../doctor/path.ts';
import { ExitCode } from '../exit-codes.ts';
import { colorsFor } from '../screen/format.ts';
import { isComplete, readStatus } from '../status-of-agent.ts';

/** Unhealthy when something is broken; risks alone are for a person to judge. */
export async function doctor(options: { config: string; json: boolean }): Promise<number> {
  const { config } = readConfigFile(options.config);
  const findings = [...kernelFindings(), ...hostFindings(config)];
  for (const firewall of config.firewalls) {
    findings.push(...(await pathFindings(config, firewall)));
  }
  findings.push(...(await agentFindings(config.control.socket)));
  process.stdout.write(
    options.json
      ? `${JSON.stringify(findings, null, 2)}\n`
      : drawFindings(findings, colorsFor(process.stdout)),
  );
  const isBroken = findings.some(({ level }) => level === 'broken');
  return isBroken ? ExitCode.Unhealthy : ExitCode.Ok;
}

/** What only a running agent knows: whether firewalls return packets, and what others changed. */
async function agentFindings(socket: string): Promise<Finding[]> {
  try {
    const status = await readStatus(socket);
    // One that is only starting has nothing more to tell.
    if (!isComplete(status)) return [risk('agent', 'is starting', 'Ask again in a moment.')];
    return [stateFinding(status), ...status.firewalls.map(firewallFinding), driftFinding(status)];
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    return [code === 'ERR_NOT_RUNNING' ? fine('agent', 'does not run') : brokenBy('agent', error)];
  }
}

function stateFinding({ cause, state }: AgentStatus): Finding {
  if (state === 'redirecting') return fine('agent', 'runs and redirects');
  return risk('agent', `runs, ${state}: ${cause}`, 'microperimeter status has more.');
}

function firewallFinding({ name, probe, usable, why }: FirewallStatus): Finding {
  const check = `firewall ${name}`;
  if (!usable) {
    const advice =
      'Look at its telemetry endpoint, and whether UDP to the tunnel port comes back to this host: ' +
      'docs/troubleshooting.md.';
    return broken(check, `not usable: ${why}`, advice);
  }
  const answers =
    probe.state === 'answered' ? `, answers in ${probe.roundTripMs.toFixed(2)} ms` : '';
  return fine(check, `takes telemetry${answers}`);
}

function driftFinding({ drift, interfaces }: AgentStatus): Finding {
  const found = [...drift, ...interfaces.flatMap((link) => link.drift)];
  if (found.length === 0) return fine('drift', 'none: the kernel is as the agent left it');
  return risk('drift', found.join('; '), 'Other programs share the hooks, or changed them.');
}
