/**
 * The policy that the agent decides by, and how another takes its place: in the kernel and in the
 * data path, or in neither.
 */
import type { Policy } from '../engine/classifier/lookup.ts';
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
  readonly steering: Pick<AttachedSteering, 'setNetworks' | 'forgetNetworks' | 'replace'>;
  /** The data path takes it within a tick, or the last of several when it comes to it. */
  replacePolicy(policy: Policy): void;
  /** Of the policy by which the data path says that it decides. */
  adoptedGeneration(): number;
  /** What a configuration means on this host. */
  policyOf(compiled: Change, generation: number): Policy;
  steeringPolicyOf(settings: Settings): SteeringPolicy;
};

/** The data path looks for a policy every 100 ms; longer, and it hangs. */
const adoptLimitMs = 2_000;
const rememberedPolicies = 8;

export class PolicyInForce {
  private readonly places: PolicyPlaces;
  private readonly adoptLimitMs: number;
  private inForce: InForce;
  /** Also of those that did not come into force: the kernel's maps may still know them. */
  private lastGeneration: number;
  private readonly names = new Map<number, readonly string[]>();

  constructor(places: PolicyPlaces, first: InForce, limitMs = adoptLimitMs) {
    this.places = places;
    this.adoptLimitMs = limitMs;
    this.inForce = first;
    this.lastGeneration = first.policy.generation;
    this.names.set(this.lastGeneration, first.rules.names);
  }

  get now(): InForce {
    return this.inForce;
  }

  /** Flows outlive the policy that decided them; the names of a few policies' rules are kept. */
  nameOf(rule: number, generation: number): string | undefined {
    return this.names.get(generation)?.[rule];
  }

  /**
   * Resolves when the data path decides by it. One at a time.
   *
   * @throws when the kernel refuses or the data path hangs: then everything is as it was, or the
   * message says what is not
   */
  async change(next: Change): Promise<void> {
    const { places } = this;
    const generation = ++this.lastGeneration;
    const policy = places.policyOf(next, generation);
    try {
      places.steering.setNetworks(next.networks, generation);
      places.steering.replace(places.steeringPolicyOf(next.settings));
      places.replacePolicy(policy);
      await this.adopted(generation);
    } catch (error) {
      throw this.putBack(error as Error);
    }
    const { networks, rules, settings } = next;
    this.inForce = { networks, rules, settings, policy };
    this.names.set(generation, rules.names);
    if (this.names.size > rememberedPolicies) this.names.delete(this.names.keys().next().value!);
    places.steering.forgetNetworks(generation);
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
    const { networks, policy, settings } = this.inForce;
    // First, so that a data path that comes back never meets the other one.
    places.replacePolicy(policy);
    try {
      places.steering.replace(places.steeringPolicyOf(settings));
      places.steering.setNetworks(networks, policy.generation);
      return cause;
    } catch (error) {
      const left = `in the kernel a part of it stays (${(error as Error).message}): restart the agent`;
      return new Error(`${cause.message}; ${left}`, { cause });
    }
  }
}
