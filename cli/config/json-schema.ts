/**
 * The JSON Schema of the configuration file, for editors: generated from the very schema that reads
 * the file, so that they cannot drift apart. It accepts everything that the reader accepts; what
 * needs more than the shape of one value (sets that exist, bits beyond a prefix, times that fit)
 * only the reader refuses. A null stands for a block left empty.
 */
import { z } from 'zod';
import { setItemShape } from './rule-fields.ts';
import { sections } from './schema.ts';

type Shape = {
  type?: string | readonly string[];
  description?: string;
  default?: unknown;
  properties?: Record<string, Shape>;
  required?: string[];
  items?: Shape;
};

/** What an editor shows beside a key; `[]` is an entry of a list. The default comes last. */
const descriptions: Readonly<Record<string, string>> = {
  version: 'Version of this file: 1.',
  workload: 'The host whose traffic is redirected.',
  'workload.interfaces': 'Ethernet interfaces. Default: that of the default route.',
  'workload.management':
    'Never redirected, never dropped: CIDR, or PROTOCOL:CIDR:PORT (port at either end).',
  'workload.group': 'Hosts that have an agent each: what goes between two is inspected once.',
  'workload.group.members': 'Their networks. Default: none.',
  'workload.group.intraGroup':
    'Whose agent redirects: of who opens a connection, the other, or both. Default: destination.',
  'workload.ipv6':
    'IPv6 is not redirected: pass, or drop all but neighbour discovery. Default: pass.',
  firewalls: 'Where traffic is sent: up to 16 firewalls, in order of preference.',
  'firewalls[].name': 'How logs and status call it.',
  'firewalls[].address': 'Where the tunnel goes, an IPv4 address.',
  'firewalls[].returnFrom': 'Answers may come from here. Default: its address.',
  'firewalls[].telemetry': 'Redirection goes on only while this endpoint takes telemetry.',
  'firewalls[].telemetry.url': 'https://ADDRESS[:PORT]/PATH, an OTLP metrics endpoint.',
  'firewalls[].telemetry.ca': 'PEM file of the authority of its certificate; or use pin.',
  'firewalls[].telemetry.pin': 'sha256/ and the base64 of the SHA-256 of its public key.',
  'firewalls[].telemetry.clientCertificate': 'PEM file of our certificate; needs clientKey.',
  'firewalls[].telemetry.clientKey': 'PEM file of the key of our certificate.',
  ha: 'How a firewall is chosen, and how its health is known.',
  'ha.distribution':
    'active-passive: the first healthy one takes all; flow-hash: spread. Default: active-passive.',
  'ha.preempt': 'Go back to an earlier firewall when it is well again. Default: false.',
  'ha.holdDown': 'How long a lost firewall must be healthy to be preferred again. Default: 10s.',
  'ha.sessionSync':
    'Firewalls share sessions, so all flows may move; else policy.established. Default: true.',
  'ha.onLoss': 'flow-hash: what becomes of the flows of a lost firewall. Default: rebalance.',
  'ha.probe': 'How the health of a firewall is asked for, or off.',
  'ha.probe.kind':
    'tunnel: a packet it must return; tcp, http, https: its address. Default: tunnel; gwlb, gcp: off.',
  'ha.probe.interval': 'Time between probes. Default: 1s.',
  'ha.probe.failures': 'Intervals without an answer until it is lost. Default: 3.',
  'ha.probe.port': 'Port of tcp, http and https.',
  'ha.probe.path': 'Path of http and https; any 2xx is an answer. Default: /.',
  tunnel: 'How packets travel to the firewall and back.',
  'tunnel.encapsulation':
    'geneve (RFC 8926), gwlb (AWS), gcp (Google) or vxlan (RFC 7348). Default: geneve.',
  'tunnel.vni': 'Virtual network identifier, 24 bit. Default: 48813; gwlb, gcp: 0.',
  'tunnel.port': 'UDP port of the firewall. Default: 6081, or 4789 for vxlan.',
  'tunnel.mtu': 'Largest outer packet in bytes, or auto: what the path takes. Default: auto.',
  'tunnel.geneve': 'What geneve carries.',
  'tunnel.geneve.inner': 'Whether an Ethernet header stands before the packet. Default: ipv4.',
  'tunnel.geneve.optionClass': 'Class of the option with direction and cookie. Default: 0xFFF1.',
  'tunnel.geneve.optionType': 'Type of that option. Default: 0x20.',
  'tunnel.geneve.optionData':
    "The option's data; the direction and the cookie are put over it. Default: 0001000000000000.",
  'tunnel.geneve.directionBit':
    'Which bit of the data is 1 for ingress; 0 is the first on the wire. Default: 7.',
  'tunnel.geneve.cookieAt':
    "The byte of the data where the flow's cookie begins, or none. Default: 4.",
  'tunnel.gwlb': 'What gwlb carries: GENEVE with three options of AWS.',
  'tunnel.gwlb.endpointId': '64 bit: up to 2^53 - 1, or "0x…" in quotes. Default: 0.',
  'tunnel.gwlb.attachmentId': '64 bit: up to 2^53 - 1, or "0x…" in quotes. Default: 0.',
  'tunnel.gcp': 'What gcp carries: GENEVE with three options of Google.',
  'tunnel.gcp.endpointId': 'Hexadecimal digits in quotes, 8 for each word. Default: "00000000".',
  'tunnel.gcp.profileId': '64 bit: up to 2^53 - 1, or "0x…" in quotes. Default: 0.',
  'tunnel.vxlan': 'What vxlan carries.',
  'tunnel.vxlan.egressVni': 'VNI of what leaves the host. Default: tunnel.vni.',
  'tunnel.vxlan.ingressVni': 'VNI of what comes to the host. Default: tunnel.vni.',
  'tunnel.vxlan.egressPort': 'UDP port of what leaves the host. Default: tunnel.port.',
  'tunnel.vxlan.ingressPort': 'UDP port of what comes to the host. Default: egressPort.',
  'tunnel.vxlan.innerSource': 'MAC address of the workload end. Default: 02:00:00:00:00:01.',
  'tunnel.vxlan.innerDestination': 'MAC address of the firewall end. Default: 02:00:00:00:00:02.',
  telemetry: 'When telemetry is sent, and when it counts as lost.',
  'telemetry.interval': 'Time between reports. Default: 5s.',
  'telemetry.timeout': 'Longest time of one attempt. Default: 2s.',
  'telemetry.retries': 'Attempts that fail in a row before redirection ends. Default: 3.',
  'telemetry.startupGrace': 'How long the first success may take. Default: 15s.',
  'telemetry.encoding': 'Of the reports, OTLP: json or protobuf. Default: json.',
  'telemetry.compression': 'Of the reports: none or gzip. Default: none.',
  policy: 'What happens when something fails, and how a roll-out goes.',
  'policy.mode': 'observe: decide and count, forward nothing to the firewall. Default: enforce.',
  'policy.rollout': 'Share of new flows that are redirected, chosen by hash. Default: 100%.',
  'policy.onTelemetryLoss': 'While telemetry cannot be delivered. Default: pass.',
  'policy.onFirewallDown':
    'While no firewall is healthy, though telemetry is taken. Default: pass.',
  'policy.onAgentFailure': 'When the agent is dead or hangs. Default: pass.',
  'policy.onBoot': 'Until the firewall has taken the first telemetry. Default: pass.',
  'policy.established': 'Connections that began where the firewall did not see it. Default: pass.',
  sets: 'Named lists of addresses or of ports. Rules use one as $name, alone or in a list.',
  default: 'What becomes of a connection that no rule matches. Default: redirect.',
  rules: 'In order: the first that matches a connection decides.',
  'rules[].name': 'Unique; how logs, counters and explain call the rule.',
  'rules[].direction': 'Who opens the connection: egress is this host. Default: both.',
  'rules[].protocol': 'any, tcp, udp, icmp or a number. Default: any.',
  'rules[].local': 'Addresses of this host: address, CIDR, A-B, $set or a list. Default: any.',
  'rules[].remote': 'Addresses of the far end: address, CIDR, A-B, $set or a list. Default: any.',
  'rules[].localPort': 'Ports of this host (tcp, udp): port, A-B, $set or a list. Default: any.',
  'rules[].remotePort': 'Ports of the far end (tcp, udp): port, A-B, $set or a list. Default: any.',
  'rules[].action': 'redirect through the firewall, pass by it, or drop.',
  'rules[].onFailure':
    'Instead of onTelemetryLoss and onFirewallDown for these connections. Default: inherit.',
  'rules[].firewall': 'Name of the firewall that takes them, or a list of names. Default: any.',
  'rules[].log': 'With log.which: rules, the flow log has these connections. Default: false.',
  acceleration:
    'Who carries redirected flows once they are established: kernel, or (off) the agent. auto: the ' +
    'kernel, but on veth the agent. Default: auto.',
  limits: 'What is allocated at start.',
  'limits.flows': 'Connections at once. Default: 1048576.',
  'limits.workers': 'Threads of the data path, each with its share of the flows. Default: 1.',
  'limits.acceleratedFlows': 'Those that the kernel carries at once. Default: 65536.',
  'limits.busyPoll': 'Look for the next packet for up to 50 us before sleeping. Default: true.',
  metrics: 'The page for Prometheus.',
  'metrics.listen': 'ADDRESS:PORT to serve it on. Default: nowhere.',
  control: 'How commands reach the running agent.',
  'control.http': 'A status page for a browser.',
  'control.http.listen': 'ADDRESS:PORT of loopback, such as 127.0.0.1:9478. Default: nowhere.',
  'control.http.tokenFile': 'File with the token that may reload. Default: none, read only.',
  'control.socket': 'Path of its socket. Default: /run/microperimeter/control.sock.',
  log: 'What the agent writes to standard output.',
  'log.level': 'Default: info.',
  'log.flows':
    'Absolute path of a file that gets a line of JSON for each beginning and end of a flow.',
  'log.which': 'Of which flows: all, or those of rules with log: true. Default: all.',
  'log.format': 'auto: readable on a terminal, JSON otherwise. Default: auto.',
};

/** As a file: two spaces, a newline at the end. */
export function jsonSchemaText(): string {
  return `${JSON.stringify(jsonSchema(), null, 2)}\n`;
}

function jsonSchema(): object {
  const shape = z.toJSONSchema(z.strictObject(sections), { io: 'input' }) as Shape;
  finish(shape, '');
  return {
    ...shape,
    title: 'Configuration of microperimeter',
    $defs: { setItem: setItemShape },
  };
}

function finish(shape: Shape, path: string): void {
  // Zod's are values as read: milliseconds, addresses as numbers.
  delete shape.default;
  const words = descriptions[path];
  if (words !== undefined && shape.description === undefined) shape.description = words;
  if (shape.items !== undefined) finish(shape.items, `${path}[]`);
  const properties = shape.properties ?? {};
  for (const [key, inner] of Object.entries(properties)) {
    finish(inner, path === '' ? key : `${path}.${key}`);
  }
  const required = shape.required?.filter((key) => !mayBeEmpty(properties[key]!)) ?? [];
  if (required.length > 0) shape.required = required;
  else delete shape.required;
}

/** A block or list that may be left empty may be left out, too. */
function mayBeEmpty({ type }: Shape): boolean {
  return Array.isArray(type) && type.includes('null');
}
