/** The other process of the tests of cuda_ipc: an end whose blocks hold what `peerBlock` says. */
import { suiteLayout } from "../../../conformance/migration_backend.ts";
import { SoftwareCudaPool } from "../../pool/cuda/software_cuda_pool.ts";
import { openEnd, peerBlock } from "./support.ts";

const [naming, numBlocks, shards] = Deno.args;
const layout = shards === undefined ? suiteLayout : { ...suiteLayout, shards: Number(shards) };
const pool = new SoftwareCudaPool(layout, Number(numBlocks));
for (let block = 0; block < pool.numBlocks; block++) {
  const run = { block, firstLayer: 0, numLayers: layout.numLayers };
  await pool.write([run], peerBlock(layout, block));
}
const { listener } = await openEnd("peer", naming, { pool });
console.log(listener.address);
