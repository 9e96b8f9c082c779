/**
 * The firewall's list, from a small YAML (or JSON) file:
 *
 *     deny:
 *       - { host: evil.example }                     # HTTP Host; `*.example` for all below it
 *       - { host: shop.example, path: /admin }       # and the path begins so
 *       - { direction: egress, sni: evil.example }   # name in a TLS ClientHello
 *       - { content: X5O!P%@AP }                     # anywhere in the first bytes of a connection
 *       - { protocol: udp, address: 10.2.0.20, port: 9999 }    # where the connection goes to
 *     allow:
 *       - { host: good.evil.example }                # allowed whatever `deny` says
 *
 * All parts of a rule must hold; what no rule names is allowed.
 */
import { readFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { parse } from 'yaml';
import type { HttpRequest } from './inspect.ts';

const texts = ['host', 'path', 'sni', 'content', 'direction', 'protocol', 'address'] as const;

export type Rule = {
  readonly host?: string;
  readonly path?: string;
  readonly sni?: string;
  readonly content?: string;
  readonly direction?: string;
  readonly protocol?: string;
  readonly address?: string;
  readonly port?: number;
};

export type Policy = { readonly allow: readonly Rule[]; readonly deny: readonly Rule[] };

/** What is known of a connection so far. */
export type Facts = {
  readonly direction: string;
  readonly protocol: string;
  /** Where the connection goes to. */
  readonly address: string;
  readonly port: number;
  readonly requests: readonly HttpRequest[];
  readonly serverName: string;
  /** First bytes of either direction, as latin1. */
  readonly texts: readonly string[];
};

/** Throws with the file's name and the part that is wrong. */
export function readPolicy(path: string): Policy {
  const content: unknown = parse(readFileSync(path, 'utf8')) ?? {};
  if (typeof content !== 'object') throw new Error(`${path}: allow and deny lists expected`);
  const lists = content as Record<string, unknown>;
  for (const key of Object.keys(lists)) {
    if (key !== 'allow' && key !== 'deny') throw new Error(`${path}: unknown key ${key}`);
  }
  return { allow: readRules(path, lists.allow), deny: readRules(path, lists.deny) };
}

function readRules(path: string, list: unknown): Rule[] {
  if (list === undefined || list === null) return [];
  if (!Array.isArray(list)) throw new Error(`${path}: a list of rules expected`);
  return list.map((rule: unknown) => readRule(path, rule));
}

function readRule(path: string, rule: unknown): Rule {
  const words = JSON.stringify(rule);
  if (typeof rule !== 'object' || rule === null) throw new Error(`${path}: not a rule: ${words}`);
  for (const [key, value] of Object.entries(rule)) {
    const isText = (texts as readonly string[]).includes(key);
    if (!isText && key !== 'port') throw new Error(`${path}: unknown key ${key} in ${words}`);
    if (typeof value !== (isText ? 'string' : 'number')) {
      throw new Error(`${path}: ${key} has the wrong type in ${words}`);
    }
  }
  const read = rule as Rule;
  if (read.address !== undefined && !isIPv4(read.address)) {
    throw new Error(`${path}: not an IPv4 address: ${read.address}`);
  }
  return read;
}

/**
 * Why the connection is denied as far as it is known, or an empty string. What may still become
 * known can turn "not denied" into "denied", never back: `allow` is looked at first.
 */
export function findDenial(policy: Policy, facts: Facts): string {
  for (const rule of policy.allow) if (matches(rule, facts)) return '';
  for (const rule of policy.deny) if (matches(rule, facts)) return describe(rule);
  return '';
}

function describe(rule: Rule): string {
  return Object.entries(rule)
    .map(([key, value]) => `${key} ${value}`)
    .join(', ');
}

function matches(rule: Rule, facts: Facts): boolean {
  if (rule.direction !== undefined && rule.direction !== facts.direction) return false;
  if (rule.protocol !== undefined && rule.protocol !== facts.protocol) return false;
  if (rule.address !== undefined && rule.address !== facts.address) return false;
  if (rule.port !== undefined && rule.port !== facts.port) return false;
  if (rule.sni !== undefined && !matchesName(rule.sni, facts.serverName)) return false;
  const content = rule.content;
  if (content !== undefined && !facts.texts.some((text) => text.includes(content))) return false;
  if (rule.host === undefined && rule.path === undefined) return true;
  return facts.requests.some((request) => matchesRequest(rule, request));
}

function matchesRequest(rule: Rule, request: HttpRequest): boolean {
  if (rule.host !== undefined && !matchesName(rule.host, request.host)) return false;
  return rule.path === undefined || request.path.startsWith(rule.path);
}

function matchesName(pattern: string, name: string): boolean {
  const wanted = pattern.toLowerCase();
  return wanted.startsWith('*.') ? name.endsWith(wanted.slice(1)) : name === wanted;
}
