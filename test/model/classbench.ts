/**
 * ClassBench's own filter sets, which are not part of this repository: found in the folder that
 * MICROPERIMETER_CLASSBENCH names, or beside the repository.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Rule } from '../../engine/classifier/rules.ts';
import { parseClassBench } from './rule-sets.ts';

export const classBenchFolder =
  process.env.MICROPERIMETER_CLASSBENCH ?? join('..', 'shared', 'data', 'classbench');

/** By file name; empty when there is no such folder. */
export function classBenchSets(): Map<string, Rule[]> {
  const sets = new Map<string, Rule[]>();
  if (!existsSync(classBenchFolder)) return sets;
  for (const name of readdirSync(classBenchFolder).sort()) {
    const text = readFileSync(join(classBenchFolder, name), 'utf8');
    if (text.startsWith('@')) sets.set(name, parseClassBench(text));
  }
  return sets;
}
