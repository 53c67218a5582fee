/** The other process of the CUDA suite: opens memory, answers what it saw, writes, and ends. */
import { openCudart } from "../../ffi/cuda/cudart.ts";
import { openDriver } from "../../ffi/cuda/driver.ts";
import { addressOf, nativeBuffer } from "../../ffi/memory.ts";

export interface PeerOrder {
  readonly api: "runtime" | "driver";
  readonly from?: string;
  /** IPC handles, in hexadecimal. */
  readonly memory: string;
  readonly event: string;
  readonly byteLength: number;
  /** What to write. */
  readonly byte: number;
}

export interface PeerAnswer {
  /** The byte values that were in the memory. */
  readonly seen: readonly number[];
}

if (import.meta.main) {
  const order: PeerOrder = JSON.parse(Deno.args[0]);
  const cuda = (order.api === "runtime" ? openCudart : openDriver)({ from: order.from });
  cuda.setDevice(0);
  const memory = cuda.openIpcMemHandle(Uint8Array.fromHex(order.memory));
  const event = cuda.openIpcEventHandle(Uint8Array.fromHex(order.event));
  const stream = cuda.createStream(), seen = nativeBuffer(order.byteLength);
  cuda.waitEvent(stream, event);
  cuda.copy(addressOf(seen), memory, order.byteLength, stream);
  cuda.memset(memory, order.byte, order.byteLength, stream);
  cuda.synchronizeStream(stream);
  cuda.closeIpcMemHandle(memory);
  cuda.destroyEvent(event);
  cuda.destroyStream(stream);
  const answer: PeerAnswer = { seen: [...new Set(seen)] };
  console.log(JSON.stringify(answer));
}
