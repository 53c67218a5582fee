import type { KvLayout } from "../layout.ts";
import type { AccountedPool } from "./pool.ts";
import { checkRun } from "./pool_bounds.ts";

const nothing = new Uint8Array(0);

/** A pool that holds nothing: see {@linkcode AccountedPool}. */
export class AccountedKvPool implements AccountedPool {
  readonly memory = "none";

  constructor(readonly layout: KvLayout, readonly numBlocks: number) {}

  run(block: number, firstLayer: number, numLayers: number): Uint8Array<ArrayBuffer> {
    checkRun(this.layout, this.numBlocks, block, firstLayer, numLayers);
    return nothing;
  }
}
