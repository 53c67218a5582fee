import { Communicator } from "../../../../ffi/nccl/communicator.ts";
import { type DestinationMessage, parseMessage } from "../../../../ffi/nccl/pair_messages.ts";
import { PairSource, type SendOptions } from "../../../../ffi/nccl/pair_source.ts";
import type { EventCalls, NcclCalls, Run } from "../../../../ffi/nccl/pair.ts";
import type { Clock } from "../../../core/clock.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { BackendLinks } from "../backend_kind.ts";
import { type Caller, HEAR_MS, SILENCE_MS } from "./wire.ts";

export interface OutgoingPairArgs {
  readonly nccl: NcclCalls;
  readonly cuda: EventCalls;
  readonly stream: bigint;
  readonly caller: Caller;
  readonly links: BackendLinks;
  readonly clock: Clock;
  /** Where the destination serves. */
  readonly address: string;
}

/** Pause before the destination is told again what it may have missed. */
const RETRY_MS = 500;

/** The sending end towards one instance. It listens to the destination as long as anything is open. */
export class OutgoingPair {
  readonly stream: bigint;
  readonly #args: OutgoingPairArgs;
  readonly #communicator: Communicator;
  readonly #source: PairSource;
  /** Messages go one after the other. */
  #told: Promise<void> = Promise.resolve();
  #isHearing = false;
  #sends = 0;
  #cancelRetry: (() => void) | null = null;
  #isClosed = false;

  constructor(args: OutgoingPairArgs) {
    const { nccl, cuda: events, stream } = args;
    this.#args = args;
    this.stream = stream;
    this.#communicator = new Communicator({ nccl, events, stream, rank: 0 });
    this.#source = new PairSource(this.#communicator, (message) => this.#tell(message));
  }

  /** Resolves with the reason if NCCL does not end the communicator: the process must restart. */
  get died(): Promise<string> {
    return this.#communicator.died;
  }

  get isIdle(): boolean {
    return this.#sends === 0;
  }

  async send(runs: readonly Run[], options: SendOptions): Promise<void> {
    if (this.#isClosed) throw new UnavailableError("the migration backend is closed");
    this.#sends++;
    try {
      void this.#hear();
      await this.#source.send(runs, options);
    } finally {
      this.#sends--;
    }
  }

  /** Ends what is sent: the destination has left the group. */
  lose(reason: Error): void {
    this.#source.lose(reason);
  }

  /** @throws {PairDeadError} NCCL may still read the pool */
  async close(leftMs: number): Promise<void> {
    this.#isClosed = true;
    try {
      await this.#source.close(leftMs);
    } finally {
      this.#cancelRetry?.();
    }
  }

  #tell(message: unknown): Promise<void> {
    const sent = this.#told.then(async () => {
      await this.#call("tell", { message });
    });
    this.#told = sent.catch(() => this.#retryLater());
    return sent;
  }

  /**
   * The destination keeps the blocks of a failed transfer until it learns that this end has aborted. This
   * end repeats that until the destination answers or leaves the group.
   */
  #retryLater(): void {
    if (this.#isClosed || this.#cancelRetry !== null) return;
    this.#cancelRetry = this.#args.clock.after(RETRY_MS, () => {
      this.#cancelRetry = null;
      this.#source.restore();
    });
  }

  async #hear(): Promise<void> {
    if (this.#isHearing) return;
    this.#isHearing = true;
    try {
      while (this.#sends > 0 || this.#communicator.state !== "none") await this.#hearOnce();
    } catch (error) {
      this.#source.lose(error as Error);
    } finally {
      this.#isHearing = false;
    }
  }

  async #hearOnce(): Promise<void> {
    const messages = await this.#call("hear", {});
    if (!Array.isArray(messages)) throw new UnavailableError("an answer without messages");
    for (const message of messages) {
      this.#source.receive(parseMessage(message) as DestinationMessage);
    }
  }

  async #call(topic: "tell" | "hear", data: Record<string, unknown>): Promise<unknown> {
    const { links, address, caller } = this.#args;
    const link = await links.open(address, SILENCE_MS);
    const timeoutMs = topic === "hear" ? HEAR_MS + SILENCE_MS : SILENCE_MS;
    try {
      const message = { data: { topic, data: { ...caller, ...data } } };
      return (await link.call("migrate_backend", message, { timeoutMs })).data;
    } catch (error) {
      link.close(); // it may hang; the next call opens a new one
      throw error;
    }
  }
}
