/** The periodic statistics of the service, as in vLLM (`--disable-log-stats` turns them off). */
import type { Clock } from "../core/clock.ts";
import type { Log } from "../core/log.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { InstanceInfo, InstanceTotals } from "../core/protocol/instance_info.ts";
import type { ManagerStatistics } from "../manager/manager_statistics.ts";

const INTERVAL_MS = 10_000;

export interface StatisticsLogConfig {
  readonly clock: Clock;
  readonly log: Log;
  /** The last reports of the serving instances. */
  readonly infos: () => readonly InstanceInfo[];
  /** The manager's counters. */
  readonly statistics: () => ManagerStatistics;
}

/** While there is work, logs throughput, queues and KV cache of all instances together. */
export class StatisticsLog {
  readonly #config: StatisticsLogConfig;
  readonly #before = new Map<InstanceId, InstanceTotals>();
  #managerBefore: ManagerStatistics;
  #cancel: () => void;

  constructor(config: StatisticsLogConfig) {
    this.#config = config;
    this.#managerBefore = config.statistics();
    this.#cancel = config.clock.after(INTERVAL_MS, () => this.#tick());
  }

  close(): void {
    this.#cancel();
  }

  #tick(): void {
    this.#cancel = this.#config.clock.after(INTERVAL_MS, () => this.#tick());
    this.#logMigrations();
    const infos = this.#config.infos();
    const sum = (of: (info: InstanceInfo) => number) =>
      infos.reduce((total, info) => total + of(info), 0);
    const done = sumOf(infos.map((info) => this.#sinceLast(info)));
    const running = sum((info) => info.runningRequests);
    const waiting = sum((info) => info.waitingRequests);
    if (done.promptTokens + done.outputTokens + running + waiting === 0) return;
    const perSecond = (tokens: number) => (tokens / INTERVAL_MS * 1000).toFixed(1);
    const usage = 100 * sum((info) => info.usedBlocks) / sum((info) => info.totalBlocks);
    this.#config.log.info(
      `prompt ${perSecond(done.promptTokens)} tokens/s, ` +
        `generation ${perSecond(done.outputTokens)} tokens/s, running ${running}, ` +
        `preempted ${sum((info) => info.killedRequests)}, waiting ${waiting}, ` +
        `KV cache ${usage.toFixed(1)}% in use`,
    );
    if (done.preemptions > 0) {
      const preemptions = `${done.preemptions} preemption${done.preemptions === 1 ? "" : "s"}`;
      this.#config.log.warn(
        `${preemptions} in ${
          INTERVAL_MS / 1000
        } s: the KV cache is too small for the load. Raise ` +
          "--gpu-memory-utilization or --num-gpu-blocks-override, lower --max-num-seqs, or add " +
          "instances.",
      );
    }
  }

  #logMigrations(): void {
    const before = this.#managerBefore, now = this.#config.statistics();
    this.#managerBefore = now;
    const moved = now.migrations.committed - before.migrations.committed;
    const failed = numFailed(now) - numFailed(before);
    if (moved + failed === 0) return;
    const mebibytes = (now.transferredBytes - before.transferredBytes) / (1 << 20);
    const downtimeMs = (now.downtimeSumMs - before.downtimeSumMs) / Math.max(1, moved);
    this.#config.log.info(
      `migrations ${moved}, given up ${failed}, moved ${mebibytes.toFixed(1)} MiB, ` +
        `mean downtime ${downtimeMs.toFixed(1)} ms`,
    );
  }

  #sinceLast({ instanceId, totals }: InstanceInfo): InstanceTotals {
    const before = this.#before.get(instanceId) ?? nothing;
    this.#before.set(instanceId, totals);
    return {
      promptTokens: totals.promptTokens - before.promptTokens,
      outputTokens: totals.outputTokens - before.outputTokens,
      preemptions: totals.preemptions - before.preemptions,
    };
  }
}

/** Migrations that began and moved no request. */
function numFailed({ migrations }: ManagerStatistics): number {
  const { finished, aborted_source, aborted_destination, unanswered } = migrations;
  return finished + aborted_source + aborted_destination + unanswered;
}

const nothing: InstanceTotals = { promptTokens: 0, outputTokens: 0, preemptions: 0 };

function sumOf(all: readonly InstanceTotals[]): InstanceTotals {
  return all.reduce((a, b) => ({
    promptTokens: a.promptTokens + b.promptTokens,
    outputTokens: a.outputTokens + b.outputTokens,
    preemptions: a.preemptions + b.preemptions,
  }), nothing);
}
