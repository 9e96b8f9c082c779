/** What steering does when the engine says so, hangs, dies, or leaves. */
import { existsSync, readFileSync } from 'node:fs';
import { KernelVerdict, SteeringMode } from '../../engine/io.ts';
import { releaseLeftovers } from '../../linux/bpf/methods.ts';
import { insideNamespace } from '../../linux/namespace.ts';
import {
  basePolicy,
  echoes,
  filters,
  forEachMethod,
  local,
  moved,
  onHook,
  pause,
  peer,
  pinDirectory,
  pings,
  remote,
  run,
  UDP,
  workload,
} from './steering-lab.ts';

/** The workload's interface, both ways, and the TUN device. */
const hooks = () => [
  onHook('eth0', 'egress'),
  onHook('eth0', 'ingress'),
  onHook('mptun', 'ingress'),
];

forEachMethod('the engine rules by mode, heartbeat and verdicts', async (t, start) => {
  const agent = await start({}, SteeringMode.Pass);
  t.teardown(() => agent.end());
  const ping = () => pings(workload, '10.77.0.2');
  const ports = [5000, 6000] as const;
  const talk = () => echoes('udp', workload, peer, '10.77.0.2', ports);
  const flow: [number, number, number, number, number] = [local, remote, ...ports, UDP];

  t.match(await moved(agent, ping), { redirected: 0, passedMode: 4 }, 'mode pass');
  await agent.tell({ do: 'mode', mode: SteeringMode.Drop });
  t.notOk(await ping(), 'mode drop');
  t.ok((await agent.counters()).droppedMode.packets >= 2, 'is counted');
  await agent.tell({ do: 'mode', mode: SteeringMode.Redirect });

  await agent.tell({ do: 'remember', flow, verdict: KernelVerdict.Pass });
  t.match(await moved(agent, talk), { redirected: 0, passedVerdict: 2 }, 'remembered, both ways');
  await agent.tell({ do: 'forgetAll' });
  t.match(await moved(agent, talk), { redirected: 2, passedVerdict: 0 }, 'forgotten at once');
  await agent.tell({ do: 'remember', flow, verdict: KernelVerdict.Drop });
  t.match(await moved(agent, talk), { redirected: 0, droppedVerdict: 1 }, 'remembered to drop');

  await agent.tell({ do: 'remember', flow: [local, remote, ...ports, 6], verdict: 1 });
  const connect = () => echoes('tcp', workload, peer, '10.77.0.2', ports);
  const shown = await moved(agent, connect);
  t.ok(shown.redirected > 1, 'a new connection is shown to the engine, whole');
  t.equal(shown.passedVerdict, 0, 'the verdict on the last one is gone');

  await agent.tell({ do: 'heartbeat', on: false });
  await pause(350);
  t.match(await moved(agent, ping), { redirected: 0, passedAgentDead: 4 }, 'a hung engine');
  await agent.tell({ do: 'heartbeat', on: true });
  await pause(20);
  t.match(await moved(agent, ping), { redirected: 4 }, 'and one that woke up');

  await agent.tell({ do: 'replace', policy: { ...basePolicy, onAgentFailure: 'drop' } });
  t.match(await moved(agent, ping), { redirected: 4 }, 'other programs, same mode');
  await agent.tell({ do: 'heartbeat', on: false });
  await pause(350);
  t.notOk(await ping(), 'a hung engine that must not let pass');
  t.ok((await agent.counters()).droppedAgentDead.packets >= 2);
  await agent.tell({ do: 'replace', policy: basePolicy });
  t.notOk(existsSync(pinDirectory), 'nothing is pinned any more');
  t.ok(await ping());

  await agent.tell({ do: 'heartbeat', on: true });
  await pause(20);
  await agent.tell({ do: 'closeTun' });
  t.notOk(await ping(), 'without the TUN device packets are lost, no more');
});

forEachMethod('the bound of a failure', async (t, start) => {
  const agent = await start({ heartbeatTimeoutMs: 200 });
  t.teardown(() => agent.end());
  agent.child.kill('SIGSTOP');
  const stopped = performance.now();
  const { text } = await run(workload, 'ping', '-n', '-i', '0.01', '-c', '60', '10.77.0.2');
  agent.child.kill('SIGCONT');
  const first = Number(/icmp_seq=(\d+)/.exec(text)?.[1]);
  t.ok(first < 30, `the first answer is to ping ${first}, one every 10 ms`);
  t.ok(performance.now() - stopped < 3000);
});

