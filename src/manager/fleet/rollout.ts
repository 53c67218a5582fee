import { toErrorRecord } from "../../core/errors.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { Rollout } from "../../core/protocol/upgrade.ts";
import type { InstanceKeeper } from "./instance_keeper.ts";

export interface InstanceRolloutConfig {
  readonly keeper: Pick<InstanceKeeper, "replace">;
  readonly instances: readonly InstanceId[];
  /** An instance is about to be replaced, the `number`th of all. */
  readonly onReplace: (instanceId: InstanceId, number: number) => void;
}

/**
 * Replaces instances of another executable, one after the other, so that no more instances run at any
 * time than there should be, and all but one of them serve. Stops at the first that cannot be replaced.
 */
export class InstanceRollout {
  readonly #config: InstanceRolloutConfig;
  #numReplaced = 0;
  #isOver = false;
  #error: string | null = null;
  /** Resolves with the last status. Never rejects. */
  readonly done: Promise<Rollout>;

  /** Begins in a later turn. */
  constructor(config: InstanceRolloutConfig) {
    this.#config = config;
    this.done = Promise.resolve().then(() => this.#run());
  }

  get status(): Rollout {
    return {
      total: this.#config.instances.length,
      replaced: this.#numReplaced,
      isOver: this.#isOver,
      error: this.#error,
    };
  }

  async #run(): Promise<Rollout> {
    const { keeper, instances, onReplace } = this.#config;
    try {
      for (const [index, instanceId] of instances.entries()) {
        onReplace(instanceId, index + 1);
        await keeper.replace(instanceId);
        this.#numReplaced++;
      }
    } catch (error) {
      this.#error = toErrorRecord(error).message;
    }
    this.#isOver = true;
    return this.status;
  }
}
