/**
 * The host changes around a running agent: interfaces go and come back, addresses change, routes
 * are withdrawn, others attach programs or take ours away. This notices, says so once, and puts
 * right what the agent can put right. It looks when the kernel says that something has changed, and
 * every few seconds all the same.
 */
import type { Neighbours } from '../linux/steering.ts';
import { formatAddress } from '../parsers/text.ts';
import type { Links } from './host-policy.ts';
import type { Logger } from './log.ts';

export type Host = {
  /** Whether the kernel has news since the last question. */
  hasChanged(): boolean;
  /** The workload's interfaces now, those of `before`, with index 0 where one is not there. */
  links(before: Links): Links;
  /** Our address on the way to a firewall; 0 without a route. */
  sourceTo(firewall: number): number;
  missing(): readonly { readonly interfaceName: string; readonly hook: string }[];
  others(): readonly Neighbours[];
  /** Whether the kernel still cuts super-datagrams for us. */
  segmentation(): boolean;
  /** Put programs and addresses of these interfaces in force. Rejects when the kernel refuses. */
  apply(links: Links): Promise<void>;
  /** Connect the tunnel's sockets anew; false when that is not possible now. */
  reconnect(): boolean;
  /** What could be put right has been. */
  settled(): void;
};

/** How often the kernel is asked for news, and how often to look without any. */
const askMs = 200;
const lookMs = 3_000;

export type Repair = { readonly at: string; readonly words: string };
const rememberedRepairs = 8;

export class HostWatch {
  /** What is not as it should be and cannot be mended from here, a sentence each. */
  drift: readonly string[] = [];
  /** What was put right, the latest last. */
  readonly repairs: Repair[] = [];
  repairCount = 0;
  private readonly host: Host;
  private readonly firewalls: readonly number[];
  private readonly logger: Logger;
  private links: Links;
  /** Our address on the way to each firewall when its sockets were last connected. */
  private sources: readonly number[];
  /** The same when it was last looked at; 0 without a route. */
  private now: readonly number[];
  private failure = '';
  private lastLookMs = Number.NEGATIVE_INFINITY;
  private working: Promise<void> | undefined;
  private timer: NodeJS.Timeout | undefined;

  constructor(host: Host, links: Links, firewalls: readonly number[], logger: Logger) {
    this.host = host;
    this.links = links;
    this.firewalls = firewalls;
    this.logger = logger;
    this.now = firewalls.map((firewall) => host.sourceTo(firewall));
    this.sources = this.now;
  }

  start(): void {
    this.timer = setInterval(() => void this.tick(performance.now()), askMs);
    this.timer.unref();
  }

  /** Resolves when nothing of it is at work any more. */
  async stop(): Promise<void> {
    clearInterval(this.timer);
    await this.working;
  }

  /** Look when there are news or it is time; resolves when what was found has been dealt with. */
  async tick(nowMs: number): Promise<void> {
    if (this.working !== undefined) return this.working;
    if (!this.host.hasChanged() && nowMs - this.lastLookMs < lookMs) return;
    this.lastLookMs = nowMs;
    this.working = this.look().catch((error) => this.fail((error as Error).message));
    await this.working;
    this.working = undefined;
  }

  private async look(): Promise<void> {
    this.now = this.firewalls.map((firewall) => this.host.sourceTo(firewall));
    await this.mendPrograms();
    this.mendSources();
    this.host.settled();
    const found = this.describe();
    for (const words of found) if (!this.drift.includes(words)) this.logger.warn(words);
    for (const words of this.drift) {
      if (!found.includes(words)) this.logger.info(`no longer: ${words}`);
    }
    this.drift = found;
  }

  /** Programs on interfaces that are there. */
  private async mendPrograms(): Promise<void> {
    const next = this.host.links(this.links);
    const changes = differences(this.links, next);
    const gone = new Set(next.interfaces.filter(({ index }) => index === 0).map((l) => l.name));
    const taken = this.host
      .missing()
      .filter(({ interfaceName }) => !gone.has(interfaceName))
      .map(({ hook, interfaceName }) =>
        interfaceName === ''
          ? 'the program on the TUN device was taken away by others, and is back'
          : `the program on the ${hook} hook of ${interfaceName} was taken away, and is back`,
      );
    const came = changes.some(({ repairs }) => repairs);
    if (changes.length === 0 && taken.length === 0) return;
    this.links = next;
    await this.host.apply(next);
    this.failure = '';
    for (const { repairs, words } of changes) this.note(words, repairs);
    // The programs of an interface that went are gone with it.
    if (!came) for (const words of taken) this.note(words, true);
  }

  private mendSources(): void {
    const isStale = this.now.some((source, at) => source !== 0 && source !== this.sources[at]);
    if (!isStale || !this.host.reconnect()) return;
    const words = this.now.map(formatAddress).join(', ');
    this.note(`our address towards the firewall is ${words} now: the tunnel starts from it`, true);
    this.sources = this.now;
  }

  private describe(): string[] {
    const found: string[] = [];
    for (const [at, firewall] of this.firewalls.entries()) {
      if (this.now[at] !== 0) continue;
      found.push(`there is no route to the firewall ${formatAddress(firewall)}`);
    }
    for (const { after, before, hook, interfaceName } of this.host.others()) {
      const where = `the ${hook} hook of ${interfaceName || 'the TUN device'}`;
      const words = [
        ...(before > 0 ? [`${before} before ours, which see traffic first`] : []),
        ...(after > 0 ? [`${after} after ours`] : []),
      ];
      found.push(`others have programs on ${where}: ${words.join(', ')}`);
    }
    if (!this.host.segmentation()) {
      found.push('a network device cannot cut large datagrams (EIO): the agent cuts them, slower');
    }
    if (this.failure !== '') found.push(this.failure);
    return found;
  }

  private note(words: string, isRepair: boolean): void {
    this.logger.warn(words);
    if (!isRepair) return;
    this.repairCount++;
    this.repairs.push({ at: new Date().toISOString(), words });
    if (this.repairs.length > rememberedRepairs) this.repairs.shift();
  }

  /** Tried again at the next look; said once. */
  private fail(message: string): void {
    if (message !== this.failure) this.logger.error(`cannot be put right: ${message}`);
    this.failure = message;
    this.drift = this.describe();
  }
}

/** What has changed, in words, and whether programs were put somewhere because of it. */
function differences(before: Links, after: Links): { words: string; repairs: boolean }[] {
  const result: { words: string; repairs: boolean }[] = [];
  before.interfaces.forEach((was, at) => {
    const is = after.interfaces[at]!;
    if (is.index === 0 && was.index !== 0) {
      result.push({ words: `${was.name} is gone: its traffic with it`, repairs: false });
    } else if (is.index !== was.index) {
      result.push({ words: `${is.name} is back: its traffic is redirected again`, repairs: true });
    } else if (is.mac !== was.mac) {
      const words = `${is.name} has the hardware address ${is.mac} now, as our programs have`;
      result.push({ words, repairs: true });
    }
  });
  if (result.length === 0 && before.broadcasts.join() !== after.broadcasts.join()) {
    result.push({ words: 'broadcast addresses changed, as our programs know', repairs: true });
  }
  if (before.globalIpv6 !== after.globalIpv6) {
    const has = after.globalIpv6 ? 'has a' : 'has no';
    result.push({ words: `this host ${has} global IPv6 address now`, repairs: false });
  }
  return result;
}
