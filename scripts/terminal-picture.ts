/**
 * A picture of what a terminal shows, for the documents. Reads text with colours (ECMA-48 SGR) from
 * standard input and has Chromium draw it:
 *
 *     tmux capture-pane -ep -t top | node dist/scripts/terminal-picture.js docs/images/top.png
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** The sixteen colours, as a dark terminal has them. */
const palette = [
  ...['#3b4252', '#ff6b6b', '#5fd38d', '#e5c07b', '#6ea8fe', '#c792ea', '#56c8d8', '#d8dee9'],
  ...['#7b8494', '#ff8a80', '#7ee2a8', '#ffd580', '#8ab4f8', '#d7aefb', '#7fdbe6', '#ffffff'],
];
const [background, foreground] = ['#12151a', '#d8dee9'];
const cell = { width: 8.43, height: 17 };
const margin = 14;
const introducer = '\u001b';
const sequence = `${introducer}\\[[\\d;]*m`;

type Style = { color: string; bold: boolean; dim: boolean };

function apply(style: Style, codes: readonly number[]): Style {
  let next = style;
  for (const code of codes) {
    if (code === 0) next = { color: foreground, bold: false, dim: false };
    else if (code === 1) next = { ...next, bold: true };
    else if (code === 2) next = { ...next, dim: true };
    else if (code === 22) next = { ...next, bold: false, dim: false };
    else if (code === 39) next = { ...next, color: foreground };
    else if (code >= 30 && code <= 37) next = { ...next, color: palette[code - 30]! };
    else if (code >= 90 && code <= 97) next = { ...next, color: palette[code - 82]! };
  }
  return next;
}

function toHtml(text: string): string {
  let style: Style = { color: foreground, bold: false, dim: false };
  const spans: string[] = [];
  for (const part of text.split(new RegExp(`(${sequence})`))) {
    const codes = part.startsWith(introducer) ? part.slice(2, -1) : undefined;
    if (codes !== undefined) {
      style = apply(style, codes === '' ? [0] : codes.split(';').map(Number));
      continue;
    }
    const escaped = part.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
    const weight = style.bold ? ';font-weight:bold' : '';
    const opacity = style.dim ? ';opacity:0.62' : '';
    spans.push(`<span style="color:${style.color}${weight}${opacity}">${escaped}</span>`);
  }
  return spans.join('');
}

function main(): void {
  const [target] = process.argv.slice(2);
  if (target === undefined) throw new Error('usage: terminal-picture.js FILE.png < text');
  const text = readFileSync(0, 'utf8').trimEnd();
  const lines = text.split('\n');
  const columns = Math.max(
    ...lines.map((line) => line.replace(new RegExp(sequence, 'g'), '').length),
  );
  const directory = mkdtempSync(join(tmpdir(), 'picture-'));
  const page = join(directory, 'page.html');
  writeFileSync(
    page,
    `<!doctype html><meta charset="utf-8"><body style="margin:${margin}px;background:${background}">` +
      `<pre style="margin:0;font:14px/${cell.height}px 'DejaVu Sans Mono',monospace">${toHtml(text)}`,
  );
  const width = Math.ceil(columns * cell.width) + 2 * margin;
  const height = lines.length * cell.height + 2 * margin;
  const { status, stderr } = spawnSync('chromium', [
    ...['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--no-first-run'],
    ...['--disable-background-networking', `--user-data-dir=${directory}`],
    ...[`--window-size=${width},${height}`, `--screenshot=${resolve(target)}`, `file://${page}`],
  ]);
  rmSync(directory, { recursive: true });
  if (status !== 0) throw new Error(`chromium: ${stderr}`);
}

main();
