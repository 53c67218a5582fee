import type { KvLayout } from "../layout.ts";
import type { KvPool } from "./pool.ts";
import { checkRun } from "./pool_bounds.ts";

const nothing = new Uint8Array(0);

/** A pool that holds nothing, of an executor that only accounts for blocks: its runs are empty. */
export class AccountedKvPool implements KvPool {
  constructor(readonly layout: KvLayout, readonly numBlocks: number) {}

  run(block: number, firstLayer: number, numLayers: number): Uint8Array<ArrayBuffer> {
    checkRun(this.layout, this.numBlocks, block, firstLayer, numLayers);
    return nothing;
  }
}
