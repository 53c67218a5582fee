import type { Clock } from "../core/clock.ts";
import { LlumnixError } from "../core/errors.ts";
import type { ClientRequest } from "./client_request.ts";
import type { InstanceLink } from "./instance_link.ts";

/** A request is silent if no token of it came between two audits. */
const INTERVAL_MS = 5_000;
/** After a loss the next audit is sooner; outputs under way still get this time to arrive. */
const HURRY_MS = 500;
/** How long the first output of an instance that took a request over may be under way. */
const GRACE_MS = 1_000;

export interface LostRequestAuditConfig {
  readonly clock: Clock;
  readonly links: () => Iterable<InstanceLink>;
  /** The owner does not have the request, or tokens of it were lost on the way. */
  readonly onMissing: (request: ClientRequest, reason: string) => void;
}

/**
 * Finds requests that no instance works on although their owner, as far as this API server knows,
 * is alive. The owner may have handed a request to an instance that died before it sent anything,
 * or the last tokens of an earlier owner may be lost. Requests that keep getting tokens are not
 * asked for.
 */
export class LostRequestAudit {
  readonly #config: LostRequestAuditConfig;
  /** The index of each request's next token at the previous audit. */
  #formerIndex = new Map<ClientRequest, number>();
  #cancel: (() => void) | null = null;
  /** Cancels the second look at requests that were reported missing. */
  readonly #cancelChecks = new Set<() => void>();
  #dueMs = Infinity;
  #isClosed = false;

  constructor(config: LostRequestAuditConfig) {
    this.#config = config;
  }

  /** Runs audits as long as there are requests. */
  start(): void {
    if (this.#cancel === null) this.#schedule(INTERVAL_MS);
  }

  /** An instance was lost: the next audit comes soon, and covers all requests. */
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
        link.close("it does not answer"); // its requests are resumed elsewhere
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
