/**
 * Rows of `--log-instance-info` with the columns of Llumnix, in its order, and one more: an infinite load
 * would make every mean infinite, so its cell is empty, and `instance_load_kind` says which infinity it is.
 */
import type { InstanceId } from "../core/protocol/generate.ts";
import type { InstanceInfo } from "../core/protocol/instance_info.ts";
import type { ManagerOptions, MigrationOptions } from "../core/options.ts";
import { migrationLoad } from "../manager/load/load_metric.ts";
import { loadStateOf } from "../manager/load/load_state.ts";

export type InstanceInfoCsvOptions =
  & Pick<ManagerOptions, "loadMetric" | "priorityHeadroomBlocks">
  & Pick<MigrationOptions, "enableDefrag">;

interface RowContext {
  readonly numInstances: number;
  readonly options: InstanceInfoCsvOptions;
}

/** The cell of each column. Times are seconds, latencies milliseconds. */
const columns: Readonly<Record<string, (info: InstanceInfo, context: RowContext) => Cell>> = {
  timestamp: (info) => info.timestampMs / 1000,
  instance_id: (info) => info.instanceId,
  step_id: (info) => info.stepId,
  gpu_cache_usage: (info) => info.usedBlocks / info.totalBlocks,
  num_available_gpu_blocks: (info) => info.freeBlocks - info.watermarkBlocks,
  instance_load: (info, context) => {
    const load = loadOf(info, context);
    return Number.isFinite(load) ? load : "";
  },
  max_tot_tokens: (info) => info.maxOutputTokens,
  num_running_requests: (info) => info.runningRequests,
  num_waiting_requests: (info) => info.waitingRequests,
  num_killed_requests: (info) => info.killedRequests,
  inference_type: (info) => info.lastStepKind,
  bs: (info) => info.lastStepBatchedTokens,
  profiling_data: (info) => [
    "(",
    `'${info.lastStepKind}'`,
    info.lastStepSequences,
    info.lastStepContextTokens,
    info.lastStepLatencyMs,
    ")",
  ],
  seq_lens: (info) => ["[", ...info.runningSequenceLengths, "]"],
  num_instances: (_, { numInstances }) => numInstances,
  num_seqs: (info) => info.lastStepSequences,
  num_blocks_first_waiting_request: (info) => info.firstWaitingBlocks,
  num_blocks_all_waiting_requests: (info) => info.allWaitingBlocks,
  waiting_time_first_waiting_request: (info) => info.firstWaitingMs / 1000,
  instance_load_kind: (info, context) => {
    const load = loadOf(info, context);
    return Number.isFinite(load) ? "finite" : load > 0 ? "inf" : "-inf";
  },
};

function loadOf(info: InstanceInfo, { options }: RowContext): number {
  return migrationLoad(options.loadMetric, loadStateOf(info, options), options.enableDefrag);
}

/** A list has its brackets as first and last item, and is written as Python shows it. */
type Cell = string | number | readonly (string | number)[];

export const instanceInfoHeader = Object.keys(columns).join(",") + "\n";

/** Chooses the rows: one for each busy instance, and one when an instance has become idle. */
export class InstanceInfoCsv {
  /** Instances that were busy in their last row. */
  #busy = new Set<InstanceId>();

  constructor(private readonly options: InstanceInfoCsvOptions) {}

  /** @param infos the last reports of the serving instances */
  rows(infos: readonly InstanceInfo[]): string {
    const context = { numInstances: infos.length, options: this.options };
    const busy = infos.filter(isBusy);
    const due = infos.filter((info) => isBusy(info) || this.#busy.has(info.instanceId));
    this.#busy = new Set(busy.map(({ instanceId }) => instanceId));
    return due.map((info) => rowOf(info, context)).join("");
  }
}

function isBusy(info: InstanceInfo): boolean {
  return info.usedBlocks + info.runningRequests + info.waitingRequests + info.killedRequests > 0;
}

function rowOf(info: InstanceInfo, context: RowContext): string {
  return Object.values(columns).map((column) => shown(column(info, context))).join(",") + "\n";
}

function shown(cell: Cell): string {
  if (typeof cell === "string") return quoted(cell);
  if (typeof cell === "number") return Number.isFinite(cell) ? String(cell) : "";
  const [open, ...items] = cell;
  return quoted(open + items.slice(0, -1).join(", ") + items.at(-1));
}

function quoted(text: string): string {
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
