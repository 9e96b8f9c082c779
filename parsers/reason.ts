/**
 * The one table of packet fates. Every packet that the engine reads ends under exactly one reason:
 * forwarded (and how), dropped (and why), or consumed, when it was for the agent itself. Counters
 * are flat arrays indexed by these numbers, the name is the label in metrics and JSON, the sentence
 * is what a person is shown.
 *
 * The table knows the reasons of upper folders by name: a vocabulary, not an import. It is the
 * price of one flat counter array. A new reason is a new row here and nothing else.
 */

export type ReasonKind = 'none' | 'forwarded' | 'dropped' | 'consumed';

type Row = readonly [name: string, kind: ReasonKind, sentence: string];

const rows = {
  /** Not a fate: a check found nothing wrong and the packet goes on to the next step. */
  Ok: ['ok', 'none', 'nothing wrong so far'],

  // Forwarded.
  Redirected: ['redirected', 'forwarded', 'sent through the tunnel to the firewall'],
  Reinjected: ['reinjected', 'forwarded', 'came back from the firewall and was put on the network'],
  PassedByRule: ['passed-by-rule', 'forwarded', 'a rule says pass, so it went straight on'],
  PassedBuiltIn: ['passed-built-in', 'forwarded', 'never redirected, whatever the rules say'],
  PassedEstablished: [
    'passed-established',
    'forwarded',
    'its connection began where the firewall did not see it, so it passes until it ends',
  ],
  PassedGateClosed: [
    'passed-gate-closed',
    'forwarded',
    'the gate was closed and its policy is pass',
  ],
  PassedFirewallDown: [
    'passed-firewall-down',
    'forwarded',
    'no firewall that may take it was healthy and the policy is pass',
  ],
  PassedByRollout: [
    'passed-by-rollout',
    'forwarded',
    'would be redirected, but is not in the share that rollout redirects',
  ],
  PassedObserved: [
    'passed-observed',
    'forwarded',
    'mode observe: would be redirected, went straight on',
  ],
  PassedUnrelatedError: [
    'passed-unrelated-error',
    'forwarded',
    'an ICMP error about a connection that we do not know',
  ],

  // Consumed.
  ProbeAnswered: ['probe-answered', 'consumed', 'the firewall returned a probe'],

  // Dropped: the packet itself is wrong.
  VirtioTooShort: ['virtio-too-short', 'dropped', 'shorter than its virtio header'],
  VirtioBadGso: [
    'virtio-bad-gso',
    'dropped',
    'virtio header with an unknown or impossible GSO type',
  ],
  VirtioBadChecksum: [
    'virtio-bad-checksum',
    'dropped',
    'virtio header places the checksum outside',
  ],
  Ipv4TooShort: ['ipv4-too-short', 'dropped', 'shorter than an IPv4 header'],
  Ipv4BadVersion: ['ipv4-bad-version', 'dropped', 'the version field is not 4'],
  Ipv4BadHeaderLength: [
    'ipv4-bad-header-length',
    'dropped',
    'header length below 20 or past the end',
  ],
  Ipv4BadTotalLength: [
    'ipv4-bad-total-length',
    'dropped',
    'total length below the header or past the end',
  ],
  Ipv4BadChecksum: ['ipv4-bad-checksum', 'dropped', 'the IPv4 header checksum is wrong'],
  TcpTooShort: ['tcp-too-short', 'dropped', 'shorter than a TCP header'],
  TcpBadHeaderLength: ['tcp-bad-header-length', 'dropped', 'data offset below 20 or past the end'],
  UdpTooShort: ['udp-too-short', 'dropped', 'shorter than a UDP header'],
  UdpBadLength: ['udp-bad-length', 'dropped', 'the UDP length field is below 8 or past the end'],
  IcmpTooShort: ['icmp-too-short', 'dropped', 'shorter than an ICMP header'],
  FragmentTiny: [
    'fragment-tiny',
    'dropped',
    'a first fragment too short to hold its ports (RFC 1858)',
  ],
  FragmentOverlap: [
    'fragment-overlap',
    'dropped',
    'a fragment that overlaps its transport header (RFC 3128)',
  ],
  FragmentPastEnd: [
    'fragment-past-end',
    'dropped',
    'a fragment that reaches past the end of the largest packet',
  ],
  FragmentUnmatched: [
    'fragment-unmatched',
    'dropped',
    'a fragment whose first fragment never came',
  ],
  FragmentsFull: [
    'fragments-full',
    'dropped',
    'too many fragments are waiting for their first one',
  ],
  ChecksumWrong: [
    'checksum-wrong',
    'dropped',
    'must be cut, which computes its checksum anew, and the one it has is wrong',
  ],
  GsoUnsupported: ['gso-unsupported', 'dropped', 'a super-packet of a kind that cannot be cut'],

  // Dropped: policy.
  DroppedByRule: ['dropped-by-rule', 'dropped', 'a rule says drop'],
  DroppedGateClosed: [
    'dropped-gate-closed',
    'dropped',
    'the gate was closed and its policy is drop',
  ],
  DroppedFirewallDown: [
    'dropped-firewall-down',
    'dropped',
    'no firewall that may take it was healthy and the policy is drop',
  ],
  ResetEstablished: [
    'reset-established',
    'dropped',
    'its connection began where the firewall did not see it; both ends were reset',
  ],
  FlowsFull: ['flows-full', 'dropped', 'the flow table is full and nothing could be evicted'],
  TooBig: [
    'too-big',
    'dropped',
    'larger than the tunnel allows with DF set; the sender was told (ICMP 3/4)',
  ],
  TooBigSilent: [
    'too-big-silent',
    'dropped',
    'larger than the tunnel allows; no ICMP may be sent about it',
  ],

  // Dropped: what came from the tunnel.
  TunnelTruncated: ['tunnel-truncated', 'dropped', 'a datagram larger than the receive buffer'],
  TunnelSender: [
    'tunnel-sender',
    'dropped',
    'a tunnel packet that does not come from the firewall',
  ],
  TunnelTooShort: ['tunnel-too-short', 'dropped', 'shorter than its tunnel header'],
  TunnelBadVersion: ['tunnel-bad-version', 'dropped', 'GENEVE version is not 0'],
  TunnelBadFlags: [
    'tunnel-bad-flags',
    'dropped',
    'tunnel flags that must not be set, or the VNI flag missing',
  ],
  TunnelBadOptions: [
    'tunnel-bad-options',
    'dropped',
    'GENEVE options whose lengths, number or order are wrong',
  ],
  TunnelCriticalOption: [
    'tunnel-critical-option',
    'dropped',
    'a critical GENEVE option that we do not know',
  ],
  TunnelBadProtocol: [
    'tunnel-bad-protocol',
    'dropped',
    'the inner protocol is not the configured one',
  ],
  TunnelVni: ['tunnel-vni', 'dropped', 'another virtual network identifier than ours'],
  TunnelIdentity: [
    'tunnel-identity',
    'dropped',
    'the endpoint, attachment or profile in the header is missing or not ours',
  ],
  TunnelControl: ['tunnel-control', 'dropped', 'a GENEVE control packet that nobody asked for'],
  TunnelCookieMissing: ['tunnel-cookie-missing', 'dropped', 'the header carries no flow cookie'],
  TunnelCookieWrong: ['tunnel-cookie-wrong', 'dropped', 'the cookie is not the one of this flow'],
  FlowUnknown: [
    'flow-unknown',
    'dropped',
    'the firewall returned a packet of a flow that does not exist',
  ],
  FlowNotRedirected: [
    'flow-not-redirected',
    'dropped',
    'the firewall returned a packet of a flow that was not redirected',
  ],

  ProbeUnknown: [
    'probe-unknown',
    'dropped',
    'looks like a probe, and is none that we sent and that is still to be answered',
  ],

  // Dropped: the kernel said no.
  SocketFull: ['socket-full', 'dropped', 'the tunnel socket had no room (EAGAIN, ENOBUFS)'],
  SocketUnreachable: [
    'socket-unreachable',
    'dropped',
    'no way to the firewall (ENETUNREACH, EHOSTUNREACH)',
  ],
  SocketTooBig: [
    'socket-too-big',
    'dropped',
    'the path to the firewall became narrower (EMSGSIZE)',
  ],
  SocketRefused: ['socket-refused', 'dropped', 'the kernel refused the datagram for another cause'],
  DeviceFull: ['device-full', 'dropped', 'the TUN device had no room (EAGAIN, ENOBUFS)'],
  DeviceDown: ['device-down', 'dropped', 'the TUN device is down or gone (EIO, ENETDOWN, EBADFD)'],
  DeviceRefused: [
    'device-refused',
    'dropped',
    'the TUN device refused the packet (EINVAL and others)',
  ],
} as const satisfies Record<string, Row>;

type ReasonName = keyof typeof rows;
const keys = Object.keys(rows) as ReasonName[];

/** Numbers by name: `Reason.Ok` is 0; each is the index of its counters. */
export const Reason = Object.freeze(
  Object.fromEntries(keys.map((key, index) => [key, index])),
) as unknown as { readonly [K in ReasonName]: Reason };
export type Reason = number & { readonly __brand?: 'Reason' };

/** How many reasons there are: the length of every counter column. */
export const reasonCount = keys.length;

/** The label in metrics and JSON, such as `tunnel-cookie-wrong`. */
export const reasonNames: readonly string[] = keys.map((key) => rows[key][0]);
/** What a person is shown. */
export const reasonSentences: readonly string[] = keys.map((key) => rows[key][2]);
export const reasonKinds: readonly ReasonKind[] = keys.map((key) => rows[key][1]);
