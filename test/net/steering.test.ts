// Untimed: another test may run beside this one.
/** The steering programs with real packets: what goes where. steering-lab.ts has the drawing. */
import type { Namespace } from '../../lab/namespace.ts';
import {
  address,
  basePolicy,
  echoes,
  forEachMethod,
  inner,
  moved,
  pause,
  peer,
  pings,
  remote,
  run,
  udpSend,
  workload,
} from './steering-lab.ts';

forEachMethod('everything goes through the engine and comes back', async (t, start) => {
  const agent = await start({});
  t.teardown(() => agent.end());

  t.ok(await pings(workload, '10.77.0.2'), 'ping from the workload');
  t.match((await agent.stats()).packets, [2, 2], 'requests by queue 0, replies by queue 1');
  t.ok(await pings(peer, '10.77.0.1'), 'ping from the peer');
  t.match((await agent.stats()).packets, [4, 4], 'both ways by their own queue');
  t.ok(await pings(workload, '10.77.0.2', '-s', '4000'), 'fragments');

  const ports = [5000, 6000] as const;
  t.ok(await echoes('udp', workload, peer, '10.77.0.2', ports), 'UDP from the workload');
  t.ok(await echoes('udp', peer, workload, '10.77.0.1', ports), 'UDP from the peer');
  t.ok(await echoes('tcp', workload, peer, '10.77.0.2', ports), 'TCP from the workload');
  t.ok(await echoes('tcp', peer, workload, '10.77.0.1', ports), 'TCP from the peer');

  const before = await agent.stats();
  t.ok(await pings(inner, '10.77.0.2'), 'ping from a host behind the workload');
  t.ok(await pings(peer, '10.78.0.2'), 'ping to a host behind the workload');
  t.ok(await echoes('tcp', inner, peer, '10.77.0.2', ports), 'TCP from behind the workload');
  t.ok(await echoes('tcp', peer, inner, '10.78.0.2', ports), 'TCP to behind the workload');
  // The last connection is still saying goodbye.
  await pause(300);
  const after = await agent.stats();
  t.ok(after.packets[0]! > before.packets[0]! + 8, 'forwarded packets left by the egress queue');
  t.ok(after.packets[1]! > before.packets[1]! + 8, 'and came by the ingress queue');

  const counters = await agent.counters();
  const [egress = 0, ingress = 0] = after.packets;
  t.equal(after.strange, 0, 'nothing but IPv4 reached the engine');
  t.equal(counters.redirected.packets, egress + ingress, 'all that was redirected was read');
  t.equal(counters.reinjected.packets, egress + ingress, 'all that was written went on');
  t.equal(counters.droppedQueue.packets, 0);
});

forEachMethod('super-packets keep their size', async (t, start) => {
  const agent = await start({});
  t.teardown(() => agent.end());
  const server = peer.spawn('iperf3', ['-s'], { stdio: 'ignore' });
  t.teardown(() => server.kill('SIGKILL'));
  await pause(200);
  for (const [name, flag, queue] of [
    ['out', '', 0],
    ['in', '-R', 1],
  ] as const) {
    const args = ['-c', '10.77.0.2', '-t', '1', '-J', ...(flag === '' ? [] : [flag])];
    const { text } = await run(workload, 'iperf3', ...args);
    const bits = JSON.parse(text).end?.sum_received?.bits_per_second ?? 0;
    const stats = await agent.stats();
    t.ok(bits > 100e6, `TCP ${name}: ${Math.round(bits / 1e6)} Mbit/s`);
    t.ok(
      stats.large[queue]! > 500,
      `${stats.large[queue]} of ${stats.packets[queue]} above the MTU`,
    );
  }
});

forEachMethod('native packets are on the wire as the workload made them', async (t, start) => {
  const agent = await start({});
  t.teardown(() => agent.end());
  const mac = (host: Namespace) => JSON.parse(host.ip('-j link show eth0'))[0].address as string;
  const capture = run(peer, 'tcpdump', '-i', 'eth0', '-e', '-n', '-v', '-c', '1', 'icmp[0] == 8');
  await pause(500);
  const { text } = await run(workload, 'ping', '-n', '-c', '1', '10.77.0.2');
  const seen = (await capture).text;
  t.match(seen, `${mac(workload)} > ${mac(peer)}, ethertype IPv4`, 'Ethernet addresses');
  t.match(seen, /ttl 64, .*DF.*length 84/, 'time to live and length');
  t.notMatch(seen, /bad cksum/);
  t.match(text, 'ttl=64', 'the answer lost no hop either');
  // A mark that was left on a packet that came in would choose this rule when it is forwarded.
  workload.ip('rule add pref 1 iif eth0 fwmark 0x6d700000/0xfffff000 blackhole');
  t.ok(await pings(peer, '10.78.0.2'), 'no mark is left for others to see');
  workload.ip('rule del pref 1');
});

