/**
 * The HTTPS endpoint that agents report to: it answers every POST as an OpenTelemetry collector
 * does (OTLP/HTTP: 200 and an empty object), and on request as a broken one. Bodies are not
 * judged, only handed on.
 */
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';

/** What to do with the next requests. */
export type Mood =
  | { readonly kind: 'ok' }
  /** The listener is closed and open connections are cut. */
  | { readonly kind: 'refuse' }
  /** Requests are taken and never answered. */
  | { readonly kind: 'hang' }
  | { readonly kind: 'status'; readonly status: number }
  | { readonly kind: 'slow'; readonly ms: number };

export type Report = {
  readonly event: 'telemetry';
  readonly path: string;
  readonly status: number;
  readonly contentType: string;
  readonly bytes: number;
};

const maximumBody = 4 * 1024 * 1024;

export class TelemetryEndpoint {
  private readonly server: Server;
  private readonly address: string;
  private readonly port: number;
  private readonly onReport: (report: Report) => void;
  private mood: Mood = { kind: 'ok' };

  constructor(
    address: string,
    port: number,
    certificate: string,
    key: string,
    onReport: (report: Report) => void,
  ) {
    this.address = address;
    this.port = port;
    this.onReport = onReport;
    const options = { cert: readFileSync(certificate), key: readFileSync(key) };
    this.server = createServer(options, (request, response) => this.answer(request, response));
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(this.port, this.address, () => {
        this.server.off('error', reject);
        resolve();
      });
    });
  }

  /** From now on; for `refuse` and back, when the listener is closed or open again. */
  async setMood(mood: Mood): Promise<void> {
    this.mood = mood;
    if (mood.kind === 'refuse') {
      if (!this.server.listening) return;
      const closed = new Promise((resolve) => this.server.close(resolve));
      this.server.closeAllConnections();
      await closed;
    } else if (!this.server.listening) {
      await this.listen();
    }
  }

  /** Present another certificate to new connections, and cut the open ones. */
  setCertificate(certificate: string, key: string): void {
    this.server.setSecureContext({ cert: readFileSync(certificate), key: readFileSync(key) });
    this.server.closeAllConnections();
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    let bytes = 0;
    request.on('error', () => {});
    response.on('error', () => {});
    request.on('data', (part: Buffer) => {
      bytes += part.length;
      if (bytes > maximumBody) request.destroy();
    });
    request.on('end', () => {
      const mood = this.mood;
      if (mood.kind === 'hang') return;
      const finish = () => this.finish(request, response, mood, bytes);
      if (mood.kind === 'slow') setTimeout(finish, mood.ms);
      else finish();
    });
  }

  private finish(
    request: IncomingMessage,
    response: ServerResponse,
    mood: Mood,
    bytes: number,
  ): void {
    const ok = request.method === 'POST' ? 200 : 405;
    const status = mood.kind === 'status' ? mood.status : ok;
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end('{}');
    const contentType = request.headers['content-type'] ?? '';
    this.onReport({ event: 'telemetry', path: request.url ?? '', status, contentType, bytes });
  }
}
