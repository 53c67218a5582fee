/** The other side of `predecessor.ts`: a process that takes the place of the one that started it. */
import { listeningPort, setInherited } from "../../../ffi/listening_sockets.ts";
import type { Address, Peer } from "../../bus/bus.ts";
import { openBus } from "../../bus/open_bus.ts";
import { realClock, sleep } from "../../core/clock.ts";
import { UsageError } from "../../core/errors.ts";
import type { Handover } from "../../core/protocol/upgrade.ts";
import { fullVersion } from "../../core/version.ts";
import { type Succession, SUCCESSION_VARIABLE } from "./succession.ts";

/** Longer than a manager needs to let its instances go. */
const TAKE_OVER_TIMEOUT_MS = 30_000;
const MAX_SOCKETS = 64;
/** What the end of a predecessor may take on top of the time of its requests. */
const END_MS = 10_000;

type Environment = Pick<Deno.Env, "get" | "delete">;

/** The process whose place this one takes. */
export class Predecessor {
  readonly #peer: Peer;
  readonly #gone = Promise.withResolvers<void>();

  private constructor(peer: Peer, gone: PromiseWithResolvers<void>, readonly sockets: number[]) {
    this.#peer = peer;
    this.#gone = gone;
  }

  /**
   * Connects to the predecessor that the environment names; null if there is none.
   * @throws {UnavailableError} it is gone, or is of a release that this one does not understand
   * @throws {UsageError} the variable does not come from a predecessor
   */
  static async fromEnvironment(environment: Environment = Deno.env): Promise<Predecessor | null> {
    const text = environment.get(SUCCESSION_VARIABLE);
    if (text === undefined) return null;
    environment.delete(SUCCESSION_VARIABLE); // not for the instances
    const { predecessor, sockets } = parseSuccession(text);
    for (const fd of sockets) setInherited(fd, false);
    const gone = Promise.withResolvers<void>();
    const peer = await openBus().connect(predecessor, { onClose: () => gone.resolve() });
    return new Predecessor(peer, gone, sockets);
  }

  /**
   * To be called once this process can serve: the predecessor gives up what only one can have.
   * @param candidate see {@linkcode TakeOver}
   */
  async takeOver(candidate?: string): Promise<Handover> {
    const options = { timeoutMs: TAKE_OVER_TIMEOUT_MS };
    const data = { version: fullVersion(), candidate };
    return (await this.#peer.call("take_over", { data }, options)).data;
  }

  /** This process serves: the predecessor takes no more requests, and ends when it has none. */
  async takenOver(): Promise<void> {
    await this.#peer.call("taken_over", { data: null });
  }

  /** Has the predecessor end by the deadline, and waits for it; not for one that hangs. */
  async finish(withinMs: number): Promise<void> {
    this.#peer.notify("finish", { data: { withinMs } });
    await Promise.race([this.#gone.promise, sleep(realClock, withinMs + END_MS)]);
  }

  /** Resolves when the predecessor has ended. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }
}

/**
 * Runs a role, as the successor of another process if the environment says so. The predecessor reads on
 * stdout why a successor failed.
 */
export async function asSuccessor(
  run: (predecessor: Predecessor | null) => Promise<number>,
): Promise<number> {
  const isSuccessor = Deno.env.get(SUCCESSION_VARIABLE) !== undefined;
  try {
    return await run(await Predecessor.fromEnvironment());
  } catch (error) {
    if (isSuccessor) console.log(error instanceof Error ? error.message : String(error));
    throw error;
  }
}

/** @throws {UsageError} it does not come from a predecessor */
function parseSuccession(text: string): { predecessor: Address; sockets: number[] } {
  let value: Partial<Succession> | null = null;
  try {
    value = JSON.parse(text);
  } catch {
    // The error below says it.
  }
  const { predecessor, sockets } = value ?? {};
  const isValid = typeof predecessor === "string" && predecessor.startsWith("unix:/") &&
    Array.isArray(sockets) && sockets.length <= MAX_SOCKETS &&
    sockets.every((fd) => Number.isSafeInteger(fd) && listeningPort(fd) !== null);
  if (isValid) return { predecessor: predecessor!, sockets: [...sockets!] };
  throw new UsageError(
    `${SUCCESSION_VARIABLE} is set by a process for its successor, and by nobody else: unset it`,
  );
}
