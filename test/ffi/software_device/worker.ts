/// <reference lib="deno.worker" />
/** A thread that uses the software device beside others. */
import { openCudart } from "../../../ffi/cuda/cudart.ts";
import { bytesAt } from "../../../ffi/memory.ts";

export interface WorkerOrder {
  readonly directory: string;
  /** Device memory of this thread alone. */
  readonly pool: bigint;
  /** A stream that all threads use. */
  readonly shared: bigint;
  readonly byteLength: number;
  readonly rounds: number;
  readonly value: number;
}

/** Writes a value that changes from round to round, reads it back through two streams, and checks it. */
function work({ directory, pool, shared, byteLength, rounds, value }: WorkerOrder): void {
  const cuda = openCudart({ from: directory });
  cuda.setDevice(0);
  const own = cuda.createStream(), event = cuda.createEvent();
  const source = cuda.hostAlloc(byteLength), seen = cuda.hostAlloc(byteLength);
  for (let round = 1; round <= rounds; round++) {
    const byte = (value * rounds + round) % 256;
    bytesAt(source, byteLength).fill(byte);
    cuda.copy(pool, source, byteLength, own);
    cuda.recordEvent(event, own);
    cuda.waitEvent(shared, event);
    cuda.copy(seen, pool, byteLength, shared);
    cuda.recordEvent(event, shared);
    while (!cuda.queryEvent(event));
    if (!bytesAt(seen, byteLength).every((one) => one === byte)) {
      throw new Error(`round ${round}: ${bytesAt(seen, byteLength)[0]}, not ${byte}`);
    }
    cuda.free(cuda.malloc(byteLength));
  }
  cuda.hostFree(source);
  cuda.hostFree(seen);
  cuda.destroyStream(own);
}

self.onmessage = ({ data }: MessageEvent<WorkerOrder>) => {
  work(data);
  self.postMessage("done");
};
