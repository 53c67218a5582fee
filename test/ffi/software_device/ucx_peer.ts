/**
 * One of two processes that test the real UCX over the software device. "target FILE" offers a device
 * pool, writes how to reach it, and says what is in it once its input ends. "initiator FILE OFFER" puts
 * into the pool.
 */
import { stdin } from "node:process";
import { setImmediate } from "node:timers/promises";
import { openDriver } from "../../../ffi/cuda/driver.ts";
import type { UcxRequest } from "../../../ffi/ucx/calls.ts";
import { Ucx } from "../../../ffi/ucx/ucx.ts";
import type { UcxWorker } from "../../../ffi/ucx/worker.ts";
import { bench, counts, directory, filled } from "./device.ts";

export const byteLength = 8 << 20;

/** How to reach the target's pool. */
interface Offer {
  readonly workerAddress: string;
  readonly key: string;
  readonly address: string;
}

/** What the target says at its end. */
export interface Seen {
  /** Byte values in the pool. */
  readonly values: readonly number[];
}

/** What the initiator says at its end. */
export interface Sent {
  readonly memoryTypes: readonly string[];
  /** Transports that carry its puts. */
  readonly transports: readonly string[];
  /** Allocations of the other process that the device has mapped for UCX. */
  readonly opened: number;
}

const setUp = (file: string, value: number) => {
  const cuda = openDriver({ from: directory! });
  cuda.setDevice(0);
  const tools = bench(cuda);
  const pool = tools.device(filled(byteLength, value));
  const context = Ucx.open({ from: file }).createContext();
  return { ...tools, context, pool, memory: context.map(pool, byteLength, "cuda") };
};

async function target(file: string): Promise<void> {
  const { context, pool, memory, read } = setUp(file, 1);
  const worker = context.createWorker();
  const offer: Offer = {
    workerAddress: worker.address().toHex(),
    key: memory.packKey().toHex(),
    address: String(pool),
  };
  console.log(JSON.stringify(offer));
  let ended = false;
  stdin.on("end", () => ended = true).resume();
  while (!ended) {
    if (!worker.progress()) await setImmediate();
  }
  const seen: Seen = { values: [...new Set(read(pool, byteLength))] };
  console.log(JSON.stringify(seen));
}

function finish(worker: UcxWorker, request: UcxRequest): void {
  while (!worker.isDone(request)) worker.progress();
}

function initiate(file: string, offer: Offer): void {
  const { context, pool, memory } = setUp(file, 2);
  const worker = context.createWorker();
  const endpoint = worker.createEndpoint(Uint8Array.fromHex(offer.workerAddress));
  const key = endpoint.unpackKey(Uint8Array.fromHex(offer.key));
  finish(worker, endpoint.put(memory, pool, byteLength, BigInt(offer.address), key));
  finish(worker, endpoint.flush());
  const carriers = endpoint.lanes().filter(({ uses }) => uses.some((use) => use.startsWith("rma")));
  const sent: Sent = {
    memoryTypes: context.memoryTypes(),
    transports: carriers.map(({ transport }) => transport),
    opened: counts().opened,
  };
  console.log(JSON.stringify(sent));
}

if (import.meta.main) {
  const [role, file, offer] = Deno.args;
  if (role === "target") await target(file);
  else initiate(file, JSON.parse(offer));
}
