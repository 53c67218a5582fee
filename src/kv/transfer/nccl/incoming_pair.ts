import { Communicator } from "../../../../ffi/nccl/communicator.ts";
import { type ClaimRuns, PairDestination } from "../../../../ffi/nccl/pair_destination.ts";
import {
  type DestinationMessage,
  parseMessage,
  type SourceMessage,
} from "../../../../ffi/nccl/pair_messages.ts";
import type { EventCalls, NcclCalls } from "../../../../ffi/nccl/pair.ts";
import type { Clock } from "../../../core/clock.ts";
import { RequestError } from "../../../core/errors.ts";
import { HEAR_MS, SILENCE_MS } from "./wire.ts";

/** Most messages that wait for the source to ask. */
const MAX_UNHEARD = 64;

export interface IncomingPairArgs {
  readonly nccl: NcclCalls;
  readonly cuda: EventCalls;
  readonly stream: bigint;
  readonly clock: Clock;
  readonly claim: ClaimRuns;
}

/** The receiving end of what one process of another instance sends. */
export class IncomingPair {
  readonly stream: bigint;
  readonly #args: IncomingPairArgs;
  readonly #communicator: Communicator;
  readonly #destination: PairDestination;
  #unheard: DestinationMessage[] = [];
  #wakeHearer: (() => void) | null = null;
  #cancelSilence = () => {};

  constructor(args: IncomingPairArgs) {
    const { nccl, cuda: events, stream, claim } = args;
    this.#args = args;
    this.stream = stream;
    this.#communicator = new Communicator({ nccl, events, stream, rank: 1 });
    const post = (message: DestinationMessage) => this.#post(message);
    this.#destination = new PairDestination(this.#communicator, post, claim);
  }

  get died(): Promise<string> {
    return this.#communicator.died;
  }

  /** @throws {RequestError} not a message of a source */
  tell(data: unknown): void {
    const message = parsed(data);
    this.#noteLife();
    this.#destination.receive(message);
  }

  /** The next messages for the source; an empty list if there are none within {@linkcode HEAR_MS}. */
  async hear(): Promise<readonly DestinationMessage[]> {
    this.#noteLife();
    this.#wakeHearer?.(); // an earlier call of the source, which it has given up
    if (this.#unheard.length === 0) await this.#untilPosted();
    return this.#unheard.splice(0);
  }

  /** Ends the incoming transfer: its blocks were revoked. */
  stop(reason: Error): void {
    this.#destination.lose(reason);
  }

  /** The source's process is gone. */
  peerDied(): void {
    this.#destination.peerDied();
  }

  /** @throws {PairDeadError} NCCL may still write the pool */
  async close(_leftMs: number): Promise<void> {
    this.#cancelSilence();
    this.#wakeHearer?.();
    await this.#destination.close(new Error("the migration backend is closed"));
  }

  #post(message: DestinationMessage): void {
    if (this.#unheard.length >= MAX_UNHEARD) throw new Error("the source does not listen");
    this.#unheard.push(message);
    this.#wakeHearer?.();
  }

  #untilPosted(): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        cancel();
        this.#wakeHearer = null;
        resolve();
      };
      const cancel = this.#args.clock.after(HEAR_MS, end);
      this.#wakeHearer = end;
    });
  }

  /** If the source stops calling, it is dead or cut off, and its transfer ends. */
  #noteLife(): void {
    this.#cancelSilence();
    this.#cancelSilence = this.#args.clock.after(HEAR_MS + SILENCE_MS, () => {
      this.#destination.lose(new Error(`the source has not called for ${HEAR_MS + SILENCE_MS} ms`));
    });
  }
}

function parsed(data: unknown): SourceMessage {
  try {
    const message = parseMessage(data);
    if (message.from === "source") return message;
  } catch (error) {
    throw new RequestError((error as Error).message);
  }
  throw new RequestError("a message of a destination came to a destination");
}
