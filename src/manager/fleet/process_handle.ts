import { type Clock, sleep } from "../../core/clock.ts";
import type {
  AdoptedInstance,
  ExitStatus,
  InstanceLauncher,
  LaunchedInstance,
  LaunchRequest,
} from "./launcher.ts";

/** How long the end of a connection and the end of its process may be apart. */
const END_GRACE_MS = 500;
/** Interval of checks whether a process that is no child has ended. */
const END_POLL_MS = 20;

/**
 * The process of an instance, as far as the manager can reach it. It is a child of the manager, or an
 * adopted process that someone else started on this host, or out of reach: then the manager has only the
 * connection.
 */
export class ProcessHandle {
  #launching: Promise<LaunchedInstance> | null = null;
  #launched: LaunchedInstance | null = null;
  #adopted: AdoptedInstance | null = null;
  readonly #disconnected = Promise.withResolvers<void>();
  #end: Promise<ExitStatus | null> | null = null;
  #hasEnded = false;
  #isKilled = false;

  /** This manager launched it, successfully or not. */
  get wasLaunched(): boolean {
    return this.#launching !== null;
  }

  /** A child process of this manager. */
  get isChild(): boolean {
    return this.#launched !== null;
  }

  /** Somebody else started it on this host, or on that of an agent. */
  get isAdopted(): boolean {
    return this.#adopted !== null;
  }

  /** Null unless it is a child. */
  get pid(): number | null {
    return this.#launched?.pid ?? null;
  }

  /** Resolves once the launch has succeeded or failed; at once without a launch. */
  async untilLaunched(): Promise<void> {
    await this.#launching?.catch(() => {});
  }

  /** @throws the launcher's error */
  async launch(launcher: InstanceLauncher, request: LaunchRequest): Promise<LaunchedInstance> {
    this.#launching = launcher.launch(request);
    return this.#launched = await this.#launching;
  }

  /** Adopts the process, unless it is a child or adopted already. */
  adopt(find: () => AdoptedInstance | null | undefined): void {
    if (!this.isChild) this.#adopted ??= find() ?? null;
  }

  /** It is an adopted process that has ended: a connection that it lost does not come back. */
  get isAdoptedAndEnded(): boolean {
    return this.#adopted?.hasEnded() === true;
  }

  terminate(): void {
    this.#launched?.stop("SIGTERM");
  }

  /** A no-op if the process is out of reach. */
  kill(): void {
    this.#isKilled = true;
    (this.#launched ?? this.#adopted)?.stop("SIGKILL");
  }

  /** Its connection has ended. A process out of reach counts as ended then. */
  noteDisconnected(): void {
    this.#disconnected.resolve();
  }

  /**
   * Resolves when the process has ended, or was killed. If it is out of reach: when its connection has
   * ended.
   * @returns null: how it ended is not known
   */
  untilEnded(clock: Clock): Promise<ExitStatus | null> {
    return this.#end ??= this.#awaitEnd(clock).finally(() => this.#hasEnded = true);
  }

  /** {@linkcode untilEnded} for a moment; null if the process has not ended by then. */
  async endWithinGrace(clock: Clock): Promise<ExitStatus | null> {
    const grace = Promise.withResolvers<null>();
    const cancel = clock.after(END_GRACE_MS, () => grace.resolve(null));
    const status = await Promise.race([this.untilEnded(clock), grace.promise]);
    await Promise.race([this.#disconnected.promise, grace.promise]);
    cancel();
    return status;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /**
   * How it ended, as the end of a message that begins with the instance's name.
   * @param status null: not known
   * @param cause why the manager gave the instance up while its process ran; null: it did not
   */
  describeEnd(status: ExitStatus | null, cause: string | null): string {
    if (status) return describeExit(status);
    const isReachable = this.isChild || this.#adopted !== null;
    if (isReachable && this.#hasEnded && !this.#isKilled) return "has ended";
    const loss = cause ?? "lost its connection";
    return isReachable && this.#isKilled ? `${loss} and was killed` : loss;
  }

  async #awaitEnd(clock: Clock): Promise<ExitStatus | null> {
    if (this.#launched) return await this.#launched.exited;
    await this.#disconnected.promise;
    const adopted = this.#adopted;
    while (adopted && !this.#isKilled && !adopted.hasEnded()) await sleep(clock, END_POLL_MS);
    return null;
  }
}

function describeExit({ code, signal }: ExitStatus): string {
  if (code === null && signal === null) return "has ended";
  return signal ? `was ended by ${signal}` : `exited with code ${code}`;
}
