import { type Clock, sleep } from "../../core/clock.ts";
import type {
  AdoptedInstance,
  ExitStatus,
  InstanceLauncher,
  LaunchedInstance,
  LaunchRequest,
} from "./launcher.ts";

/** The end of a connection and of its process are noticed apart; how long to wait for the second. */
const END_GRACE_MS = 500;
/** How often the manager looks whether a process that it found running has ended. */
const END_POLL_MS = 20;

/**
 * The process of an instance, as far as the manager can reach it: a child process, a process that it
 * found running, or one on another host, of which it knows no more than the connection.
 */
export class ProcessHandle {
  #launching: Promise<LaunchedInstance> | null = null;
  #launched: LaunchedInstance | null = null;
  #adopted: AdoptedInstance | null = null;
  readonly #disconnected = Promise.withResolvers<void>();
  #end: Promise<ExitStatus | null> | null = null;
  #hasEnded = false;
  #isKilled = false;

  /** Launched by this manager, successfully or not. */
  get wasLaunched(): boolean {
    return this.#launching !== null;
  }

  /** A child process of this manager. */
  get isChild(): boolean {
    return this.#launched !== null;
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

  /** Takes hold of a process that runs already, unless it is a child or held. */
  adopt(find: () => AdoptedInstance | null | undefined): void {
    if (!this.isChild) this.#adopted ??= find() ?? null;
  }

  /** A process that was found running has ended: a connection that it lost does not come back. */
  get isAdoptedAndEnded(): boolean {
    return this.#adopted?.hasEnded() === true;
  }

  terminate(): void {
    this.#launched?.stop("SIGTERM");
  }

  /** A no-op where the process is out of reach. */
  kill(): void {
    this.#isKilled = true;
    (this.#launched ?? this.#adopted)?.stop("SIGKILL");
  }

  /** Its connection has ended, and with it the last sign of life of a process out of reach. */
  noteDisconnected(): void {
    this.#disconnected.resolve();
  }

  /**
   * Resolves when the process has ended, or was killed as far as it can be; for a process out of reach,
   * when its connection has ended. Null: how it ended is not known.
   */
  untilEnded(clock: Clock): Promise<ExitStatus | null> {
    return this.#end ??= this.#awaitEnd(clock).finally(() => this.#hasEnded = true);
  }

  /** As {@linkcode untilEnded}, for a moment. Null also when only the connection ended by then. */
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
   * How it ended, after the instance's name.
   * @param status null: not known
   * @param cause why the manager gave it up, if it did so while the process ran
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
  return signal ? `was ended by ${signal}` : `exited with code ${code}`;
}
