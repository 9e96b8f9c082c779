/**
 * The agent as a service: what it tells the manager that started it (systemd, or whoever speaks the
 * protocol of sd_notify(3)). It is ready when the data path breathes, and alive while it does; the
 * main thread's own life is no proof of that.
 */
import { openServiceManager, type ServiceManager, watchdogMs } from '../linux/sd-notify.ts';
import type { Logger } from './log.ts';

export type Health = {
  /** Grows, or begins anew, as long as the data path runs. */
  readonly breaths: number;
  /** One line for a person. */
  readonly words: string;
};

/** How often health is looked at; the data path breathes every 100 ms. */
const lookMs = 250;
/** Signs of life in the time that the manager waits for one. */
const signsPerWait = 4;

export class Service {
  private readonly manager: ServiceManager | undefined;
  private readonly waitMs: number;
  private timer: NodeJS.Timeout | undefined;
  private ready = false;
  private lastWords = '';
  private lastSign = { breaths: 0, ms: Number.NEGATIVE_INFINITY };

  /** Does nothing, ever, when no manager is named in `environment`. */
  constructor(environment: NodeJS.ProcessEnv, logger: Logger) {
    this.waitMs = watchdogMs(environment, process.pid);
    try {
      this.manager = openServiceManager(environment);
    } catch (error) {
      // One that it does not concern any more may have left its address in the environment.
      logger.warn(`the service manager is told nothing: ${(error as Error).message}`);
    }
  }

  /** Tell the manager from now on how the agent is. */
  watch(health: () => Health): void {
    if (this.manager === undefined) return;
    const everyMs = this.waitMs > 0 ? Math.min(lookMs, this.waitMs / signsPerWait) : lookMs;
    this.timer = setInterval(() => this.look(health(), performance.now()), everyMs);
  }

  private look({ breaths, words }: Health, nowMs: number): void {
    const news: Record<string, string> = {};
    if (!this.ready && breaths > 0) news.READY = '1';
    if (words !== this.lastWords) news.STATUS = words;
    if (this.waitMs > 0 && this.isSignDue(breaths, nowMs)) {
      news.WATCHDOG = '1';
      this.lastSign = { breaths, ms: nowMs };
    }
    if (Object.keys(news).length === 0 || this.manager?.tell(news) !== true) return;
    this.ready ||= news.READY !== undefined;
    this.lastWords = words;
  }

  private isSignDue(breaths: number, nowMs: number): boolean {
    const { breaths: before, ms } = this.lastSign;
    return breaths !== before && nowMs - ms >= this.waitMs / signsPerWait;
  }

  async whileReloading<T>(reload: () => Promise<T>): Promise<T> {
    this.manager?.tellReloading();
    try {
      return await reload();
    } finally {
      // Not to be ready before it ever was.
      if (this.ready) this.manager?.tell({ READY: '1' });
    }
  }

  tellStopping(): void {
    this.manager?.tell({ STOPPING: '1' });
  }

  /** The manager sees the process end. */
  close(): void {
    clearInterval(this.timer);
    this.manager?.close();
  }
}
