import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { bytesAt } from "../../../ffi/memory.ts";

/**
 * A host program with every kind of dependency, for the mutants of `scripts/device_mutants.ts`, which
 * take out one waiting line at a time: copies blocks from one device pool to another through the host.
 * A block is gathered from two halves into one staging buffer, read into one of two pinned slots,
 * handed over by the host, and written from one of two other slots; each step overlaps with the next
 * block's.
 * @param halves addresses of the halves of each block
 */
export function stagedCopy(
  cuda: Cuda,
  halves: readonly (readonly [bigint, bigint])[],
  to: readonly bigint[],
  byteLength: number,
): void {
  const [gather, reader, writer] = [0, 1, 2].map(() => cuda.createStream());
  const staging = cuda.malloc(byteLength);
  const [outgoing, incoming] = [0, 1].map(() => [0, 1].map(() => cuda.hostAlloc(byteLength)));
  const gathered = cuda.createEvent(), stagingRead = cuda.createEvent();
  const [read, written] = [0, 1].map(() => [0, 1].map(() => cuda.createEvent()));
  const half = byteLength / 2;

  const begin = (block: number) => {
    const slot = block % 2;
    cuda.waitEvent(gather, stagingRead);
    cuda.copy(staging, halves[block][0], half, gather);
    cuda.copy(staging + BigInt(half), halves[block][1], half, gather);
    cuda.recordEvent(gathered, gather);
    cuda.waitEvent(reader, gathered);
    cuda.copy(outgoing[slot], staging, byteLength, reader);
    cuda.recordEvent(stagingRead, reader);
    cuda.recordEvent(read[slot], reader);
  };

  begin(0);
  for (let block = 0; block < to.length; block++) {
    const slot = block % 2;
    if (block + 1 < to.length) begin(block + 1);
    cuda.synchronizeEvent(read[slot]);
    cuda.synchronizeEvent(written[slot]);
    bytesAt(incoming[slot], byteLength).set(bytesAt(outgoing[slot], byteLength));
    cuda.copy(to[block], incoming[slot], byteLength, writer);
    cuda.recordEvent(written[slot], writer);
  }
  cuda.synchronizeStream(writer);

  cuda.free(staging);
  for (const pinned of [...outgoing, ...incoming]) cuda.hostFree(pinned);
  for (const event of [gathered, stagingRead, ...read, ...written]) cuda.destroyEvent(event);
  for (const stream of [gather, reader, writer]) cuda.destroyStream(stream);
}
