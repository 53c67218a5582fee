/** The other process of the tests: an end whose blocks hold 5, all of which migration `m` may write. */
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import { networkLayout } from "../../../conformance/network_backend.ts";
import { openEnd } from "./support.ts";

const [naming, numBlocks] = Deno.args;
const pool = new ArrayKvPool(networkLayout, Number(numBlocks));
pool.bytes.fill(5);
const { backend, listener } = await openEnd("peer", naming, { pool });
await backend.grant("m", Array.from({ length: pool.numBlocks }, (_, block) => block));
console.log(listener.address);
