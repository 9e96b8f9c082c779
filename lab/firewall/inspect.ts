/**
 * What the first bytes of a connection say: HTTP/1 requests with their host and path (RFC 9112),
 * the server name of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3). Pure. Not on
 * the fast path: asked only while a connection is new.
 */

export type HttpRequest = { readonly method: string; readonly host: string; readonly path: string };

const requestLine = /(?:^|\r\n)([A-Z]{3,10}) (\S+) HTTP\/1\.[01]\r\n/g;
const hostHeader = /(?:^|\r\n)host:[ \t]*([^\r\n]*?)[ \t]*\r\n/i;

/**
 * Every HTTP/1 request whose first line is there. `host` is without port and in lower case, and
 * empty until its header has come whole.
 */
export function findHttpRequests(text: string): HttpRequest[] {
  const requests: HttpRequest[] = [];
  for (const match of text.matchAll(requestLine)) {
    const headAt = match.index + match[0].length;
    const headEnd = text.indexOf('\r\n\r\n', headAt - 2);
    const head = text.slice(headAt, headEnd < 0 ? text.length : headEnd + 2);
    const [, method = '', target = ''] = match;
    const absolute = /^https?:\/\/([^/]*)(\/.*)?$/i.exec(target);
    const host = absolute?.[1] ?? hostHeader.exec(head)?.[1] ?? '';
    requests.push({
      method,
      host: host.replace(/:\d+$/, '').toLowerCase(),
      path: absolute === null ? target : (absolute[2] ?? '/'),
    });
  }
  return requests;
}

const handshakeRecord = 22;
const clientHello = 1;
const serverNameExtension = 0;

/**
 * The server name in a ClientHello at the start of `bytes`, in lower case; undefined when there is
 * none, when these are not the first bytes of TLS, or when the part with the name has not come yet.
 */
export function findServerName(bytes: Uint8Array): string | undefined {
  const hello = new Reader(joinHandshakeRecords(bytes));
  if (hello.number(1) !== clientHello) return undefined;
  hello.skip(3 + 2 + 32);
  hello.skip(hello.number(1));
  hello.skip(hello.number(2));
  hello.skip(hello.number(1));
  hello.skip(2);
  while (!hello.exhausted) {
    const type = hello.number(2);
    const length = hello.number(2);
    if (type !== serverNameExtension) {
      hello.skip(length);
      continue;
    }
    hello.skip(2);
    if (hello.number(1) !== 0) return undefined;
    const name = hello.text(hello.number(2));
    return hello.exhausted ? undefined : name.toLowerCase();
  }
  return undefined;
}

/** Payloads of the handshake records at the start, which may cut a message anywhere. */
function joinHandshakeRecords(bytes: Uint8Array): Uint8Array {
  const joined = new Uint8Array(bytes.length);
  let length = 0;
  let at = 0;
  while (at + 5 <= bytes.length && bytes[at] === handshakeRecord && bytes[at + 1] === 3) {
    const record = bytes.subarray(at + 5, at + 5 + bytes[at + 3]! * 256 + bytes[at + 4]!);
    joined.set(record, length);
    length += record.length;
    at += 5 + bytes[at + 3]! * 256 + bytes[at + 4]!;
  }
  return joined.subarray(0, length);
}

/** Reads big-endian numbers; past the end it gives zeros and says that it is exhausted. */
class Reader {
  private readonly bytes: Uint8Array;
  private at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** True once something was asked for that was not all there. */
  get exhausted(): boolean {
    return this.at > this.bytes.length;
  }

  number(length: number): number {
    let value = 0;
    for (let index = 0; index < length; index++) {
      value = value * 256 + (this.bytes[this.at + index] ?? 0);
    }
    this.at += length;
    return value;
  }

  skip(length: number): void {
    this.at += length;
  }

  text(length: number): string {
    const part = this.bytes.subarray(this.at, this.at + length);
    this.at += length;
    return Buffer.from(part).toString('latin1');
  }
}
