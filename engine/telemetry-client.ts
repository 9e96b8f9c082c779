/**
 * One POST of telemetry over HTTPS: verified, bounded and classified. Only the telemetry worker
 * uses it.
 *
 * Promises: nothing of the body leaves before the endpoint has proved who it is (by our authority
 * and the address in its certificate, or by the pinned public key); no redirect is followed; the
 * attempt ends by its deadline, whatever the endpoint does (no connect, no answer, an answer that
 * drips); at most 64 KiB of answer are read.
 */
import { createHash } from 'node:crypto';
import type { ClientRequest, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import type { TLSSocket } from 'node:tls';
import { GateCause } from './gate.ts';
import type { Failure } from './telemetry.ts';

/** Who the endpoint must be, and who we are: PEM texts, not paths. Empty: not used. */
export type TelemetryCredentials = {
  readonly ca: string;
  /** Base64 of the SHA-256 of the endpoint's SubjectPublicKeyInfo. */
  readonly pin: string;
  readonly clientCertificate: string;
  readonly clientKey: string;
};

/** More than any collector's answer: OTLP's is a few bytes, an error page a few thousand. */
const maximumAnswerLength = 65_536;

/** Of a foreign text in a message. */
const maximumWords = 200;

class AttemptError extends Error {
  readonly gateCause: GateCause;
  readonly detail: number;

  constructor(gateCause: GateCause, message: string, detail = 0) {
    super(message);
    this.gateCause = gateCause;
    this.detail = detail;
  }
}

export class TelemetryClient {
  private readonly url: URL;
  private readonly credentials: TelemetryCredentials;
  private readonly agent: Agent;
  private current = new AbortController();

  constructor(url: string, credentials: TelemetryCredentials) {
    this.url = new URL(url);
    this.credentials = credentials;
    const { ca, pin, clientCertificate, clientKey } = credentials;
    this.agent = new Agent({
      keepAlive: true,
      maxSockets: 1,
      // A resumed session is not verified again: every connection shows its certificate.
      maxCachedSessions: 0,
      minVersion: 'TLSv1.2',
      // Said here, so that NODE_TLS_REJECT_UNAUTHORIZED cannot switch it off. A pinned key stands
      // for itself, whoever signed it: `verifyPin` compares it before anything is sent.
      rejectUnauthorized: pin === '',
      ...(ca === '' ? {} : { ca }),
      ...(clientCertificate === '' ? {} : { cert: clientCertificate, key: clientKey }),
    });
  }

  /**
   * POST `body`. Resolves with undefined when the answer was 2xx, else with why not; never rejects.
   */
  async post(
    body: Uint8Array,
    contentType: string,
    timeoutMs: number,
    contentEncoding?: 'gzip',
  ): Promise<Failure | undefined> {
    const abort = new AbortController();
    this.current = abort;
    const timer = setTimeout(() => abort.abort(), timeoutMs);
    const headers = {
      'content-type': contentType,
      'content-length': body.length,
      'user-agent': 'microperimeter',
      ...(contentEncoding === undefined ? {} : { 'content-encoding': contentEncoding }),
    };
    try {
      try {
        await this.attempt(body, headers, abort.signal);
      } catch (error) {
        // The endpoint closed an idle connection just as we used it: no failure of the endpoint.
        if (!(error instanceof StaleConnection)) throw error;
        await this.attempt(body, headers, abort.signal);
      }
      return undefined;
    } catch (error) {
      this.agent.destroy();
      if (abort.signal.aborted) {
        const message = `no complete answer within ${Math.round(timeoutMs)} ms`;
        return { cause: GateCause.TelemetryTimeout, detail: 0, message };
      }
      return classify(error);
    } finally {
      clearTimeout(timer);
    }
  }

  /** End the attempt that is under way, if any, as if its time were over. */
  cancel(): void {
    this.current.abort();
  }

  close(): void {
    this.agent.destroy();
  }

  private attempt(
    body: Uint8Array,
    headers: OutgoingHttpHeaders,
    signal: AbortSignal,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const request = httpsRequest(this.url, {
        method: 'POST',
        agent: this.agent,
        signal,
        headers,
      });
      request.on('error', (error) => {
        const stale = request.reusedSocket && !signal.aborted && isReset(error);
        reject(stale ? new StaleConnection() : error);
      });
      request.on('response', (response) => readAnswer(response, resolve, reject));
      request.on('socket', (socket) => {
        sendWhenProved(request, socket as TLSSocket, body, this.credentials.pin);
      });
    });
  }
}

