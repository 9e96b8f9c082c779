import t from 'tap';
import {
  closest,
  contains,
  formatDuration,
  parseDuration,
  parseException,
  parseMac,
  parsePrefix,
} from '../../cli/config/text.ts';
import { formatAddress, parseAddress } from '../../parsers/text.ts';

t.test('the grammars of single values', async (t) => {
  const rows: [string, (text: string) => unknown, text: string, expected: unknown][] = [
    ['duration', parseDuration, '10s', 10_000],
    ['duration', parseDuration, '1.5s', 1_500],
    ['duration', parseDuration, '2m', 120_000],
    ['duration', parseDuration, '500ms', 500],
    ['duration', parseDuration, '1h', 3_600_000],
    ...['', '10', 's', '-1s', '1 s', '1d', '1e3s', '٣s'].map(
      (text): [string, typeof parseDuration, string, undefined] => [
        'no duration',
        parseDuration,
        text,
        undefined,
      ],
    ),
    ['address', parseAddress, '255.255.255.255', -1],
    ['address', parseAddress, '1.2.3.4', 0x01020304],
    ...['1.2.3', '01.2.3.4', '1.2.3.256', '::1', '0x7f.1', ' 1.2.3.4'].map(
      (text): [string, typeof parseAddress, string, undefined] => [
        'no address',
        parseAddress,
        text,
        undefined,
      ],
    ),
    ['prefix', parsePrefix, '0.0.0.0/0', { address: 0, length: 0 }],
    ['no prefix', parsePrefix, '10.0.0.0/33', undefined],
    ['no prefix', parsePrefix, '10.0.0.0/', undefined],
    ['no prefix', parsePrefix, '10.0.0.0/8/8', undefined],
    ['no exception', parseException, 'icmp:10.0.0.0/8:1', undefined],
    ['no exception', parseException, 'tcp:10.0.0.0/8:0', undefined],
    ['no exception', parseException, 'tcp:10.0.0.0/8:65536', undefined],
    ['no exception', parseException, 'tcp:10.0.0.0/8:22:1', undefined],
    ['no MAC', parseMac, '02:00:00:00:00', undefined],
    ['no MAC', parseMac, '02-00-00-00-00-01', undefined],
    ['shown', (text) => formatAddress(parseAddress(text)!), '200.1.2.3', '200.1.2.3'],
    ['shown', (text) => formatDuration(parseDuration(text)!), '90s', '90s'],
    ['shown', (text) => formatDuration(parseDuration(text)!), '120s', '2m'],
    ['close', (text) => closest(text, ['ipv4', 'ipv6']), 'ipv7', 'ipv4'],
    ['close', (text) => closest(text, ['address', 'name']), 'adress', 'address'],
    ['close', (text) => closest(text, ['inner']), 'INNER', 'inner'],
    ['not close', (text) => closest(text, ['address', 'name']), 'zzz', undefined],
  ];
  for (const [name, parse, text, expected] of rows)
    t.same(parse(text), expected, `${name} ${text}`);
  t.equal(contains({ address: 0x0a000000, length: 8 }, 0x0aff0001), true);
  t.equal(contains({ address: 0x0a000000, length: 8 }, 0x0bff0001), false);
  t.equal(contains({ address: 0, length: 0 }, -1), true);
});
