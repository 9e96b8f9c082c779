/** The parts of the optional native packages that tests use; they bring no types of their own. */
declare module 'raw-socket' {
  type Socket = {
    setOption(level: number, option: number, value: number): void;
    send(
      buffer: Buffer,
      offset: number,
      length: number,
      address: string,
      after: (error: Error | null) => void,
    ): void;
  };
  const raw: {
    createSocket(options: { protocol: number }): Socket;
    Protocol: { UDP: number };
    SocketLevel: { IPPROTO_IP: number };
    SocketOption: { IP_HDRINCL: number };
  };
  // biome-ignore lint/style/noDefaultExport: it is a CommonJS module
  export default raw;
}

declare module 'cap' {
  type Ip = { info: { protocol: number; srcaddr: string; dstaddr: string }; offset: number };
  class Cap {
    open(device: string, filter: string, bufferLength: number, buffer: Buffer): string;
    setMinBytes?(bytes: number): void;
    on(event: 'packet', listener: (bytes: number, truncated: boolean) => void): void;
  }
  const cap: {
    Cap: typeof Cap;
    decoders: {
      Ethernet(buffer: Buffer): { info: { type: number }; offset: number };
      IPV4(buffer: Buffer, offset: number): Ip;
      UDP(buffer: Buffer, offset: number): { info: { srcport: number; dstport: number } };
      PROTOCOL: { ETHERNET: { IPV4: number }; IP: { UDP: number } };
    };
  };
  // biome-ignore lint/style/noDefaultExport: it is a CommonJS module
  export default cap;
}
