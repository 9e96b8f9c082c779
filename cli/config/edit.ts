/**
 * Changing the configuration file by command: the YAML stays what its author wrote, comments and
 * all, but for what is changed. Nothing is written that `check` would refuse.
 */
import { type Document, isMap, isSeq, parseDocument, YAMLSeq } from 'yaml';
import { ConfigError, type ReadConfig, readConfig } from './parse.ts';
import { readText, writeAtomically } from './write.ts';

type Edit = (document: Document.Parsed) => void;

/**
 * Throws a ConfigError when the file cannot be read as YAML or the result is wrong: then nothing is
 * written. A file that is not there is made from `fallback`.
 */
export function editConfig(file: string, edit: Edit, fallback?: string): ReadConfig {
  const old = readText(file);
  const text = old === '' ? fallback : old;
  if (text === undefined) {
    const message = 'cannot be read: microperimeter configure --fwip makes one';
    throw new ConfigError(file, [{ line: 0, column: 0, key: '', message }]);
  }
  const document = parseDocument(text);
  // Its problems, with their places.
  if (document.errors.length > 0) readConfig(text, file);
  edit(document);
  const next = document.toString({ lineWidth: 0 });
  const read = readConfig(next, file);
  if (next !== old) writeAtomically(file, next, 0o600);
  return read;
}

/** The list at `path`, made when it is not there. */
export function listAt(document: Document.Parsed, path: readonly string[]): YAMLSeq {
  const found = document.getIn(path, true);
  if (isSeq(found)) return found;
  const made = new YAMLSeq();
  // A key without a value takes the list; `a:` above it is a block by then.
  const parent = path.slice(0, -1);
  if (parent.length > 0 && !isMap(document.getIn(parent, true))) {
    document.setIn(parent, document.createNode({}));
  }
  document.setIn(path, made);
  return made;
}
