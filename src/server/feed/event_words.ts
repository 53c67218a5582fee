/** What happened in the cluster, in sentences. */
import type { ClusterEvent, MigrationEnded } from "../../core/protocol/monitoring.ts";
import type { FeedEventKind } from "./records.ts";

export interface Sentence {
  readonly kind: FeedEventKind;
  readonly text: string;
}

/** Reasons can be long: they may carry what a native library says. */
const MAX_REASON_LENGTH = 200;

/** A sentence for events that readers should see one by one; null for the others. */
export function sentenceFor(event: ClusterEvent): Sentence | null {
  switch (event.type) {
    case "instance_starting":
      return note(`${event.instanceId} starts`);
    case "instance_ready":
      return { kind: "good", text: `${event.instanceId} serves` };
    case "instance_draining":
      return warning(`${event.instanceId} drains: its requests move to other instances`);
    case "instance_kept":
      return { kind: "good", text: `${event.instanceId} takes requests again` };
    case "instance_stopped":
      return note(`${event.instanceId} has stopped`);
    case "instance_lost":
      return bad(`${event.instanceId} died: ${short(event.reason)}`);
    case "start_failed":
      return bad(`An instance could not start: ${short(event.reason)}`);
    case "scaled":
      return note(
        event.change > 0
          ? `Scaling adds ${counted(event.change, "instance")}`
          : `Scaling removes ${counted(-event.change, "instance")}`,
      );
    default:
      return null;
  }
}

/** One sentence each for what happens often: how much of it happened since the last time. */
export class EventSums {
  #moves: MigrationEnded[] = [];
  readonly #failedMoves = new Map<string, number>();
  readonly #preempted = new Map<string, number>();
  #resumed = 0;

  add(event: ClusterEvent): void {
    if (event.type === "resumed") this.#resumed++;
    if (event.type === "preempted") increase(this.#preempted, event.instanceId, event.count);
    if (event.type !== "migration_ended") return;
    if (event.outcome === "committed") this.#moves.push(event);
    else if (event.outcome !== "nothing" && event.outcome !== "finished") {
      const { sourceId, destinationId, reason } = event;
      const why = short(reason || "no answer came");
      increase(this.#failedMoves, `from ${sourceId} to ${destinationId}: ${why}`, 1);
    }
  }

  /** The sentences; begins anew. */
  take(): readonly Sentence[] {
    const sentences: Sentence[] = [];
    if (this.#moves.length > 0) sentences.push({ kind: "move", text: wordsFor(this.#moves) });
    for (const [way, count] of this.#failedMoves) {
      sentences.push(warning(`${counted(count, "migration")} failed ${way}`));
    }
    if (this.#preempted.size > 0) sentences.push(warning(wordsForPreempted(this.#preempted)));
    if (this.#resumed > 0) {
      const verb = this.#resumed === 1 ? "goes" : "go";
      const text = `${counted(this.#resumed, "request")} of a lost instance ${verb} on elsewhere`;
      sentences.push({ kind: "good", text });
    }
    this.#moves = [];
    this.#failedMoves.clear();
    this.#preempted.clear();
    this.#resumed = 0;
    return sentences;
  }
}

/** Pairs that a sentence about migrations names, and instances that one about preemptions names. */
const MAX_NAMED = 3;

function wordsForPreempted(counts: ReadonlyMap<string, number>): string {
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const be = total === 1 ? "was" : "were";
  const where = [...counts.keys()].slice(0, MAX_NAMED);
  const others = counts.size - where.length;
  if (others > 0) where.push(counted(others, "other"));
  return `${counted(total, "request")} ${be} preempted on ${
    where.join(", ")
  }: the KV cache was full`;
}

function wordsFor(moves: readonly MigrationEnded[]): string {
  const pairs = new Map<string, number>();
  for (const { sourceId, destinationId } of moves) {
    increase(pairs, `from ${sourceId} to ${destinationId}`, 1);
  }
  const sorted = [...pairs].sort(([, a], [, b]) => b - a);
  const named = sorted.slice(0, MAX_NAMED)
    .map(([pair, count]) => sorted.length === 1 ? pair : `${count} ${pair}`);
  const numOthers = sorted.slice(MAX_NAMED).reduce((sum, [, count]) => sum + count, 0);
  if (numOthers > 0) named.push(`${numOthers} between others`);
  const worst = Math.max(...moves.map(({ downtimeMs }) => downtimeMs)).toFixed(1);
  const colon = sorted.length === 1 ? "" : ":";
  const end = moves.length === 1 ? `downtime ${worst} ms` : `worst downtime ${worst} ms`;
  return `${counted(moves.length, "request")} moved${colon} ${named.join(", ")}; ${end}`;
}

function increase(counts: Map<string, number>, key: string, by: number): void {
  counts.set(key, (counts.get(key) ?? 0) + by);
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function short(reason: string): string {
  const line = reason.replace(/\s+/g, " ").trim();
  return line.length <= MAX_REASON_LENGTH ? line : `${line.slice(0, MAX_REASON_LENGTH - 1)}…`;
}

function note(text: string): Sentence {
  return { kind: "note", text };
}

function warning(text: string): Sentence {
  return { kind: "warning", text };
}

function bad(text: string): Sentence {
  return { kind: "bad", text };
}
