/**
 * A stream of numbered datagrams and what comes back of it. `echo PORT` answers each; `send TARGET
 * PORT RATE` sends until a line comes on standard input, and for each line that comes prints one of
 * JSON about the time since the last: sent, lost (no echo within a second), out of order, and
 * round trips in microseconds. An empty line ends it.
 */
import { createSocket } from 'node:dgram';
import { createInterface } from 'node:readline';

export type StreamReport = {
  readonly sent: number;
  readonly lost: number;
  readonly reordered: number;
  readonly p50: number;
  readonly p99: number;
  readonly longest: number;
};

const [mode = '', ...rest] = process.argv.slice(2);
const length = 200;
const numberAt = 0;
const timeAt = 8;
const lateMs = 1000;

function echo(port: number): void {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 4 << 20 });
  socket.on('message', (message, from) => socket.send(message, from.port, from.address));
  socket.bind(port, () => console.log('ready'));
}

function stream(target: string, port: number, perSecond: number): void {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 4 << 20 });
  let sent = 0;
  let highest = -1;
  let reordered = 0;
  let reported = 0;
  let trips: number[] = [];
  const waiting = new Set<number>();
  socket.on('message', (message) => {
    const number = message.readDoubleBE(numberAt);
    if (!waiting.delete(number)) return;
    if (number < highest) reordered++;
    else highest = number;
    trips.push((performance.now() - message.readDoubleBE(timeAt)) * 1000);
  });
  const report = (): StreamReport => {
    const sorted = trips.toSorted((a, b) => a - b);
    const at = (share: number) => Math.round(sorted[Math.floor(sorted.length * share)] ?? 0);
    const result = {
      sent: sent - reported,
      lost: waiting.size,
      reordered,
      p50: at(0.5),
      p99: at(0.99),
      longest: Math.round(sorted.at(-1) ?? 0),
    };
    reported = sent;
    reordered = 0;
    trips = [];
    waiting.clear();
    return result;
  };
  socket.connect(port, target, () => {
    const begun = performance.now();
    let paused = 0;
    let pausedAt = 0;
    const timer = setInterval(() => {
      if (pausedAt > 0) return;
      const due = ((performance.now() - begun - paused) * perSecond) / 1000;
      for (; sent < due; sent++) {
        const message = Buffer.alloc(length);
        message.writeDoubleBE(sent, numberAt);
        message.writeDoubleBE(performance.now(), timeAt);
        waiting.add(sent);
        socket.send(message);
      }
    }, 1);
    createInterface({ input: process.stdin }).on('line', (line) => {
      pausedAt = performance.now();
      setTimeout(() => {
        paused += performance.now() - pausedAt;
        pausedAt = 0;
        console.log(JSON.stringify(report()));
        if (line !== '') return;
        clearInterval(timer);
        process.exit(0);
      }, lateMs);
    });
    console.log('ready');
  });
}

if (mode === 'echo') echo(Number(rest[0]));
else stream(rest[0] ?? '', Number(rest[1]), Number(rest[2]));
