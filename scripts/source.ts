/**
 * Reads TypeScript just far enough for tidy.ts: code apart from comments, imports and exports with
 * their lines. A scanner and not a compiler, because TypeScript 7 has no programming interface;
 * it relies on the formatter having been run and on the compiler having accepted the text.
 */
import { posix } from 'node:path';

export interface Import {
  /** As written, such as `../parsers/reason.ts`, `node:os` or `koffi`. */
  specifier: string;
  /** The file it means, from the root of the repository; undefined for a module's name. */
  target: string | undefined;
  /** Names taken from it; `*` stands for all of them. */
  names: string[];
  line: number;
}

interface Export {
  name: string;
  /** An interface or type alias alone, without a value of its name. */
  isType: boolean;
  line: number;
}

export interface Source {
  path: string;
  text: string;
  /** The text with comments and the insides of strings blanked; same length and lines. */
  code: string;
  /** The text with everything but comments blanked. */
  comments: string;
  imports: Import[];
  exports: Export[];
}

export function readSource(path: string, text: string): Source {
  const { code, comments } = separate(text);
  return {
    path,
    text,
    code,
    comments,
    imports: importsOf(path, text, code),
    exports: exportsOf(code),
  };
}

export function lineAt(text: string, at: number): number {
  let line = 1;
  for (let i = text.indexOf('\n'); i >= 0 && i < at; i = text.indexOf('\n', i + 1)) line++;
  return line;
}

const tokens = /\/\/[^\n]*|\/\*.*?\*\/|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|[\w$]+|\s+|./sy;
const templateText = /(?:\\.|\$(?!\{)|[^`\\$])*(?:`|\$\{)/sy;
const regularExpression = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/[a-z]*/y;
/** After these a slash begins a regular expression; after anything else it divides. */
const beforeRegularExpression =
  /^(?:|[(,=:[!&|?{};+\-*%<>~^}]|return|typeof|case|in|of|await|yield|void|delete|throw|else|do)$/;

/** Code and comments apart, each with the other (and the insides of strings) as blanks. */
export function separate(text: string): { code: string; comments: string } {
  const code = text.replace(/[^\n]/g, ' ').split('');
  const comments = [...code];
  const keep = (to: string[], from: number, end: number) => {
    for (let i = from; i < end; i++) to[i] = text[i] as string;
  };
  // A template's text, and the braces inside its substitutions, nest in each other.
  const nesting: ('template' | 'brace')[] = [];
  let before = '';
  let at = 0;
  while (at < text.length) {
    const inTemplate = nesting.at(-1) === 'template';
    const token = match(inTemplate ? templateText : tokens, text, at) ?? text.slice(at);
    const end = at + token.length;
    if (inTemplate) {
      if (token.endsWith('`')) nesting.pop();
      else nesting.push('brace');
      keep(code, end - 1, end);
      before = token.endsWith('`') ? '`' : '{';
    } else if (token.startsWith('//') || token.startsWith('/*')) {
      keep(comments, at, end);
    } else if (token === '/' && beforeRegularExpression.test(before)) {
      at += (match(regularExpression, text, at) ?? token).length;
      before = ')';
      continue;
    } else if (token.length > 1 && /^['"]/.test(token)) {
      keep(code, at, at + 1);
      keep(code, end - 1, end);
      before = token;
    } else {
      keep(code, at, end);
      if (token === '`') nesting.push('template');
      if (token === '{') nesting.push('brace');
      if (token === '}') nesting.pop();
      if (token.trim()) before = token;
    }
    at = end;
  }
  return { code: code.join(''), comments: comments.join('') };
}

function match(pattern: RegExp, text: string, at: number): string | undefined {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0];
}

const importForms = [
  /\b(?:import|export)\b\s*(?:type\b)?(?<clause>[\w$*{},\s]*?)\bfrom\s*['"]/g,
  /\bimport\s*['"]/g,
  // At run time and in types alike: the whole module.
  /\bimport\s*\(\s*['"]/g,
  // How a worker is named.
  /\bnew URL\(\s*['"]/g,
];

function importsOf(path: string, text: string, code: string): Import[] {
  const imports: Import[] = [];
  for (const form of importForms) {
    for (const found of code.matchAll(form)) {
      const from = found.index + found[0].length;
      const specifier = text.slice(from, text.indexOf(text[from - 1] as string, from));
      const clause = found.groups?.clause;
      imports.push({
        specifier,
        target: specifier.startsWith('.')
          ? posix.join(posix.dirname(path), specifier).replace(/\.js$/, '.ts')
          : undefined,
        names: clause === undefined ? ['*'] : namesIn(clause),
        line: lineAt(text, found.index),
      });
    }
  }
  return imports.sort((a, b) => a.line - b.line);
}

/** `thing, { one, type Two, three as four }` to thing's `default`, `one`, `Two`, `three`. */
function namesIn(clause: string): string[] {
  const inBraces = /\{([^}]*)\}/.exec(clause)?.[1] ?? '';
  const names = inBraces
    .split(',')
    .map((part) => part.trim().replace(/^type\s+/, ''))
    .filter((part) => part !== '')
    .map((part) => part.split(/\s+/)[0] as string);
  const outside = clause.replace(/\{[^}]*\}/, '');
  if (outside.includes('*')) names.push('*');
  else if (/\w/.test(outside)) names.push('default');
  return names;
}

const declaration =
  /\bexport (?:abstract |async )*(function\*?|const|let|class|interface|type) ([\w$]+)/g;
const exportList = /\bexport\s+(?:type\s*)?\{([^}]*)\}/g;
const defaultExport = /\bexport\s+default\b/g;

function exportsOf(code: string): Export[] {
  const exports: Export[] = [];
  for (const found of code.matchAll(declaration)) {
    const [, keyword, name] = found as unknown as [string, string, string];
    // A constant and its type share a name, and an import of the one is an import of both.
    if (exports.some((earlier) => earlier.name === name)) continue;
    const isType = keyword === 'interface' || keyword === 'type';
    exports.push({ name, isType, line: lineAt(code, found.index) });
  }
  for (const found of code.matchAll(exportList)) {
    for (const part of (found[1] as string).split(',')) {
      const name = part.trim().split(/\s+/).at(-1);
      if (name) exports.push({ name, isType: false, line: lineAt(code, found.index) });
    }
  }
  for (const found of code.matchAll(defaultExport)) {
    exports.push({ name: 'default', isType: false, line: lineAt(code, found.index) });
  }
  return exports;
}
