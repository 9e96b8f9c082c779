/**
 * Keys of the configuration from the environment, which override the file's:
 * `MICROPERIMETER__POLICY__ON_TELEMETRY_LOSS=drop` is `policy.onTelemetryLoss: drop`, and
 * `MICROPERIMETER__FIREWALLS__0__ADDRESS` is the first firewall's. Values are YAML, as in the file.
 */
import { parseDocument } from 'yaml';
import { limits } from '../../engine/config.ts';
import type { Path } from './parse.ts';

const prefix = 'MICROPERIMETER__';

export type Override = {
  readonly variable: string;
  readonly path: Path;
  readonly text: string;
};

/** In the order of their names, so that a block comes before its keys. */
export function overridesOf(environment: Readonly<Record<string, string | undefined>>): Override[] {
  return Object.entries(environment)
    .filter(([variable]) => variable.startsWith(prefix))
    .map(([variable, text = '']) => ({
      variable,
      path: variable.slice(prefix.length).split('__').map(keyOf),
      text,
    }))
    .sort((a, b) => (a.variable < b.variable ? -1 : 1));
}

/** `ON_BOOT` is onBoot, `0` the first of a list. */
function keyOf(word: string): string | number {
  if (/^\d+$/.test(word)) return Number(word);
  return word.toLowerCase().replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

/** Puts the override into `value`, which is the file's. Returns what hinders it. */
export function override(value: object, { path, text }: Override): string | undefined {
  if (path.includes('')) return 'a key is missing between underscores';
  if (Buffer.byteLength(text) > limits.fileBytes.max) return 'is too long';
  let wanted: unknown;
  try {
    const document = parseDocument(text, { logLevel: 'error', prettyErrors: false });
    const fault = document.errors[0] ?? document.warnings[0];
    if (fault !== undefined) throw fault;
    wanted = document.toJS({ maxAliasCount: 0 });
  } catch (error) {
    return `is not YAML: ${(error as Error).message}`;
  }
  let inner = value as Record<string | number, unknown>;
  for (const [depth, key] of path.entries()) {
    if (typeof key !== 'number' && Array.isArray(inner)) return 'a list wants a number, from 0';
    if (typeof key === 'number') {
      if (!Array.isArray(inner)) return 'a number wants a list';
      if (key > inner.length) return `there are only ${inner.length} in the list`;
    }
    if (depth === path.length - 1) {
      inner[key] = wanted;
      return undefined;
    }
    inner[key] ??= typeof path[depth + 1] === 'number' ? [] : {};
    const next = inner[key];
    if (typeof next !== 'object' || next === null) return 'something else than a block is there';
    inner = next as Record<string | number, unknown>;
  }
  return undefined;
}
