// Untimed: another test may run beside this one.
/**
 * Telemetry to a collector as it stands in the field (needs root): an nginx with TLS, HTTP/2 and
 * required client certificates, and behind it OpenTelemetry's own definitions of the messages.
 *
 *     workload 10.1.0.10 - router - transit - firewall 10.9.0.4:8443 nginx - :4318 collector
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createCertificates } from '../../lab/certificates.ts';
import { must } from '../../lab/namespace.ts';
import { run, start, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

const port = 8443;
/** Debian's: its modules are for no other. */
const python = '/usr/bin/python3';

type Point = { readonly asInt?: string; readonly asDouble?: number };
type Metric = {
  readonly name: string;
  readonly sum?: { readonly dataPoints: readonly Point[]; readonly isMonotonic: boolean };
  readonly gauge?: { readonly dataPoints: readonly Point[] };
};
type Seen = {
  readonly kind: string;
  readonly encoding: string;
  readonly client: string;
  readonly path: string;
  readonly report: {
    readonly error?: string;
    readonly resourceMetrics: readonly {
      readonly resource: { readonly attributes: readonly { readonly key: string }[] };
      readonly scopeMetrics: readonly { readonly metrics: readonly Metric[] }[];
    }[];
  };
};

function nginxConfig(directory: string, certificate: string, key: string, ca: string): string {
  return `
daemon off;
pid ${directory}/nginx.pid;
error_log ${directory}/nginx-error.log;
events {}
http {
  log_format protocol '$server_protocol $status';
  access_log ${directory}/nginx-access.log protocol;
  client_body_temp_path ${directory}/nginx-body;
  proxy_temp_path ${directory}/nginx-proxy;
  fastcgi_temp_path ${directory}/nginx-fastcgi;
  uwsgi_temp_path ${directory}/nginx-uwsgi;
  scgi_temp_path ${directory}/nginx-scgi;
  server {
    listen ${addresses.firewall}:${port} ssl http2;
    ssl_certificate ${certificate};
    ssl_certificate_key ${key};
    ssl_client_certificate ${ca};
    ssl_verify_client on;
    location /v1/metrics {
      proxy_http_version 1.1;
      proxy_set_header x-client $ssl_client_s_dn;
      proxy_pass http://127.0.0.1:4318;
    }
    location /moved { return 308 https://${addresses.firewall}:${port}/v1/metrics; }
  }
}
`;
}

type Field = {
  readonly hairpin: Hairpin;
  readonly seen: Seen[];
  /** The `firewalls` section of an agent that reports to the nginx. */
  firewalls(path: string, withCertificate: boolean): object[];
};

async function startCollector(t: Test): Promise<Field> {
  const hairpin = await startHairpin(t);
  const { certificates, directory, topology } = hairpin;
  const seen: Seen[] = [];
  const collector = start(topology.firewall, python, ['test/support/collector.py', '4318'], {
    onLine: (line) => seen.push(JSON.parse(line) as Seen),
  });
  t.teardown(() => collector.stop());
  await until('the collector listens', 10_000, () => {
    if (collector.exitCode === undefined) return seen.length > 0;
    throw new Error(`apt install python3-opentelemetry-proto: ${collector.errors.trim()}`);
  });
  seen.length = 0;
  const client = createCertificates(directory, 'client', addresses.workload);
  must('sed', ['-i', 's/serverAuth/clientAuth/', join(directory, 'client.ext')]);
  must('openssl', [
    ...['x509', '-req', '-in', join(directory, 'client.csr'), '-CA', client.ca, '-days', '2'],
    ...['-CAkey', join(directory, 'client-ca.key'), '-CAcreateserial'],
    ...['-extfile', join(directory, 'client.ext'), '-out', client.certificate],
  ]);
  const config = join(directory, 'nginx.conf');
  const { certificate, key } = certificates;
  writeFileSync(config, nginxConfig(directory, certificate, key, client.ca));
  const nginx = start(topology.firewall, 'nginx', ['-c', config, '-e', 'stderr']);
  t.teardown(() => nginx.stop());
  await until('nginx listens', 10_000, async () => {
    if (nginx.exitCode !== undefined) throw new Error(`nginx: ${nginx.errors.trim()}`);
    return (await run(topology.firewall, 'ss', ['-Htln'])).output.includes(`:${port} `);
  });
  const firewalls = (path: string, withCertificate: boolean) => [
    {
      name: 'lab-firewall',
      address: addresses.firewall,
      telemetry: {
        url: `https://${addresses.firewall}:${port}${path}`,
        ca: certificates.ca,
        ...(withCertificate
          ? { clientCertificate: client.certificate, clientKey: client.key }
          : {}),
      },
    },
  ];
  return { hairpin, seen, firewalls };
}

