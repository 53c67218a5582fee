import type { Clock } from "../core/clock.ts";
import { LlumnixError } from "../core/errors.ts";
import type { ClientRequest } from "./client_request.ts";
import type { InstanceLink } from "./instance_link.ts";

/** A request of which nothing came for so long is asked for. */
const INTERVAL_MS = 5_000;
/** After a loss it is urgent; what is under way may still arrive. */
const HURRY_MS = 500;
/** How long the output of the instance that has taken a request over may be under way. */
const GRACE_MS = 1_000;

export interface SilenceAuditConfig {
  readonly clock: Clock;
  readonly links: () => Iterable<InstanceLink>;
  /** The owner does not have the request, or tokens of it are lost. */
  readonly onMissing: (request: ClientRequest, reason: string) => void;
}

/**
 * Finds requests that nobody works on although their owner, as far as is known here, is alive: it
 * may have given them to an instance that died before it sent anything, or the last tokens of a
 * former owner may be lost. Requests whose tokens keep coming cost nothing.
 */
export class SilenceAudit {
  readonly #config: SilenceAuditConfig;
  /** Index of the next token at the audit before. */
  #formerIndex = new Map<ClientRequest, number>();
  #cancel: (() => void) | null = null;
  /** Timers of what is checked once more. */
  readonly #cancelChecks = new Set<() => void>();
  #dueMs = Infinity;
  #isClosed = false;

  constructor(config: SilenceAuditConfig) {
    this.#config = config;
  }

  /** Runs from now on, while there are requests. */
  start(): void {
    if (this.#cancel === null) this.#schedule(INTERVAL_MS);
  }

  /** The next audit is soon, and asks for all. */
  hurry(): void {
    this.#formerIndex.clear();
    for (const request of this.#requests()) this.#formerIndex.set(request, request.nextIndex);
    if (this.#config.clock.nowMs() + HURRY_MS < this.#dueMs) this.#schedule(HURRY_MS);
  }

  close(): void {
    this.#stop();
    for (const cancel of this.#cancelChecks) cancel();
    this.#cancelChecks.clear();
    this.#isClosed = true;
  }

  #stop(): void {
    this.#cancel?.();
    this.#cancel = null;
    this.#dueMs = Infinity;
  }

  #schedule(delayMs: number): void {
    this.#stop();
    const { clock } = this.#config;
    this.#dueMs = clock.nowMs() + delayMs;
    this.#cancel = clock.after(delayMs, () => {
      this.#stop();
      this.#audit();
    });
  }

  #audit(): void {
    const former = this.#formerIndex;
    this.#formerIndex = new Map();
    for (const link of [...this.#config.links()]) {
      const silent: ClientRequest[] = [];
      for (const request of link.requests) {
        this.#formerIndex.set(request, request.nextIndex);
        if (former.get(request) === request.nextIndex) silent.push(request);
      }
      if (silent.length > 0) this.#askFor(silent, link);
    }
    if (this.#formerIndex.size > 0) this.#schedule(INTERVAL_MS);
  }

  async #askFor(requests: readonly ClientRequest[], link: InstanceLink): Promise<void> {
    const { clock } = this.#config;
    const before = new Map(requests.map((one) => [one.requestId, stateOf(one)]));
    let missing: ReadonlySet<string>;
    try {
      missing = new Set(await link.missing([...before.keys()]));
    } catch (error) {
      if (error instanceof LlumnixError && error.kind === "unavailable") {
        link.close("it does not answer"); // its requests go on elsewhere
      }
      return;
    }
    if (this.#isClosed) return;
    const cancel = clock.after(GRACE_MS, () => {
      this.#cancelChecks.delete(cancel);
      for (const request of requests) {
        if (request.link !== link || before.get(request.requestId) !== stateOf(request)) continue;
        if (request.hasGap) {
          this.#config.onMissing(request, `tokens from ${request.nextIndex} on were lost`);
        } else if (missing.has(request.requestId)) {
          this.#config.onMissing(request, `${link.instanceId} does not have the request`);
        }
      }
    });
    this.#cancelChecks.add(cancel);
  }

  *#requests(): Generator<ClientRequest> {
    for (const link of this.#config.links()) yield* link.requests;
  }
}

function stateOf({ epoch, nextIndex }: ClientRequest): string {
  return `${epoch}:${nextIndex}`;
}
