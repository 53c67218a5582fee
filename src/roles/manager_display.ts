/** Shows what the manager does: how far instances have loaded, which ones serve, which are lost. */
import process from "node:process";
import type { Log, LogFields } from "../core/log.ts";
import { takesEscapes } from "../core/terminal.ts";
import type { AgentJoin } from "../core/protocol/agents.ts";
import type { InstanceProgress } from "../core/protocol/membership.ts";
import type { MigrationReport } from "../core/protocol/migration.ts";
import { servingFields } from "./serving_fields.ts";
import type { ManagerEvent } from "../manager/manager_event.ts";

type Bars = import("cli-progress").MultiBar;
type Bar = import("cli-progress").SingleBar;

/** Loads of this size take long enough for a progress bar. */
const WATCHED_BYTES = 64 << 20;
/** Least time between two progress lines of one instance. */
const LINE_INTERVAL_MS = 2_000;

/** Writes log lines and, on a terminal, progress bars for long loads. */
export class ManagerDisplay {
  readonly #log: Log;
  readonly #isQuiet: boolean;
  readonly #isTerminal: boolean;
  #bars: Promise<Bars> | null = null;
  readonly #barOf = new Map<string, Promise<Bar>>();
  readonly #lastLineMs = new Map<string, number>();
  readonly #hasServed = new Set<string>();
  /** Instances that take no part in migration, and why. */
  #leftOut = new Map<string, string>();
  #isFinished = false;

  /** @param isQuiet omits the lines of single requests */
  constructor(log: Log, isQuiet = false, isTerminal = takesEscapes()) {
    this.#log = log;
    this.#isQuiet = isQuiet;
    this.#isTerminal = isTerminal;
  }

