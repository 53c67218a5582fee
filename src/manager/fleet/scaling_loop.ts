import type { Clock } from "../../core/clock.ts";
import type { ManagerOptions, ScalingOptions } from "../../core/options.ts";
import { idleLoadInfo, type LoadState, loadStateOf } from "../load/load_state.ts";
import type { ManagedInstance } from "./managed_instance.ts";
import { scalingChange } from "../scaling/scaling.ts";

export interface ScalingLoopConfig {
  readonly clock: Clock;
  readonly options: Pick<ManagerOptions, "loadMetric" | "priorityHeadroomBlocks">;
  readonly scaling: ScalingOptions;
  /** All, also those that start or drain, in the order in which they came. */
  readonly instances: () => readonly ManagedInstance[];
  /** As many are there, or on the way, as are wanted. */
  readonly isSettled: () => boolean;
  /** So many instances more, or fewer, are about to be. */
  readonly onScale: (change: number) => void;
  readonly add: () => void;
  readonly remove: (instance: ManagedInstance) => void;
  /** It is needed after all. */
  readonly keep: (instance: ManagedInstance) => void;
}

/**
 * Adds and removes instances, every `--scaling-interval`, by the policies of `scaling/` on the latest
 * reports. One step at a time: nothing is decided while an instance starts, and none is removed
 * while another drains.
 */
export class ScalingLoop {
  readonly #config: ScalingLoopConfig;
  #cancel: (() => void) | null = null;

  constructor(config: ScalingLoopConfig) {
    this.#config = config;
  }

  start(): void {
    const { clock, scaling } = this.#config;
    this.#cancel = clock.after(scaling.scalingInterval * 1000, () => {
      this.start();
      this.#scale();
    });
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = null;
  }

  #scale(): void {
    const { scaling, options: { loadMetric } } = this.#config;
    const instances = this.#config.instances();
    const isAnyStarting = instances.some(({ phase }) => phase === "starting");
    if (isAnyStarting || !this.#config.isSettled()) return;
    const present = instances.filter(({ isServing }) => isServing);
    const draining = present.filter(({ drain }) => drain !== null && drain.by !== "operator");
    const serving = present.filter(({ drain }) => drain === null);
    // There are as many prefill instances as were asked for: it is those that decode which may vary.
    const varying = serving.filter(({ type }) => type !== "prefill");
    const numFixed = serving.length - varying.length;
    const change = scalingChange(varying.map((instance) => this.#stateOf(instance)), {
      ...scaling,
      loadMetric,
      minInstances: Math.max(1, scaling.minInstances - numFixed),
      maxInstances: Math.max(1, scaling.maxInstances - numFixed),
    });
    if (change === 0 || (change < 0 && draining.length > 0)) return;
    this.#config.onScale(change);
    if (change > 0) this.#grow(change, draining.filter(({ drain }) => drain!.by === "scaling"));
    else for (const instance of emptiest(varying, -change)) this.#config.remove(instance);
  }

  /** The quickest instance to have is one that is about to go. */
  #grow(count: number, leaving: readonly ManagedInstance[]): void {
    for (const instance of leaving.slice(0, count)) this.#config.keep(instance);
    for (let i = leaving.length; i < count; i++) this.#config.add();
  }

  #stateOf({ registration, info }: ManagedInstance): LoadState {
    const { priorityHeadroomBlocks } = this.#config.options;
    if (info) return loadStateOf(info, { priorityHeadroomBlocks });
    return loadStateOf(idleLoadInfo(registration!.totalBlocks));
  }
}

/** Those that have drained soonest: with the fewest blocks in use; of equal ones the last. */
function emptiest(instances: readonly ManagedInstance[], count: number): ManagedInstance[] {
  const usedBlocks = ({ info }: ManagedInstance) => info?.usedBlocks ?? 0;
  return instances.toReversed().sort((a, b) => usedBlocks(a) - usedBlocks(b)).slice(0, count);
}
