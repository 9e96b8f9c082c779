/** What the errno of a send means: for the datagram, and for whether to try again. */
import { constants } from 'node:os';
import { Reason } from '../parsers/reason.ts';

const { EAGAIN, ENOBUFS, ENOMEM, EMSGSIZE, ENETUNREACH, EHOSTUNREACH, ENETDOWN } = constants.errno;
const { ECONNREFUSED, EDESTADDRREQ, ENOPROTOOPT, EOPNOTSUPP } = constants.errno;
/** Not in node:os on every version. */
const EHOSTDOWN = 112;

/** Errors that an ICMP message may have left on the socket (net/ipv4/icmp.c icmp_err_convert). */
export function mayBePending(code: number): boolean {
  return (
    code === ECONNREFUSED ||
    code === ENETUNREACH ||
    code === EHOSTUNREACH ||
    code === EHOSTDOWN ||
    code === EMSGSIZE ||
    code === ENOPROTOOPT ||
    code === EOPNOTSUPP
  );
}

/** The fate of a datagram that the kernel did not take. */
export function socketReason(code: number): Reason {
  switch (code) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
      return Reason.SocketFull;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
    // Not connected: there was no route when it was last tried.
    case EDESTADDRREQ:
      return Reason.SocketUnreachable;
    case EMSGSIZE:
      return Reason.SocketTooBig;
    default:
      return Reason.SocketRefused;
  }
}
