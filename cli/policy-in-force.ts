/**
 * The policy that the agent decides by, and how another takes its place: in the kernel and in the
 * data path, or in neither.
 */
import type { Prefix } from '../engine/classifier/built-in.ts';
import { builtInRule, groupRule, type Policy } from '../engine/classifier/lookup.ts';
import { commonNetworks } from '../engine/classifier/networks.ts';
import { noRule } from '../engine/classifier/rules.ts';
import type { Settings } from '../engine/config.ts';
import type { SteeringPolicy } from '../linux/bpf/policy.ts';
import type { AttachedSteering } from '../linux/steering.ts';
import type { Compiled } from './compile.ts';

export type InForce = {
  readonly settings: Settings;
  readonly rules: Compiled['rules'];
  readonly networks: Compiled['networks'];
  readonly policy: Policy;
};

/** Another policy; or the one in force, for a host that has changed. */
type Change = Pick<Compiled, 'networks' | 'policy' | 'rules' | 'settings'>;

/** Where a policy goes. */
export type PolicyPlaces = {
  /** Whether a flow is redirected that a policy before this generation decided. */
  redirectsBefore(generation: number): boolean;
  readonly steering: Pick<AttachedSteering, 'setNetworks' | 'forgetNetworks' | 'replace'>;
  /** The data path takes it within a tick, or the last of several when it comes to it. */
  replacePolicy(policy: Policy): void;
  /** Of the policy by which the data path says that it decides. */
  adoptedGeneration(): number;
  /** What a configuration means on this host. */
  policyOf(compiled: Change, generation: number, reclassifyBefore: number): Policy;
  steeringPolicyOf(settings: Settings): SteeringPolicy;
};

/** The data path looks for a policy every 100 ms; longer, and it hangs. */
const adoptLimitMs = 2_000;
/** Reading every record of a million takes some milliseconds. */
const flowsEveryMs = 2_000;
const rememberedPolicies = 8;

export class PolicyInForce {
  private readonly places: PolicyPlaces;
  private readonly adoptLimitMs: number;
  private readonly flowsEveryMs: number;
  private inForce: InForce;
  /** Also of those that did not come into force: the kernel's maps may still know them. */
  private lastGeneration: number;
  /** Flows of earlier ones are decided again. */
  private reclassifyBefore = 0;
  /** Networks that the kernel passes by itself: of the policy's, those that no such flow is in. */
  private networks: readonly Prefix[];
  private waiting: NodeJS.Timeout | undefined;
  private readonly names = new Map<number, readonly string[]>();

  constructor(
    places: PolicyPlaces,
    first: InForce,
    limitMs = adoptLimitMs,
    everyMs = flowsEveryMs,
  ) {
    this.places = places;
    this.adoptLimitMs = limitMs;
    this.flowsEveryMs = everyMs;
    this.inForce = first;
    this.networks = first.networks;
    this.lastGeneration = first.policy.generation;
    this.names.set(this.lastGeneration, first.rules.names);
  }

  get now(): InForce {
    return this.inForce;
  }

  /**
   * Of what `classify` has answered. Flows outlive the policy that decided them; the names of a few
   * policies' rules are kept.
   */
  nameOf(rule: number, generation: number): string {
    if (rule === builtInRule) return 'built-in';
    if (rule === groupRule) return 'group';
    if (rule === noRule) return 'default';
    return this.names.get(generation)?.[rule] ?? `rule ${rule} of an earlier policy`;
  }

  /**
   * Resolves when the data path decides by it. One at a time.
   *
   * @param reclassify whether flows that are known are decided by it, too
   * @throws when the kernel refuses or the data path hangs: then everything is as it was, or the
   * message says what is not
   */
  async change(next: Change, reclassify = false): Promise<void> {
    const { places } = this;
    const generation = ++this.lastGeneration;
    const reclassifyBefore = reclassify ? generation : this.reclassifyBefore;
    const policy = places.policyOf(next, generation, reclassifyBefore);
    // The kernel would also pass what is redirected until it ends.
    const known = reclassify ? next.networks : commonNetworks(this.networks, next.networks);
    clearInterval(this.waiting);
    try {
      places.steering.setNetworks(known, generation);
      places.steering.replace(places.steeringPolicyOf(next.settings));
      places.replacePolicy(policy);
      await this.adopted(generation);
    } catch (error) {
      throw this.putBack(error as Error);
    }
    const { networks, rules, settings } = next;
    this.inForce = { networks, rules, settings, policy };
    this.reclassifyBefore = reclassifyBefore;
    this.networks = known;
    this.waitForFlows();
    this.names.set(generation, rules.names);
    if (this.names.size > rememberedPolicies) this.names.delete(this.names.keys().next().value!);
    places.steering.forgetNetworks(generation);
  }

  /** The kernel passes all networks once the last flow that earlier policies redirect is over. */
  private waitForFlows(): void {
    const { networks, policy } = this.inForce;
    const { generation } = policy;
    if (areSame(networks, this.networks)) return;
    this.waiting = setInterval(() => {
      if (this.places.redirectsBefore(generation)) return;
      clearInterval(this.waiting);
      try {
        this.places.steering.setNetworks(networks, generation);
        this.networks = networks;
      } catch {
        // Their packets come up to the data path, which passes them all the same.
      }
    }, this.flowsEveryMs).unref();
  }

  close(): void {
    clearInterval(this.waiting);
  }

  /** Until the data path has published that it decides by this generation. */
  private async adopted(generation: number): Promise<void> {
    const deadline = performance.now() + this.adoptLimitMs;
    while (this.places.adoptedGeneration() !== generation) {
      if (performance.now() > deadline) {
        throw new Error(`the data path did not take the policy within ${this.adoptLimitMs} ms`);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** @returns what to tell */
  private putBack(cause: Error): Error {
    const { places } = this;
    const { networks } = this;
    const { policy, settings } = this.inForce;
    // First, so that a data path that comes back never meets the other one.
    places.replacePolicy(policy);
    try {
      places.steering.replace(places.steeringPolicyOf(settings));
      places.steering.setNetworks(networks, policy.generation);
      this.waitForFlows();
      return cause;
    } catch (error) {
      const left = `in the kernel a part of it stays (${(error as Error).message}): restart the agent`;
      return new Error(`${cause.message}; ${left}`, { cause });
    }
  }
}

function areSame(a: readonly Prefix[], b: readonly Prefix[]): boolean {
  return (
    a.length === b.length &&
    a.every(({ address, length }, i) => address === b[i]?.address && length === b[i].length)
  );
}
