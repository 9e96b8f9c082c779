/** Where the load programs talk to. */
import * as abi from '../../linux/abi/net.ts';
import { LITTLE_ENDIAN } from '../../linux/syscall.ts';

/** A sockaddr_in at the start of `view`; `address` as text. */
export function writeAddress(view: DataView, address: string, port: number): void {
  view.setUint16(abi.sockaddr_in.sin_family, abi.AF_INET, LITTLE_ENDIAN);
  view.setUint16(abi.sockaddr_in.sin_port, port);
  const bytes = address.split('.').map(Number);
  bytes.forEach((byte, index) => {
    view.setUint8(abi.sockaddr_in.sin_addr + index, byte);
  });
}
