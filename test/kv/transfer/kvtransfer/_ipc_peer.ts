/** The other process of the tests of cuda_ipc: an end whose blocks each hold their number. */
import { blockBytes } from "../../../../src/kv/layout.ts";
import { suiteLayout } from "../../../conformance/migration_backend.ts";
import { SoftwareCudaPool } from "../../pool/cuda/software_cuda_pool.ts";
import { openEnd } from "./support.ts";

const [naming, numBlocks] = Deno.args;
const pool = new SoftwareCudaPool(suiteLayout, Number(numBlocks));
for (let block = 0; block < pool.numBlocks; block++) {
  const bytes = new Uint8Array(blockBytes(suiteLayout)).fill(block);
  await pool.write([{ block, firstLayer: 0, numLayers: suiteLayout.numLayers }], bytes);
}
const { listener } = await openEnd("peer", naming, { pool });
console.log(listener.address);
