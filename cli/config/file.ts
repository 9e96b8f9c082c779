/** The configuration file from disk, and what the environment overrides. */
import { readFileSync, statSync } from 'node:fs';
import { limits } from '../../engine/config.ts';
import { overridesOf } from './environment.ts';
import { ConfigError, type ReadConfig, readConfig } from './parse.ts';

/** Throws a ConfigError for a file that cannot be read, is too large, or is wrong. */
export function readConfigFile(file: string): ReadConfig {
  return readConfig(readText(file), file, overridesOf(process.env));
}

function readText(file: string): string {
  let text: string;
  try {
    const { size } = statSync(file);
    if (size > limits.fileBytes.max) {
      throw fileError(file, `is larger than ${limits.fileBytes.max} bytes`);
    }
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    const errno = (error as NodeJS.ErrnoException).code;
    throw fileError(file, `cannot be read: ${reasons[errno ?? ''] ?? errno ?? String(error)}`);
  }
  return text;
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EACCES: 'this user may not read it',
  EISDIR: 'it is a directory',
};

function fileError(file: string, message: string): ConfigError {
  return new ConfigError(file, [{ line: 0, column: 0, key: '', message }]);
}
