/** What listens on an address of the configuration's. */
import type { Server } from 'node:http';
import { ControlError, errnoNameOf } from './errors.ts';

/**
 * @param what listens, for a person: `metrics`
 * @param key in the configuration that names another address or port
 * @throws ControlError when the address or the port cannot be had
 */
export function listen(
  server: Server,
  address: string,
  port: number,
  what: string,
  key: string,
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      reject(
        new ControlError(
          'ERR_LISTEN_ADDRESS',
          `${what} cannot listen on ${address}:${port} (${errnoNameOf(error)})`,
          `Choose another address or port by ${key} in the configuration.`,
        ),
      );
    });
    server.listen(port, address, () => resolve());
  });
}

/** Ends with whatever is still asked. Idempotent. */
export function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