class StaleConnection extends Error {}

/** Headers and body are written by `end` alone, so not before the handshake and the pin. */
function sendWhenProved(
  request: ClientRequest,
  socket: TLSSocket,
  body: Uint8Array,
  pin: string,
): void {
  if (request.reusedSocket) {
    request.end(body);
    return;
  }
  socket.once('secureConnect', () => {
    const error = pin === '' ? undefined : verifyPin(socket, pin);
    if (error === undefined) request.end(body);
    else request.destroy(error);
  });
}

function verifyPin(socket: TLSSocket, pin: string): Error | undefined {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) {
    return new AttemptError(GateCause.TelemetryCertificate, 'it shows no certificate');
  }
  const key = certificate.publicKey.export({ type: 'spki', format: 'der' });
  const found = createHash('sha256').update(key).digest('base64');
  if (found === pin) return undefined;
  return new AttemptError(
    GateCause.TelemetryCertificate,
    `its public key is sha256/${found}, pinned is sha256/${pin}`,
  );
}

function readAnswer(
  response: IncomingMessage,
  resolve: () => void,
  reject: (error: Error) => void,
): void {
  let length = 0;
  response.on('data', (chunk: Buffer) => {
    length += chunk.length;
    if (length <= maximumAnswerLength) return;
    response.destroy();
    reject(new AttemptError(GateCause.TelemetryAnswer, `more than ${maximumAnswerLength} bytes`));
  });
  response.on('error', reject);
  response.on('end', () => {
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) resolve();
    else reject(new AttemptError(GateCause.TelemetryRefused, refusalOf(response), status));
  });
}

/** A redirect's target is told, not asked: it has not proved that it is our firewall. */
function refusalOf({ headers, statusCode = 0 }: IncomingMessage): string {
  const isRedirect = statusCode >= 300 && statusCode < 400 && headers.location !== undefined;
  const where = headers.location?.slice(0, maximumWords);
  const detail = isRedirect ? `: a redirect to ${where}, which is not followed` : '';
  return `HTTP status ${statusCode}${detail}`;
}

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown }).code;
  return typeof code === 'string' ? code : '';
}

function isReset(error: Error): boolean {
  return codeOf(error) === 'ECONNRESET' || codeOf(error) === 'EPIPE';
}

/** Errors of OpenSSL's verification (X509_V_ERR_…, as Node names them) that do not say CERT. */
const verificationCodes: ReadonlySet<string> = new Set([
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_CRL',
  'HOSTNAME_MISMATCH',
  'INVALID_CA',
  'INVALID_PURPOSE',
  'PATH_LENGTH_EXCEEDED',
]);

function classify(error: unknown): Failure {
  const message = wordsOf(error);
  if (error instanceof AttemptError) {
    return { cause: error.gateCause, detail: error.detail, message };
  }
  return { cause: causeOf(codeOf(error)), detail: 0, message };
}

/** OpenSSL's errors have their reason apart from a line of addresses and file names. */
function wordsOf(error: unknown): string {
  const reason = (error as { reason?: unknown }).reason;
  if (typeof reason === 'string') return reason;
  return error instanceof Error ? error.message : String(error);
}

function causeOf(code: string): GateCause {
  if (/^ERR_SSL_.*ALERT.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)/.test(code)) {
    return GateCause.TelemetryClientCertificate;
  }
  if (/^ERR_SSL_|^EPROTO$|^HPE_/.test(code)) return GateCause.TelemetryProtocol;
  if (/CERT|^ERR_TLS_/.test(code) || verificationCodes.has(code)) {
    return GateCause.TelemetryCertificate;
  }
  return GateCause.TelemetryUnreachable;
}
