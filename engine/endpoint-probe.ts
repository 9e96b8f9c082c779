/**
 * The probe that asks a firewall at its own address, as a gateway load balancer asks the appliances
 * behind it: a TCP connection, or a GET that is answered with 2xx. Only the telemetry worker uses
 * this file; what it finds out goes to the data path by the firewall's columns.
 *
 * A certificate is not looked at: an answer alone makes no firewall usable, telemetry must reach it
 * too, and that is verified.
 */
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ProbeHealth, type ProbeState } from '../tunnel/firewalls.ts';
import type { ProbeConfig } from './config.ts';
import { noteRoundTrip, openFirewallColumns } from './firewall-columns.ts';
import { monotonicMs } from './ticks.ts';

export type EndpointProbeData = {
  readonly probe: ProbeConfig;
  /** As text, in the order of the configuration. */
  readonly addresses: readonly string[];
  /** Of the firewalls (engine/firewall-columns.ts). */
  readonly columns: SharedArrayBuffer;
};

/** A connection needs time, whatever the interval. */
const shortestTimeoutMs = 500;
/** Under way at once: a firewall that swallows everything gets no more. */
const maximumUnderWay = 8;

/** Probe all firewalls until `signal`. Never rejects. */
export async function probeEndpoints(data: EndpointProbeData, signal: AbortSignal): Promise<void> {
  await Promise.all(data.addresses.map((_, firewall) => probeEndpoint(data, firewall, signal)));
}

async function probeEndpoint(
  { addresses, columns: memory, probe }: EndpointProbeData,
  firewall: number,
  signal: AbortSignal,
): Promise<void> {
  const columns = openFirewallColumns(memory);
  const { failures, intervalMs } = probe;
  const known = columns.probeState[firewall] as ProbeState;
  const health = new ProbeHealth(intervalMs, failures, monotonicMs(), known);
  let underWay = 0;
  const tell = () => {
    columns.probeState[firewall] = health.state;
  };
  const ask = async () => {
    const sentMs = monotonicMs();
    health.sent(sentMs);
    if (underWay === maximumUnderWay) return;
    underWay++;
    columns.probesSent[firewall]++;
    const isAnswered = await attempt(addresses[firewall]!, probe);
    underWay--;
    if (!isAnswered) return;
    const nowMs = monotonicMs();
    health.answered(sentMs);
    noteRoundTrip(columns, firewall, nowMs - sentMs, nowMs);
    tell();
  };
  while (!signal.aborted) {
    health.look(monotonicMs());
    tell();
    if (monotonicMs() >= health.nextAtMs) void ask();
    const waitMs = Math.max(1, health.nextAtMs - monotonicMs());
    await sleep(waitMs, undefined, { signal }).catch(() => {});
  }
}

/** Whether the firewall answers; never rejects. */
function attempt(host: string, { intervalMs, kind, path, port }: ProbeConfig): Promise<boolean> {
  const timeoutMs = Math.max(shortestTimeoutMs, intervalMs);
  return kind === 'tcp'
    ? connects(host, port, timeoutMs)
    : answers(kind === 'https', host, port, path, timeoutMs);
}

function connects(host: string, port: number, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: timeoutMs });
    const end = (isAnswered: boolean) => {
      socket.destroy();
      resolve(isAnswered);
    };
    socket.once('connect', () => end(true));
    socket.once('timeout', () => end(false));
    socket.once('error', () => end(false));
  });
}

function answers(
  isTls: boolean,
  host: string,
  port: number,
  path: string,
  timeoutMs: number,
): Promise<boolean> {
  return new Promise((resolve) => {
    const options = { host, port, path, agent: false, signal: AbortSignal.timeout(timeoutMs) };
    const headers = { 'user-agent': 'microperimeter', connection: 'close' };
    const sent = isTls
      ? httpsRequest({ ...options, headers, rejectUnauthorized: false })
      : httpRequest({ ...options, headers });
    sent.once('error', () => resolve(false));
    sent.once('response', (response) => {
      const status = response.statusCode ?? 0;
      resolve(status >= 200 && status < 300);
      // What it says does not matter, however much it is.
      response.once('error', () => {});
      sent.destroy();
    });
    sent.end();
  });
}
