/**
 * The other process of the tests: an end whose blocks hold 5, all of which migration `m` may write. With
 * a file of libucp it passes for a process of another host.
 */
import { realClock } from "../../../../src/core/clock.ts";
import type { BackendEndpoint } from "../../../../src/kv/transfer/backend.ts";
import { thisProcess } from "../../../../src/kv/transfer/kvtransfer/host_process.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import { PATIENCE_MS } from "../../../patience.ts";
import { networkLayout } from "../../../conformance/network_backend.ts";
import { farHost, openEnd } from "./support.ts";

/** A line of its standard input. */
export interface PeerOrder {
  readonly migrationId: string;
  readonly blocks: readonly number[];
  readonly address: string;
  readonly endpoint: BackendEndpoint;
  readonly isBackground: boolean;
}

const [naming, numBlocks, ucx] = Deno.args;
const pool = new ArrayKvPool(networkLayout, Number(numBlocks));
pool.bytes.fill(5);
const { backend, listener } = await openEnd("peer", naming, {
  pool,
  ...(ucx !== undefined && { ucx, process: { ...thisProcess(), ...farHost } }),
});
const blocks = Array.from({ length: pool.numBlocks }, (_, block) => block);
await backend.grant("m", blocks);
console.log(listener.address);
for await (const line of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  // Each line is an order to send blocks; what comes of it is seen at the other end.
  const { migrationId, blocks, address, endpoint, isBackground }: PeerOrder = JSON.parse(line);
  backend.send({
    migrationId,
    destination: { instanceId: "here", address },
    endpoint,
    sourceBlocks: blocks,
    destinationBlocks: blocks,
    deadlineMs: realClock.nowMs() + PATIENCE_MS,
    isBackground,
  }, new AbortController().signal).catch(() => {});
}
