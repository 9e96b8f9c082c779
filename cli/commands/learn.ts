/** `microperimeter capture learn FILE`: the settings of tunnel.geneve that another agent has. */
import { type Learned, type LearnedOption, learn } from '../capture/learn.ts';
import { ExitCode } from '../exit-codes.ts';
import { openCapture } from '../explain/capture-file.ts';
import { UsageError } from '../usage-error.ts';

export function captureLearn(file: string, options: { port: string; json: boolean }): number {
  const port = Number(options.port);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new UsageError(`--port is a number from 1 to 65535, not ${options.port}`);
  }
  const learned = learn(openCapture(file).packets, port);
  if (learned === undefined) throw new UsageError(`${file} has no GENEVE to UDP port ${port}`);
  process.stdout.write(
    options.json ? `${JSON.stringify(learned, null, 2)}\n` : drawLearned(learned, port),
  );
  return ExitCode.Ok;
}

/** A piece of configuration, and what to know about it in comments. */
function drawLearned({ inner, options, packets, vni }: Learned, port: number): string {
  const lines = [
    `# ${packets} packets of GENEVE`,
    'tunnel:',
    '  encapsulation: geneve',
    `  vni: ${vni}`,
    `  port: ${port}`,
    '  geneve:',
    `    inner: ${inner}`,
  ];
  // The one that tells the direction is the one that matters.
  const best = options.find((option) => option.directionBits.length > 0);
  if (best !== undefined) lines.push(...settingsOf(best));
  for (const option of options) lines.push(...remarks(option, option === best));
  if (options.length === 0) lines.push('# no packet whose direction is known has an option');
  return `${lines.join('\n')}\n`;
}

function settingsOf(option: LearnedOption): string[] {
  const [bit = 0] = option.directionBits;
  const [cookie] = option.cookies.filter((at) => at !== (bit >> 5) * 4);
  return [
    `    optionClass: 0x${hex(option.optionClass, 4)}`,
    `    optionType: 0x${hex(option.optionType, 2)}`,
    `    optionData: "${option.optionData}"`,
    `    directionBit: ${bit}`,
    `    cookieAt: ${cookie ?? 'none'}`,
  ];
}

function remarks(option: LearnedOption, isChosen: boolean): string[] {
  const { directionBits, invertedBits, optionClass, optionData, optionType, packets } = option;
  const name = `# option class 0x${hex(optionClass, 4)} type 0x${hex(optionType, 2)}`;
  const seen = `${packets.egress} packets of egress, ${packets.ingress} of ingress`;
  if (isChosen) {
    const others = directionBits.length - 1;
    const doubt = others === 0 ? '' : `; ${others} more bits tell the direction as well`;
    return [`${name}: ${seen}${doubt}`];
  }
  if (optionData === '') return [`${name}: ${seen}; its length changes`];
  if (invertedBits.length === 0) return [`${name}: ${seen}; no bit of it tells the direction`];
  return [`${name}: ${seen}; bit ${invertedBits[0]} is 1 for egress, which cannot be set`];
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
