import fc from 'fast-check';
import t from 'tap';
import { parseTuple } from '../../cli/explain/tuple.ts';
import { UsageError } from '../../cli/usage-error.ts';

t.test('any words are a connection or a usage error, never something else', async (t) => {
  const number = fc.integer({ min: -5, max: 70_000 }).map(String);
  const quad = fc.array(fc.integer({ min: -1, max: 256 }), { minLength: 3, maxLength: 5 });
  const address = fc.oneof(
    quad.map((parts) => parts.join('.')),
    fc.constantFrom('10.1.0.9', '10.2.0.7'),
  );
  const end = fc.tuple(address, number).map(([host, port]) => `${host}:${port}`);
  const word = fc.oneof(
    fc.constantFrom('tcp', 'udp', 'icmp', 'to', '->', '-', '→', '', ':', '10.1.0.9', '10.1.0.9:5'),
    number,
    address,
    end,
    fc.string({ maxLength: 12 }),
  );
  // Of the right shape, so that some get through.
  const nearly = fc
    .tuple(fc.constantFrom('tcp', 'udp', 'icmp', '47'), end, fc.constantFrom('to', '->'), end)
    .map((words) => [...words]);
  let understood = 0;
  fc.assert(
    fc.property(fc.oneof(fc.array(word, { maxLength: 6 }), nearly), (words) => {
      try {
        const tuple = parseTuple(words);
        understood++;
        const ports = [tuple.sourcePort, tuple.destinationPort];
        return (
          tuple.protocol >= 0 &&
          tuple.protocol <= 255 &&
          ports.every((port) => port >= 0 && port <= 65_535)
        );
      } catch (error) {
        return error instanceof UsageError && error.message.length > 10;
      }
    }),
    { seed: 8, numRuns: 20_000 },
  );
  t.ok(understood > 20, `${understood} were connections`);
});
