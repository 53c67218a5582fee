import type { OutputSink } from "../core/cluster.ts";
import type { ErrorRecord } from "../core/errors.ts";
import type { GenerateRequest, RequestId, RequestOutput } from "../core/messages.ts";
import type { InstanceLink } from "./instance_link.ts";
import { OutputOrder } from "./output_order.ts";

/** One request of an API server, from `submit` to its finish. */
export class ClientRequest {
  readonly requestId: RequestId;
  /** The instance that has it, or is about to. */
  link: InstanceLink | null = null;
  #isAborted = false;
  /** Outputs that came before {@linkcode open}; null after it. */
  #held: RequestOutput[] | null = [];
  readonly #order: OutputOrder;

  constructor(
    request: GenerateRequest,
    sink: OutputSink,
    private readonly onEnd: (request: ClientRequest) => void,
  ) {
    this.requestId = request.requestId;
    this.#order = new OutputOrder(request.outputTokenIds.length, sink);
  }

  get isAborted(): boolean {
    return this.#isAborted;
  }

  accept(output: RequestOutput): void {
    if (this.#held !== null) {
      this.#held.push(output);
      return;
    }
    this.#order.accept(output);
    if (this.#order.hasEnded) this.onEnd(this);
  }

  /** Hands on what has come, and from now on what comes. */
  open(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const output of held) this.accept(output);
  }

  /** Ends it with an error behind whatever was delivered. */
  fail(error: ErrorRecord): void {
    this.accept({
      requestId: this.requestId,
      index: this.#order.nextIndex,
      tokenIds: [],
      finish: { reason: "error", error },
    });
  }

  /** The sink is never called again. */
  abort(): void {
    this.#isAborted = true;
    this.#order.stop();
  }
}
