/** The other process of the UCX tests: writes into the pool of the first one, and reads from it. */
import type { UcxRequest } from "../../../ffi/ucx/calls.ts";
import { Ucx } from "../../../ffi/ucx/ucx.ts";

export interface UcxOrder {
  readonly file: string;
  readonly settings: Readonly<Record<string, string>>;
  /** In hexadecimal. */
  readonly workerAddress: string;
  readonly key: string;
  /** Of the pool, in decimal. */
  readonly address: string;
  readonly byteLength: number;
}

export interface UcxAnswer {
  /** Byte values of the pool's first half. */
  readonly seen: readonly number[];
  /** Transports of the endpoint. */
  readonly transports: readonly string[];
}

if (import.meta.main) {
  const order: UcxOrder = JSON.parse(Deno.args[0]);
  const context = Ucx.open({ from: order.file }).createContext({ settings: order.settings });
  const worker = context.createWorker();
  const endpoint = worker.createEndpoint(Uint8Array.fromHex(order.workerAddress));
  const key = endpoint.unpackKey(Uint8Array.fromHex(order.key));
  const half = order.byteLength / 2, memory = context.allocate(half);
  const finish = (request: UcxRequest) => {
    while (!worker.isDone(request)) worker.progress();
  };
  const remote = BigInt(order.address);
  finish(endpoint.get(memory, memory.address, half, remote, key));
  const seen = [...new Set(memory.bytes().subarray(0, half))];
  memory.bytes().fill(0x66, 0, half);
  finish(endpoint.put(memory, memory.address, half, remote + BigInt(half), key));
  finish(endpoint.flush());
  const transports = endpoint.lanes().map((lane) => lane.transport);
  endpoint.destroyKey(key);
  finish(endpoint.close());
  worker.close();
  memory.unmap();
  context.close();
  const answer: UcxAnswer = { seen, transports };
  console.log(JSON.stringify(answer));
}
