/**
 * Several firewalls around the engine over fakes: they return what they get, each while it is
 * alive. Time goes by 10 ms a step.
 */
import type { Policy } from '../../engine/classifier/lookup.ts';
import type { Rule } from '../../engine/classifier/rules.ts';
import type { PeerOptions } from '../../engine/peers.ts';
import { createGeneve } from '../../tunnel/geneve.ts';
import { headerLength, startEngine } from './engine.ts';
import { address } from './packets.ts';

export const names = ['10.9.0.4', '10.9.0.5', '10.9.0.6'];
export const geneve = createGeneve({
  port: 6081,
  vni: 48813,
  optionClass: 0xfff1,
  optionType: 0x20,
  inner: 'ipv4',
});

/** A world of `count` firewalls, probed every second unless `peers` says otherwise. */
export function world(
  count: number,
  peers: Partial<PeerOptions> = {},
  policy: Partial<Policy> = {},
  rules: readonly Rule[] = [],
  encapsulation = geneve,
) {
  const firewalls = names.slice(0, count).map((text) => ({
    address: address(text),
    returnFrom: { address: address(text), length: 32 },
  }));
  const options = { firewalls, probe: 'tunnel', graceMs: 1000, ...peers } as const;
  const engine = startEngine(policy, rules, encapsulation, options);
  const alive = new Set(names.slice(0, count));
  const nameOf = (peer: number) => names.find((text) => address(text) === peer)!;
  let seen = 0;
  const { io, loop } = engine;
  function exchange() {
    loop.breathe();
    for (; seen < io.socket.sent.length; seen++) {
      const { bytes, peer } = io.socket.sent[seen];
      if (alive.has(nameOf(peer)))
        io.socket.inbox.push({ bytes: Buffer.from(bytes), source: peer });
    }
    if (io.socket.inbox.length > 0) loop.breathe();
  }
  const self = {
    ...engine,
    alive,
    /** Steps of 10 ms; `each` is called before every one. */
    run(ms: number, each: () => void = () => {}) {
      for (let passed = 0; passed < ms; passed += 10) {
        io.clock.nowMs += 10;
        each();
        exchange();
      }
    },
    /** Redirect it, and let what comes back come back. Where it went, or nothing. */
    send(packet: Uint8Array): string | undefined {
      const before = io.socket.sent.length;
      io.egress.inbox.push({ bytes: packet });
      exchange();
      const sent = io.socket.sent
        .slice(before)
        .find(({ bytes }) => bytes.subarray(headerLength).equals(packet));
      return sent === undefined ? undefined : nameOf(sent.peer);
    },
  };
  self.run(100);
  return self;
}
