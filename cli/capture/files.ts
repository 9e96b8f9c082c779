/** Where a capture is written: a file, standard output, or a ring of files. */
import { closeSync, fsyncSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { parse } from 'node:path';

export type RingOptions = {
  /** Files that are kept; the oldest goes. */
  readonly files: number;
  /** Bytes of each at most; a packet is not cut. */
  readonly bytes: number;
};

export interface CaptureOutput {
  write(block: Uint8Array): void;
  /** @param trailer what ends the file */
  close(trailer: Uint8Array): void;
}

/**
 * @param file `-` for standard output
 * @param head begins each file
 * @param trailer ends a file of a ring that is full
 */
export function openOutput(
  file: string,
  head: Uint8Array,
  ring: RingOptions | undefined,
  trailer: () => Uint8Array,
): CaptureOutput {
  if (ring !== undefined) return new RingFiles(file, head, ring, trailer);
  return new OneFile(file, head);
}

class OneFile implements CaptureOutput {
  readonly file: string;
  size = 0;
  private readonly fd: number;

  constructor(file: string, head: Uint8Array) {
    this.file = file;
    // Packets are nobody else's business.
    this.fd = file === '-' ? 1 : openSync(file, 'w', 0o600);
    this.write(head);
  }

  write(block: Uint8Array): void {
    for (let at = 0; at < block.length; ) {
      try {
        at += writeSync(this.fd, block, at);
      } catch (error) {
        // A pipe whose reader is slower; there is nothing else to do meanwhile.
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
        Atomics.wait(nobody, 0, 0, 1);
      }
    }
    this.size += block.length;
  }

  close(trailer: Uint8Array): void {
    this.write(trailer);
    if (this.fd === 1) return;
    fsyncSync(this.fd);
    closeSync(this.fd);
  }
}

const nobody = new Int32Array(new SharedArrayBuffer(4));

/** `capture.pcapng` is `capture-00001.pcapng`, `capture-00002.pcapng` and so on. */
class RingFiles implements CaptureOutput {
  private readonly file: string;
  private readonly head: Uint8Array;
  private readonly options: RingOptions;
  private readonly trailer: () => Uint8Array;
  private readonly names: string[] = [];
  private count = 0;
  private current: OneFile;

  constructor(file: string, head: Uint8Array, options: RingOptions, trailer: () => Uint8Array) {
    this.file = file;
    this.head = head;
    this.options = options;
    this.trailer = trailer;
    this.current = this.next();
  }

  write(block: Uint8Array): void {
    if (this.current.size + block.length > this.options.bytes) {
      this.current.close(this.trailer());
      this.current = this.next();
    }
    this.current.write(block);
  }

  close(trailer: Uint8Array): void {
    this.current.close(trailer);
  }

  private next(): OneFile {
    const { dir, ext, name } = parse(this.file);
    const number = String(++this.count).padStart(5, '0');
    const path = `${dir === '' ? '' : `${dir}/`}${name}-${number}${ext}`;
    const opened = new OneFile(path, this.head);
    this.names.push(path);
    if (this.names.length > this.options.files) unlinkSync(this.names.shift()!);
    return opened;
  }
}
