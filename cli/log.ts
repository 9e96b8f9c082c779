/**
 * The log: pino to standard output, written at once (no transport, no worker), one line an event.
 * JSON for machines; on a terminal, or when asked for, the pretty form, made in this process.
 */
import { type DestinationStream, destination, type Logger, pino } from 'pino';
import { PinoPretty } from 'pino-pretty';
import type { Config } from '../engine/config.ts';

export type { Logger } from 'pino';

export function createLogger(options: Config['log']): Logger {
  const terminal = process.stdout.isTTY === true;
  const pretty = options.format === 'pretty' || (options.format === 'auto' && terminal);
  const stream: DestinationStream = pretty
    ? PinoPretty({
        sync: true,
        destination: 1,
        colorize: terminal,
        ignore: 'pid,hostname',
        translateTime: 'SYS:HH:MM:ss.l',
      })
    : destination({ dest: 1, sync: true });
  return pino(
    { level: options.level, timestamp: isoTime, formatters: { level: levelName } },
    stream,
  );
}

function isoTime(): string {
  return `,"time":"${new Date().toISOString()}"`;
}

/** The word instead of pino's number: what log collectors understand. */
function levelName(label: string): object {
  return { level: label };
}