forEachMethod('programs outlive a killed agent until the next takes over', async (t, start) => {
  const drop = { onAgentFailure: 'drop', management: [] } as const;
  const first = await start(drop);
  t.ok(await pings(workload, '10.77.0.2'));
  await first.end('SIGKILL');
  t.notOk(await pings(workload, '10.77.0.2'), 'traffic is dropped at once');
  await pause(350);
  t.notOk(await pings(workload, '10.77.0.2'), 'and later');

  const second = await start(drop);
  t.ok(await pings(workload, '10.77.0.2'), 'the next agent takes over');
  t.match(hooks(), [1, 1, 1], 'the old programs are gone');
  await second.end('SIGKILL');
  t.notOk(await pings(workload, '10.77.0.2'));

  const third = await start({});
  t.ok(await pings(workload, '10.77.0.2'), 'one that fails open takes over, too');
  t.match(hooks(), [1, 1, 1]);
  t.notOk(existsSync(pinDirectory), 'and leaves nothing pinned');
  await third.end('SIGKILL');
  await pause(350);
  t.ok(await pings(workload, '10.77.0.2'), 'traffic flows directly');

  await (await start(drop)).end('SIGKILL');
  t.notOk(await pings(workload, '10.77.0.2'));
  const release = () => releaseLeftovers(pinDirectory, 'agent');
  t.equal(release(), 0, 'another network namespace is let alone');
  t.equal(insideNamespace(workload.path, release), 2, 'an operator removes them by hand');
  t.ok(await pings(workload, '10.77.0.2'));
  t.notOk(existsSync(pinDirectory));
});

forEachMethod(
  'what others take away is missed, and put back by a replacement',
  async (t, start) => {
    for (const onAgentFailure of ['pass', 'drop'] as const) {
      const agent = await start({ onAgentFailure });
      t.same(await agent.tell({ do: 'missing' }), []);
      workload.ip('link set eth0 name gone');
      workload.ip('link add eth0 type veth peer name other');
      workload.ip('link del eth0');
      workload.ip('link set gone name eth0');
      t.same(await agent.tell({ do: 'missing' }), [], 'a change of name is none');
      if (filters('eth0', 'egress').length > 0) {
        workload.must('tc', ['qdisc', 'del', 'dev', 'eth0', 'clsact']);
      } else {
        const file = `${process.cwd()}/dist/test/net/tcx-intruder.js`;
        workload.must(process.execPath, [file, 'detach']);
      }
      const missing = (await agent.tell({ do: 'missing' })) as object[];
      t.match(missing[0], { interfaceName: 'eth0', hook: 'egress' });
      await agent.tell({ do: 'replace', policy: { ...basePolicy, onAgentFailure } });
      t.same(await agent.tell({ do: 'missing' }), []);
      t.match(hooks(), [1, 1, 1]);
      t.match(await moved(agent, () => pings(workload, '10.77.0.2')), { redirected: 4 });
      await agent.tell({ do: 'detach' });
      t.match(hooks(), [0, 0, 0]);
      t.notOk(existsSync(pinDirectory));
      await agent.end();
    }
  },
);

forEachMethod('nothing is left', async (t, start) => {
  for (const onAgentFailure of ['pass', 'drop'] as const) {
    const agent = await start({ onAgentFailure });
    t.match(hooks(), [1, 1, 1], 'one program on each hook');
    t.ok(await pings(workload, '10.77.0.2'));
    await agent.tell({ do: 'detach' });
    t.match(hooks(), [0, 0, 0], `none after detach (${onAgentFailure})`);
    t.notOk(existsSync(pinDirectory));
    t.notMatch(readFileSync('/proc/self/mountinfo', 'utf8'), pinDirectory, 'no mount');
    t.ok(await pings(workload, '10.77.0.2'), 'traffic flows directly');
    await agent.end();
  }
  const names = JSON.parse(workload.ip('-j link')).map((link: { ifname: string }) => link.ifname);
  t.match(names, ['lo', 'eth0', 'eth1'], 'interfaces');
});
