import type { Clock } from "../../core/clock.ts";
import type { ManagerOptions, ScalingOptions } from "../../core/options.ts";
import { idleLoadInfo, type LoadState, loadStateOf } from "../load/load_state.ts";
import type { ManagedInstance } from "./managed_instance.ts";
import { scalingChange } from "../scaling/scaling.ts";

export interface ScalingLoopConfig {
  readonly clock: Clock;
  readonly options: Pick<ManagerOptions, "loadMetric" | "priorityHeadroomBlocks">;
  readonly scaling: ScalingOptions;
  /** All instances, starting and draining ones too, in the order in which they came. */
  readonly instances: () => readonly ManagedInstance[];
  /** Whether as many instances serve or start as there should be. */
  readonly isSettled: () => boolean;
  /** Instances that could be started now. */
  readonly room: () => number;
  /** The number of instances is about to change by this many. */
  readonly onScale: (change: number) => void;
  readonly add: () => void;
  readonly remove: (instance: ManagedInstance) => void;
  /** Ends the removal of an instance. */
  readonly keep: (instance: ManagedInstance) => void;
}

/**
 * Adds and removes instances, every `--scaling-interval`, according to the scaling policy and the latest
 * reports. One step at a time: it decides nothing while an instance starts, and removes no instance
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
    // The number of prefill instances is fixed by an option; the number of the others may vary.
    const varying = serving.filter(({ type }) => type !== "prefill");
    const numFixed = serving.length - varying.length;
    const removed = draining.filter(({ drain }) => drain!.by === "scaling");
    const wanted = scalingChange(varying.map((instance) => this.#stateOf(instance)), {
      ...scaling,
      loadMetric,
      minInstances: Math.max(1, scaling.minInstances - numFixed),
      maxInstances: Math.max(1, scaling.maxInstances - numFixed),
    });
    const change = Math.min(wanted, this.#config.room() + removed.length);
    if (change === 0 || (change < 0 && draining.length > 0)) return;
    this.#config.onScale(change);
    if (change > 0) this.#grow(change, removed);
    else for (const instance of emptiest(varying, -change)) this.#config.remove(instance);
  }

  /** To keep an instance that is being removed is quicker than to start one. */
  #grow(count: number, removed: readonly ManagedInstance[]): void {
    for (const instance of removed.slice(0, count)) this.#config.keep(instance);
    for (let i = removed.length; i < count; i++) this.#config.add();
  }

  #stateOf({ registration, info }: ManagedInstance): LoadState {
    const { priorityHeadroomBlocks } = this.#config.options;
    if (info) return loadStateOf(info, { priorityHeadroomBlocks });
    return loadStateOf(idleLoadInfo(registration!.totalBlocks));
  }
}

/** The instances that drain soonest: with the fewest blocks in use; among equals the last ones. */
function emptiest(instances: readonly ManagedInstance[], count: number): ManagedInstance[] {
  const usedBlocks = ({ info }: ManagedInstance) => info?.usedBlocks ?? 0;
  return instances.toReversed().sort((a, b) => usedBlocks(a) - usedBlocks(b)).slice(0, count);
}
