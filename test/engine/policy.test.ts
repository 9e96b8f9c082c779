/** What rules and policies do to packets, over fakes. */
import t from 'tap';
import { Established, type Policy } from '../../engine/classifier/lookup.ts';
import { Opener } from '../../engine/classifier/rules.ts';
import { OnFailure, Verdict } from '../../engine/flows.ts';
import { GateCause } from '../../engine/gate.ts';
import { KernelVerdict, SteeringMode } from '../../engine/io.ts';
import { back, out, rule, startEngine, syn } from '../support/engine.ts';
import { checksumsRight, fragments, TCP, tcp, udp } from '../support/packets.ts';

const port = (number: number) => [{ first: number, last: number }];
const dns = udp(out, 5000, 53, Buffer.from('question'));

t.test('the first rule that matches decides, for both directions of a connection', async (t) => {
  const path = startEngine({}, [
    rule({ name: 'dns', protocol: 17, remotePort: port(53), verdict: Verdict.Pass }),
    rule({ name: 'telnet', protocol: 6, localPort: port(23), verdict: Verdict.Drop }),
    rule({ name: 'in', opener: Opener.Ingress, verdict: Verdict.Pass }),
  ]);
  path.egress(dns);
  path.ingress(udp(back, 53, 5000, Buffer.from('answer')));
  path.ingress(tcp(back, { from: 4000, to: 23, flags: TCP.SYN }));
  path.ingress(tcp(back, { from: 4000, to: 22, flags: TCP.SYN }));
  path.egress(tcp(out, { from: 22, to: 4000, flags: TCP.SYN | TCP.ACK }));
  path.egress(syn());
  t.same(path.counts(), { 'passed-by-rule': 4, 'dropped-by-rule': 1, redirected: 1 });
  const verdicts = path.io.steering.remembered.map(({ localPort, verdict }) => [
    localPort,
    verdict,
  ]);
  t.same(verdicts, [
    [5000, KernelVerdict.Pass],
    [5000, KernelVerdict.Pass],
    [23, KernelVerdict.Drop],
    [22, KernelVerdict.Pass],
    [22, KernelVerdict.Pass],
  ]);
  t.same([...path.policy.hits], [1, 1, 1, 1], 'connections by rule, the default last');
});

t.test('fragments of a passed datagram pass', async (t) => {
  const path = startEngine({}, [rule({ protocol: 17, remotePort: port(53) })]);
  for (const part of fragments(udp(out, 5000, 53, Buffer.alloc(4000)), 1500, out))
    path.egress(part);
  t.same(path.counts(), { 'passed-by-rule': 3 });
});

t.test('a SYN in fragments has the kernel forget an earlier connection on its ports', async (t) => {
  const path = startEngine({}, [rule({ verdict: Verdict.Pass })]);
  const opening = tcp(out, { from: 40000, to: 80, flags: TCP.SYN, payload: Buffer.alloc(3000) });
  for (const part of fragments(opening, 1500, out)) path.egress(part);
  t.same(
    path.io.steering.remembered.map(({ localPort, verdict }) => [localPort, verdict]),
    [[40000, KernelVerdict.Ask]],
  );
  path.egress(tcp(out, { from: 40000, to: 80 }));
  t.equal(path.io.steering.remembered.at(-1)?.verdict, KernelVerdict.Pass, 'it learns anew');
});

t.test('observe counts what would be redirected and redirects nothing', async (t) => {
  const path = startEngine({ observe: true }, [rule({ protocol: 17, remotePort: port(53) })]);
  path.egress(dns);
  path.egress(syn());
  t.equal(path.io.socket.sent.length, 0);
  t.same(path.counts(), { 'passed-by-rule': 1, 'passed-observed': 1 });
});

t.test('rollout redirects its share of new flows, each as a whole', async (t) => {
  const path = startEngine({ rolloutPercent: 30 });
  for (let from = 1000; from < 2000; from++) {
    path.egress(udp(out, from, 7, Buffer.alloc(1)));
    path.ingress(udp(back, 7, from, Buffer.alloc(1)));
  }
  const { redirected = 0, 'passed-by-rollout': passed = 0 } = path.counts();
  t.equal(redirected + passed, 2000);
  t.ok(redirected % 2 === 0 && redirected > 480 && redirected < 720, `${redirected} of 2000`);
});

t.test('established: redirect takes what was open, reset ends it', async (t) => {
  const redirect = startEngine({ established: Established.Redirect });
  redirect.egress(tcp(out, { from: 22, to: 50000 }));
  t.same(redirect.counts(), { redirected: 1 });

  const reset = startEngine({ established: Established.Reset });
  reset.egress(tcp(out, { from: 22, to: 50000, seq: 100, ack: 777, payload: Buffer.alloc(5) }));
  const [answer] = reset.io.ingress.written;
  t.equal(answer.bytes[33], TCP.RST);
  t.equal(answer.bytes.readUInt32BE(24), 777, 'where the sender expects it');
  t.same([answer.bytes.readUInt16BE(20), answer.bytes.readUInt16BE(22)], [50000, 22]);
  t.ok(checksumsRight(answer.bytes));
  const [told] = reset.io.egress.written;
  t.equal(told.bytes[33], TCP.RST | TCP.ACK, 'and the other end is told');
  t.equal(told.bytes.readUInt32BE(24), 100, 'where it expects it');
  t.same([told.bytes.readUInt16BE(20), told.bytes.readUInt16BE(22)], [22, 50000]);
  t.ok(checksumsRight(told.bytes));
  reset.egress(tcp(out, { from: 22, to: 50001, flags: TCP.RST }));
  t.equal(reset.io.ingress.written.length, 1, 'a reset is not answered');
  t.same(reset.counts(), { 'reset-established': 2 });
});

