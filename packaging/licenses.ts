/** The licenses of everything that the binary is made of, as their authors ask. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const packageDirectory = /^.*\/?node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/;

/**
 * @param files bundled, by path
 * @param others directories of packages that are in the binary another way
 */
export function licensesOf(files: readonly string[], others: readonly string[]): string {
  return packageDirectories(files, others)
    .map(licenseOf)
    .join(`\n${'-'.repeat(80)}\n\n`);
}

/** Of each package once; parameters as above. */
export function packageDirectories(
  files: readonly string[],
  others: readonly string[],
): readonly string[] {
  const bundled = files.flatMap((file) => packageDirectory.exec(file)?.[0] ?? []);
  return [...new Set([...others, ...bundled])];
}

function licenseOf(directory: string): string {
  const { license, name, version } = JSON.parse(
    readFileSync(join(directory, 'package.json'), 'utf8'),
  );
  const texts = readdirSync(directory).filter((file) => /^(licen[cs]e|notice)/i.test(file));
  const words = texts.map((file) => readFileSync(join(directory, file), 'utf8').trim());
  return `${[`${name} ${version} (${license})`, ...words].join('\n\n')}\n`;
}
