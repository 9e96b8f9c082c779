/** Writing and reading rtnetlink messages; pure. Cold path: clear before fast. */
import { NLA_F_NESTED, NLA_TYPE_MASK, nlattr, nlmsghdr } from './abi/netlink.ts';
import { LITTLE_ENDIAN } from './syscall.ts';

/** Room for any request we make: the largest carries two names and a few numbers. */
const requestLength = 256;

function align(length: number): number {
  return (length + 3) & ~3;
}

/** A request under construction: a fixed part, then attributes. */
export class NetlinkRequest {
  private readonly view = new DataView(new ArrayBuffer(requestLength));
  private at: number = nlmsghdr.size;
  /** The fixed part after the message header, such as an ifinfomsg, zeroed. */
  readonly body: DataView;

  constructor(type: number, flags: number, bodyLength: number) {
    this.view.setUint16(nlmsghdr.nlmsg_type, type, LITTLE_ENDIAN);
    this.view.setUint16(nlmsghdr.nlmsg_flags, flags, LITTLE_ENDIAN);
    this.body = new DataView(this.view.buffer, this.at, bodyLength);
    this.at += align(bodyLength);
  }

  number8(type: number, value: number): this {
    this.view.setUint8(this.open(type, 1), value);
    return this;
  }

  number32(type: number, value: number): this {
    this.view.setUint32(this.open(type, 4), value, LITTLE_ENDIAN);
    return this;
  }

  /** An IPv4 address given as int32 of its wire bytes. */
  address(type: number, address: number): this {
    this.view.setInt32(this.open(type, 4), address);
    return this;
  }

  /** A C string. */
  text(type: number, text: string): this {
    const bytes = new TextEncoder().encode(`${text}\0`);
    new Uint8Array(this.view.buffer).set(bytes, this.open(type, bytes.length));
    return this;
  }

  nest(type: number, fill: () => void): this {
    const start = this.at;
    this.open(type | NLA_F_NESTED, 0);
    fill();
    this.view.setUint16(start + nlattr.nla_len, this.at - start, LITTLE_ENDIAN);
    return this;
  }

  bytes(): Uint8Array {
    this.view.setUint32(nlmsghdr.nlmsg_len, this.at, LITTLE_ENDIAN);
    return new Uint8Array(this.view.buffer, 0, this.at);
  }

  private open(type: number, length: number): number {
    const data = this.at + nlattr.size;
    this.view.setUint16(this.at + nlattr.nla_len, nlattr.size + length, LITTLE_ENDIAN);
    this.view.setUint16(this.at + nlattr.nla_type, type, LITTLE_ENDIAN);
    this.at = data + align(length);
    return data;
  }
}

/** The C string that an attribute holds; empty when it is missing. */
export function attributeText(view: DataView | undefined): string {
  if (view === undefined) return '';
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  return new TextDecoder().decode(bytes).replace(/\0.*$/, '');
}

/** One message of an answer: its type, flags and what follows its header. */
export type NetlinkMessage = { type: number; flags: number; payload: DataView };

/** Take apart what one receive returned; stops at the first length that does not fit. */
export function parseMessages(bytes: Uint8Array): NetlinkMessage[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const messages: NetlinkMessage[] = [];
  let at = 0;
  while (at + nlmsghdr.size <= view.byteLength) {
    const length = view.getUint32(at + nlmsghdr.nlmsg_len, LITTLE_ENDIAN);
    if (length < nlmsghdr.size || length > view.byteLength - at) break;
    messages.push({
      type: view.getUint16(at + nlmsghdr.nlmsg_type, LITTLE_ENDIAN),
      flags: view.getUint16(at + nlmsghdr.nlmsg_flags, LITTLE_ENDIAN),
      payload: new DataView(
        bytes.buffer,
        bytes.byteOffset + at + nlmsghdr.size,
        length - nlmsghdr.size,
      ),
    });
    at += align(length);
  }
  return messages;
}

/** Attributes of `view` from `at` to its end, by type; stops at the first that does not fit. */
export function parseAttributes(view: DataView, at: number): Map<number, DataView> {
  const attributes = new Map<number, DataView>();
  while (at + nlattr.size <= view.byteLength) {
    const length = view.getUint16(at + nlattr.nla_len, LITTLE_ENDIAN);
    if (length < nlattr.size || length > view.byteLength - at) break;
    attributes.set(
      view.getUint16(at + nlattr.nla_type, LITTLE_ENDIAN) & NLA_TYPE_MASK,
      new DataView(view.buffer, view.byteOffset + at + nlattr.size, length - nlattr.size),
    );
    at += align(length);
  }
  return attributes;
}