  /** Shows an event of the manager. */
  show(event: ManagerEvent): void {
    switch (event.type) {
      case "launched":
        return this.#log.info(`starting ${event.instanceId}`, { host: event.host, pid: event.pid });
      case "host_joined":
        return this.#log.info(`host ${event.facts.host} has joined`, describeHost(event.facts));
      case "host_left":
        if (event.hasStopped) return this.#log.info(`host ${event.host} has left`);
        return this.#log.warn(`lost the agent of host ${event.host}: its instances go on`);
      case "progress":
        return this.#progress(event.progress);
      case "registered": {
        const { instanceId } = event.registration;
        this.#hasServed.add(instanceId);
        return this.#log.info(`${instanceId} is ready`, servingFields(event.registration));
      }
      case "unreachable":
        return this.#log.error(
          `${event.instanceId} says that others reach it at ${event.address}, and this host does not ` +
            `(${event.reason}): give its host an address that all hosts reach (--advertise-host of an ` +
            "agent or serve, --host of an instance)",
        );
      case "lost":
        // An instance that never served is reported by `start_failed`, with this reason.
        if (!this.#hasServed.has(event.instanceId)) return;
        return this.#log.error(`lost ${event.instanceId}: ${event.reason}`);
      case "orphan_killed":
        return this.#log.warn(`killed ${event.instanceId}, which did not join this manager`);
      case "start_failed": {
        const { reason, retryMs } = event;
        const next = retryMs === null ? "" : `; trying again in ${retryMs / 1000} s`;
        return this.#log.error(`an instance did not start: ${reason}${next}`);
      }
      case "given_up":
        return this.#log.error(`an instance did not start, and no other serves: ${event.reason}`);
      case "stop_requested":
        return this.#log.info(`${event.instanceId} was asked to stop by a signal`);
      case "draining":
        return this.#log.info(`${event.instanceId} drains`);
      case "scaling": {
        const { change } = event;
        const count = change > 0 ? `${change} more` : `${-change} fewer`;
        return this.#log.info(`scaling ${change > 0 ? "up" : "down"} by load: ${count}`);
      }
      case "kept":
        return this.#log.info(`${event.instanceId} is kept`);
      case "stopped":
        return this.#log.info(`${event.instanceId} has stopped`);
      case "dispatched":
        if (this.#isQuiet) return;
        return this.#log.info(`dispatched ${event.requestId} to ${event.instanceId}`);
      case "migrated":
        return this.#migrated(event.report);
      case "group_formed":
        return this.#groupFormed(event);
      case "refused":
        return this.#log.error(`refused ${event.instanceId}: ${event.reason}`);
      case "not_migrating":
        return this.#log.warn(`${event.instanceId} takes no part in migration: ${event.reason}`);
      case "migration_unanswered": {
        const { sourceId, destinationId, reason } = event;
        return this.#log.warn(`${sourceId} did not report on a migration to ${destinationId}`, {
          reason,
        });
      }
    }
  }

  /** Removes the bars once the start is over. Idempotent. */
  finish(): void {
    if (this.#isFinished) return;
    this.#isFinished = true;
    this.#bars?.then((bars) => bars.stop());
  }

  /** Warns once of each instance that is left out: the manager tries it again and again. */
  #groupFormed(
    { generation, members, leftOut }: ManagerEvent & { readonly type: "group_formed" },
  ): void {
    this.#log.debug(`migration group ${generation}: ${members.join(", ")}`);
    for (const { instanceId, reason } of leftOut) {
      if (this.#leftOut.get(instanceId) === reason) continue;
      this.#log.warn(`${instanceId} takes no part in migration: ${reason}`);
    }
    this.#leftOut = new Map(leftOut.map(({ instanceId, reason }) => [instanceId, reason]));
  }

  #migrated({ earlier = [], ...report }: MigrationReport): void {
    for (const before of earlier) this.#migrated(before);
    const line = describeMigration(report);
    if (this.#isQuiet) this.#log.debug(line);
    else this.#log.info(line);
  }

  #progress(progress: InstanceProgress): void {
    if (this.#isFinished) return;
    if (this.#isTerminal && progress.totalBytes >= WATCHED_BYTES) this.#drawBar(progress);
    else this.#logLine(progress);
  }

  #logLine({ instanceId, phase, doneBytes, totalBytes, detail }: InstanceProgress): void {
    const key = `${instanceId} ${phase}`;
    const nowMs = performance.now();
    const isDone = doneBytes >= totalBytes;
    const isDue = nowMs - (this.#lastLineMs.get(key) ?? nowMs) >= LINE_INTERVAL_MS;
    if (!this.#lastLineMs.has(key)) this.#lastLineMs.set(key, nowMs);
    if (!isDone && !isDue) return;
    this.#lastLineMs.set(key, nowMs);
    if (totalBytes === 0) return this.#log.info(`${instanceId}: ${detail}`);
    this.#log.info(`${instanceId}: ${phase} ${mebibytes(doneBytes)} of ${mebibytes(totalBytes)}`, {
      detail: detail || undefined,
    });
  }

  #drawBar({ instanceId, phase, doneBytes, totalBytes, detail }: InstanceProgress): void {
    const key = `${instanceId} ${phase}`;
    let bar = this.#barOf.get(key);
    if (!bar) {
      bar = this.#openBars().then((bars) =>
        bars.create(totalBytes, 0, { name: key, detail }, { stopOnComplete: true })
      );
      this.#barOf.set(key, bar);
    }
    const label = `${mebibytes(doneBytes)} of ${mebibytes(totalBytes)} ${detail}`;
    bar.then((open) => open.update(doneBytes, { name: key, detail: label }));
  }

  #openBars(): Promise<Bars> {
    return this.#bars ??= import("cli-progress").then(({ default: progress }) =>
      new progress.MultiBar({
        format: "{name} [{bar}] {percentage}% {detail}",
        stream: process.stderr,
        clearOnComplete: true,
        hideCursor: true,
      }, progress.Presets.shades_classic)
    );
  }
}

function describeHost({ address, resources, slots, instances }: AgentJoin): LogFields {
  const { cores, cudaDevices, memoryBytes } = resources;
  const memory = mebibytes(memoryBytes);
  return { address, slots, instances: instances.length, cores, memory, cudaDevices };
}

function describeMigration(report: MigrationReport): string {
  const { requestId, sourceId, destinationId, outcome, reason, stages, blocks } = report;
  const way = `${requestId} from ${sourceId} to ${destinationId}`;
  if (outcome !== "committed") return `did not move ${way}: ${reason}`;
  if (report.isRecomputed) return `moved ${way} to be recomputed: ${report.lengthTokens} tokens`;
  const { bytes, transferMs } = report.transfer;
  const speed = transferMs > 0 ? ` at ${(bytes / transferMs / 1e6).toFixed(2)} GB/s` : "";
  return `moved ${way} in ${stages} ${stages === 1 ? "stage" : "stages"}: ${blocks} blocks` +
    `${speed}, downtime ${report.downtimeMs.toFixed(1)} ms`;
}

function mebibytes(bytes: number): string {
  return `${(bytes / (1 << 20)).toFixed(bytes < 10 << 20 ? 1 : 0)} MiB`;
}
