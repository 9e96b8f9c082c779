/** Configuration files for tests, and what is wrong with them. */
import { ConfigError, formatProblem, parseConfig } from '../../cli/config/parse.ts';

export const pin = `sha256/${'A'.repeat(43)}=`;

/** The smallest good file, as sections that a test may replace or add to. */
export function file(changes: Record<string, string> = {}): string {
  const sections: Record<string, string> = {
    version: 'version: 1',
    firewalls: [
      'firewalls:',
      '  - name: fw-a',
      '    address: 10.9.0.4',
      '    telemetry: { url: https://10.9.0.4/v1/metrics, ca: /etc/ca.pem }',
    ].join('\n'),
    ...changes,
  };
  return `${Object.values(sections)
    .filter((text) => text !== '')
    .join('\n')}\n`;
}

export function firewall(
  line: string,
  telemetry = 'url: https://10.9.0.4/v1/metrics, ca: /etc/ca.pem',
) {
  return `firewalls:\n  - { ${line}, telemetry: { ${telemetry} } }`;
}

export function problemsOf(text: string): string[] {
  try {
    parseConfig(text, 'f');
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems.map((problem) => formatProblem('f', problem));
  }
}