t.test('a rule overrides what telemetry loss does to its connections', async (t) => {
  const path = startEngine({}, [
    rule({ protocol: 6, remotePort: port(5432), verdict: Verdict.Redirect, onFailure: 'drop' }),
  ]);
  path.egress(tcp(out, { from: 1, to: 5432, flags: TCP.SYN }));
  path.egress(tcp(out, { from: 1, to: 80, flags: TCP.SYN }));
  path.gate.close(GateCause.TelemetryUnreachable);
  path.egress(tcp(out, { from: 1, to: 5432 }));
  path.egress(tcp(out, { from: 2, to: 5432, flags: TCP.SYN }));
  path.egress(tcp(out, { from: 1, to: 80 }));
  path.egress(tcp(out, { from: 2, to: 80, flags: TCP.SYN }));
  t.equal(path.io.steering.mode, SteeringMode.RedirectAll, 'the kernel cannot tell them apart');
  path.gate.renew(path.io.clock.nowMs + 10_000);
  path.egress(tcp(out, { from: 1, to: 80 }));
  path.egress(tcp(out, { from: 2, to: 80 }));
  path.egress(tcp(out, { from: 2, to: 5432 }));
  t.same(path.counts(), {
    redirected: 3,
    'passed-gate-closed': 1,
    'passed-established': 3,
    'dropped-gate-closed': 2,
  });
});

t.test('a rule that drops does so while telemetry is lost, too', async (t) => {
  const path = startEngine({}, [
    rule({ protocol: 6, remotePort: port(23), verdict: Verdict.Drop }),
    rule({ protocol: 6, remotePort: port(22), verdict: Verdict.Pass }),
  ]);
  path.gate.close(GateCause.TelemetryUnreachable);
  path.egress(tcp(out, { from: 1, to: 23, flags: TCP.SYN }));
  path.egress(tcp(out, { from: 1, to: 22, flags: TCP.SYN }));
  path.egress(udp(out, 1, 53, Buffer.alloc(1)));
  t.equal(path.io.steering.mode, SteeringMode.RedirectAll);
  t.same(path.counts(), { 'dropped-by-rule': 1, 'passed-by-rule': 1, 'passed-gate-closed': 1 });
});

t.test('and the other way round', async (t) => {
  const path = startEngine({ onTelemetryLoss: OnFailure.Drop }, [
    rule({ protocol: 6, remotePort: port(80), verdict: Verdict.Redirect, onFailure: 'pass' }),
  ]);
  path.gate.close(GateCause.TelemetryUnreachable);
  path.egress(tcp(out, { from: 1, to: 80, flags: TCP.SYN }));
  path.egress(tcp(out, { from: 1, to: 81, flags: TCP.SYN }));
  t.same(path.counts(), { 'passed-established': 1, 'dropped-gate-closed': 1 });
});

t.test('a policy may decide flows again that earlier ones decided', async (t) => {
  const all = rule({ verdict: Verdict.Pass });
  const path = startEngine();
  const packet = (extra: object) => path.egress(tcp(out, { from: 40000, to: 80, ...extra }));
  const again = (generation: number, parts: Partial<Policy>, rules = [all]) =>
    path.replace({ generation, reclassifyBefore: generation, ...parts }, rules);
  path.egress(syn());
  again(2, {});
  packet({});
  again(3, {}, []);
  packet({});
  again(4, { established: Established.Redirect }, []);
  packet({});
  path.replace({ generation: 5, reclassifyBefore: 4 }, [all]);
  packet({});
  t.same(path.counts(), { redirected: 3, 'passed-by-rule': 1, 'passed-established': 1 });
  again(6, { established: Established.Pass }, []);
  path.ingress(tcp(back, { from: 80, to: 40000 }));
  t.equal(path.counts().redirected, 4, 'the firewall has seen it so far');
  again(7, {}, [rule({ verdict: Verdict.Drop, remotePort: port(80) })]);
  path.ingress(tcp(back, { from: 80, to: 40000 }));
  t.equal(path.counts()['dropped-by-rule'], 1, 'by who opened it, whoever sends');
  again(8, { established: Established.Reset }, []);
  packet({});
  t.equal(path.counts()['reset-established'], 1);
});

t.test('what no packet brings up any more is decided again as well', async (t) => {
  const path = startEngine();
  path.egress(syn());
  path.egress(tcp(out, { from: 40000, to: 81, flags: TCP.SYN }));
  const drop = rule({ verdict: Verdict.Drop, remotePort: port(81) });
  path.replace({ generation: 2, default: Verdict.Pass }, [drop]);
  path.counts();
  const records = [...path.flows.used.keys()].filter((flow) => path.flows.used[flow] === 1);
  const verdicts = () => records.map((flow) => path.flows.verdict[flow]);
  t.same(verdicts(), [Verdict.Redirect, Verdict.Redirect], 'a reload alone leaves them');
  path.replace({ generation: 3, reclassifyBefore: 3, default: Verdict.Pass }, [drop]);
  path.counts();
  t.same(verdicts(), [Verdict.Pass, Verdict.Drop]);
});

t.test('a new policy is for new flows; those that are known keep their verdict', async (t) => {
  const path = startEngine();
  path.egress(syn());
  const drop = [rule({ verdict: Verdict.Drop })];
  path.replace({ generation: 2 }, drop);
  path.egress(tcp(out, { from: 40000, to: 80 }));
  path.egress(tcp(out, { from: 40001, to: 80, flags: TCP.SYN }));
  t.equal(path.io.steering.generation, 2, 'the kernel forgets');
  t.same(path.counts(), { redirected: 2, 'dropped-by-rule': 1 });
});