forEachMethod('what is excluded never reaches the TUN', async (t, start) => {
  const all = { address: remote, port: 7000 };
  const agent = await start({
    firewalls: [all],
    returnFrom: [{ address: address('10.78.0.0'), length: 24 }],
    telemetry: [{ address: remote, port: 8443 }],
    management: [
      { protocol: 6, remote: { address: address('10.77.0.0'), length: 24 }, port: 22 },
      { protocol: 0, remote: { address: address('10.78.0.2'), length: 32 }, port: 0 },
    ],
  });
  t.teardown(() => agent.end());
  workload.ip('addr add 169.254.7.1/24 dev eth0');
  peer.ip('addr add 169.254.7.2/24 dev eth0');
  const udp =
    (client: Namespace, target: string, ...ports: [number, number]) =>
    () =>
      echoes('udp', client, client === peer ? workload : peer, target, ports);
  const tcp =
    (client: Namespace, target: string, ...ports: [number, number]) =>
    () =>
      echoes('tcp', client, client === peer ? workload : peer, target, ports);
  const excluded: [string, () => Promise<boolean>][] = [
    ['DHCP', udp(workload, '10.77.0.2', 68, 67)],
    ['telemetry', tcp(workload, '10.77.0.2', 5001, 8443)],
    ['management, our port', tcp(peer, '10.77.0.1', 5002, 22)],
    ['management, their port', tcp(workload, '10.77.0.2', 5003, 22)],
    ['link-local', () => pings(workload, '169.254.7.2')],
  ];
  for (const [name, work] of excluded) {
    let ok = false;
    const { redirected, excluded: count } = await moved(agent, async () => {
      ok = await work();
    });
    t.ok(ok, `${name} works`);
    t.equal(redirected, 0, `${name} is not redirected`);
    t.ok(count >= 2, `${name} is counted`);
  }
  const tunnel = await moved(agent, udp(workload, '10.77.0.2', 6081, 7000));
  t.match(tunnel, { redirected: 0, excluded: 2 }, 'the tunnel, both ways');
  const before = (await agent.stats()).packets[1];
  const fragments = () => run(peer, 'python3', '-c', udpSend, '10.77.0.1', '6081', '4000');
  t.match(await moved(agent, fragments), { excluded: 3 }, 'tunnel fragments are counted');
  t.equal((await agent.stats()).packets[1], before, 'and are not redirected');

  const seen: [string, () => Promise<boolean>][] = [
    ['one DHCP port only', udp(workload, '10.77.0.2', 68, 6000)],
    ['the tunnel port, from an ordinary one', udp(workload, '10.77.0.2', 5004, 6081)],
    ['the telemetry port as a client port', tcp(workload, '10.77.0.2', 8443, 6000)],
    ['management by another protocol', udp(workload, '10.77.0.2', 5005, 22)],
  ];
  for (const [name, work] of seen) {
    const { redirected, excluded: count } = await moved(agent, work);
    t.ok(redirected >= 2 && count === 0, `${name} is redirected`);
  }
  const multicast = () => run(workload, 'ping', '-c', '1', '-W', '0.1', '-I', 'eth0', '224.0.0.1');
  t.equal((await moved(agent, multicast)).redirected, 0, 'multicast is not redirected');
  const broadcast = () => run(workload, 'ping', '-b', '-c', '1', '-W', '0.1', '10.77.0.255');
  t.match(await moved(agent, broadcast), { redirected: 0, excluded: 1 }, 'nor directed broadcast');

  workload.ip('link set eth0 promisc on');
  peer.ip('neigh replace 10.77.0.1 lladdr 02:00:00:00:00:99 dev eth0');
  let answered = true;
  const { redirected } = await moved(agent, async () => {
    answered = await pings(peer, '10.77.0.1');
  });
  t.match(
    [redirected, answered],
    [0, false],
    "nor another host's frames on a promiscuous interface",
  );
  workload.ip('link set eth0 promisc off');
  workload.ip('addr del 169.254.7.1/24 dev eth0');
  peer.ip('addr del 169.254.7.2/24 dev eth0');
  peer.ip('neigh del 10.77.0.1 dev eth0');
});

forEachMethod('IPv6 may be dropped', async (t, start) => {
  const agent = await start({ ipv6: 'pass' });
  t.teardown(() => agent.end());
  t.ok(await pings(workload, 'fd77::2'), 'passes');
  await agent.tell({ do: 'replace', policy: { ...basePolicy, ipv6: 'drop' } });
  t.notOk(await pings(workload, 'fd77::2'), 'is dropped on its way out');
  const { droppedIpv6 } = await moved(agent, () => pings(peer, 'fd77::1'));
  t.equal(droppedIpv6, 2, 'and on its way in');
  workload.ip('-6 neigh flush dev eth0');
  const linkLocal = /inet6 (fe80[^/]+)/.exec(peer.ip('-6 addr show dev eth0'))?.[1];
  t.ok(await pings(workload, `${linkLocal}%eth0`), 'link-local and its discovery go on');
  t.ok(await pings(workload, '10.77.0.2'), 'IPv4 is as before');
});

forEachMethod('two interfaces, and a policy as long as a person would write', async (t, start) => {
  const management = Array.from({ length: 500 }, (_, index) => ({
    protocol: index % 2 === 0 ? 6 : 0,
    remote: { address: address('192.0.2.0') + index, length: 32 },
    port: index % 3 === 0 ? 0 : 22,
  }));
  const agent = await start({ interfaceNames: ['eth0', 'eth1'], management });
  t.teardown(() => agent.end());
  t.ok(await pings(peer, '10.78.0.2'));
  t.match((await agent.stats()).packets, [2, 2, 2, 2], 'four queues, both interfaces, both ways');
});
