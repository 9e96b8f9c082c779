/**
 * Web traffic as programs of their own, one to serve and one to ask:
 *
 *     node dist/lab/web.js serve NAME ADDRESS PORT …    answers every request with a line of text
 *     node dist/lab/web.js pulse URL EVERY_MS           asks again and again, each time on a new
 *                                                       connection, and tells how it went
 *
 * A pulse's line: { "number", "sentAt" (ms since 1970), "ms", "ok" }.
 */
import { createServer, get } from 'node:http';

/** A pulse that takes longer is lost. Above TCP's first repetition of a SYN (1 s, RFC 6298). */
const pulseLimitMs = 1900;

function serve(name: string, address: string, ports: readonly number[]): void {
  for (const port of ports) {
    const server = createServer((request, response) => {
      response.setHeader('connection', 'close');
      response.end(`${name} answers ${request.method} ${request.url}\n`);
    });
    server.listen(port, address, () => console.log(`listening ${port}`));
  }
}

function pulse(url: string, everyMs: number): void {
  let number = 0;
  setInterval(() => ask(`${url}/pulse-${number}`, number++), everyMs);
}

function ask(url: string, number: number): void {
  const sentAt = Date.now();
  const begun = performance.now();
  let told = false;
  const tell = (ok: boolean) => {
    if (told) return;
    told = true;
    const ms = Math.round(performance.now() - begun);
    console.log(JSON.stringify({ number, sentAt, ms, ok }));
  };
  const signal = AbortSignal.timeout(pulseLimitMs);
  const request = get(url, { agent: false, signal }, (response) => {
    response.resume();
    response.on('end', () => tell(response.statusCode === 200));
    response.on('error', () => tell(false));
  });
  request.on('error', () => tell(false));
}

const [verb, ...rest] = process.argv.slice(2);
if (verb === 'serve') serve(rest[0]!, rest[1]!, rest.slice(2).map(Number));
else pulse(rest[0]!, Number(rest[1]));
