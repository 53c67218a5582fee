import type { Clock } from "../../core/clock.ts";
import { UnavailableError } from "../../core/errors.ts";
import type { TransferStatistics } from "../../core/protocol/migration.ts";
import { blockBytes, type KvLayout } from "../../kv/layout.ts";
import type { BlockTransfer, MigrationBackend, TransferLimits } from "../../kv/transfer/backend.ts";

export interface LinkBackendArgs {
  readonly layout: KvLayout;
  readonly limits: TransferLimits;
  readonly clock: Clock;
  readonly bytesPerMs: number;
}

/**
 * A link between instances without real KV caches. A transfer takes its bytes / bandwidth, in one event
 * for all rounds.
 */
export class LinkBackend implements MigrationBackend {
  readonly name = "link";
  readonly isReady = true;
  readonly endpoint = {};

  constructor(private readonly args: LinkBackendArgs) {}

  grant(): Promise<void> {
    return Promise.resolve();
  }

  revoke(): Promise<void> {
    return Promise.resolve();
  }

  send(
    { sourceBlocks, destination }: BlockTransfer,
    signal: AbortSignal,
  ): Promise<TransferStatistics> {
    const { layout, limits, clock, bytesPerMs } = this.args;
    const bytes = sourceBlocks.length * blockBytes(layout);
    const blockRounds = Math.ceil(sourceBlocks.length / limits.bufferBlocks);
    const layerRounds = Math.ceil(layout.numLayers / Math.min(layout.numLayers, limits.numLayers));
    const transferMs = bytes / bytesPerMs;
    const statistics: TransferStatistics = {
      bytes,
      descriptors: sourceBlocks.length * layerRounds,
      rounds: blockRounds * layerRounds,
      transferMs,
    };
    return new Promise((resolve, reject) => {
      const abort = () => {
        cancel();
        reject(new UnavailableError(`the transfer to ${destination.instanceId} was aborted`));
      };
      const cancel = clock.after(transferMs, () => {
        signal.removeEventListener("abort", abort);
        resolve(statistics);
      });
      if (signal.aborted) abort();
      else signal.addEventListener("abort", abort, { once: true });
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
