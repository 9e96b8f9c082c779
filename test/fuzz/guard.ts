/**
 * A view that throws when somebody reads or writes where nothing is his: outside the packets that
 * were fed. Around packets lies poison, for those who go by `bytes` instead.
 */
import { Broken } from './trial.ts';

export const poison = 0xa5;

export class GuardedView extends DataView<ArrayBuffer> {
  /** From, to, from, to. */
  readonly allowed: number[] = [];

  private check(at: number, length: number): void {
    const { allowed } = this;
    for (let i = 0; i < allowed.length; i += 2) {
      if (at >= allowed[i] && at + length <= allowed[i + 1]) return;
    }
    throw new Broken(`access to ${length} bytes at ${at}, allowed are ${allowed.join(' ')}`);
  }

  override getUint8(at: number): number {
    this.check(at, 1);
    return super.getUint8(at);
  }

  override getUint16(at: number, little?: boolean): number {
    this.check(at, 2);
    return super.getUint16(at, little);
  }

  override getUint32(at: number, little?: boolean): number {
    this.check(at, 4);
    return super.getUint32(at, little);
  }

  override getInt32(at: number, little?: boolean): number {
    this.check(at, 4);
    return super.getInt32(at, little);
  }

  override setUint8(at: number, value: number): void {
    this.check(at, 1);
    super.setUint8(at, value);
  }

  override setUint16(at: number, value: number, little?: boolean): void {
    this.check(at, 2);
    super.setUint16(at, value, little);
  }

  override setUint32(at: number, value: number, little?: boolean): void {
    this.check(at, 4);
    super.setUint32(at, value, little);
  }

  override setInt32(at: number, value: number, little?: boolean): void {
    this.check(at, 4);
    super.setInt32(at, value, little);
  }
}