const metricNames = [
  'microperimeter.agent.uptime',
  'microperimeter.bytes',
  'microperimeter.firewall.active',
  'microperimeter.firewall.returned',
  'microperimeter.firewall.sent',
  'microperimeter.firewall.usable',
  'microperimeter.flows',
  'microperimeter.gate.open',
  'microperimeter.packets',
];

t.test('both encodings, plain and compressed, are what OpenTelemetry defines', async (t) => {
  const { firewalls, hairpin, seen } = await startCollector(t);
  const { topology } = hairpin;
  for (const encoding of ['json', 'protobuf']) {
    for (const compression of ['none', 'gzip']) {
      seen.length = 0;
      const settings = { telemetry: { interval: '500ms', encoding, compression } };
      const agent = hairpin.launchAgent(settings, { firewalls: firewalls('/v1/metrics', true) });
      await agent.reach('redirecting', 10_000);
      await shell(topology.workload, `ping -qc 3 -i 0.1 ${addresses.server}`);
      const at = seen.length;
      await until('two more reports', 5000, () => seen.length > at + 2);
      const last = seen.at(-1)!;
      const name = `${encoding}, ${compression}`;
      t.same(
        seen.flatMap(({ report }) => report.error ?? []),
        [],
        `${name}: nothing is refused`,
      );
      const kind = encoding === 'json' ? 'application/json' : 'application/x-protobuf';
      const zip = compression === 'none' ? '' : 'gzip';
      t.match(last, { kind, encoding: zip, client: 'CN=client', path: '/v1/metrics' });
      const [{ resource, scopeMetrics }] = last.report.resourceMetrics as [
        Seen['report']['resourceMetrics'][number],
      ];
      t.match(resource.attributes.map(({ key }) => key).sort(), [
        ...['host.name', 'service.instance.id', 'service.name', 'service.version'],
      ]);
      const { metrics } = scopeMetrics[0]!;
      t.same(metrics.map((metric) => metric.name).sort(), metricNames, name);
      const packets = metrics.find((metric) => metric.name === 'microperimeter.packets')!;
      const points = packets.sum!.dataPoints.map((point) => Number(point.asInt));
      const { counters } = (await agent.status())!;
      const told = Object.values(counters).map((amount) => amount.packets);
      t.same(points.sort(), told.sort(), `${name}: the counters of status`);
      t.equal(await agent.program.stop(), 0);
    }
  }
  const log = await shell(topology.firewall, `sort -u ${hairpin.directory}/nginx-access.log`);
  t.equal(log, 'HTTP/1.1 200', 'HTTP/2 is offered and not taken');
});

t.test('what a proxy in front refuses, closes the gate and says why', async (t) => {
  const { firewalls, hairpin, seen } = await startCollector(t);
  const rows: [name: string, path: string, withCertificate: boolean, words: RegExp][] = [
    ['no client certificate', '/v1/metrics', false, /status 400/],
    ['a redirect', '/moved', true, /redirect to https:.*which is not followed/],
    ['nothing there', '/nowhere', true, /status 404/],
  ];
  for (const [name, path, withCertificate, words] of rows) {
    const settings = { telemetry: { startupGrace: '500ms' } };
    const agent = hairpin.launchAgent(settings, { firewalls: firewalls(path, withCertificate) });
    await agent.reach('closed', 10_000);
    await until('the log has it', 2000, () => words.test(agent.words)).catch(() => {});
    t.match(agent.words, words, name);
    t.equal(await agent.program.stop(), 0);
  }
  t.equal(seen.length, 0, 'the collector saw nothing');
});
