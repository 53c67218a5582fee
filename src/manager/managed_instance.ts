import type { Peer } from "../bus/bus.ts";
import type { Clock } from "../core/clock.ts";
import { type ErrorRecord, fromErrorRecord } from "../core/errors.ts";
import type { InstanceId, InstanceInfo, InstanceRegistration } from "../core/messages.ts";
import type { ExitStatus, LaunchedInstance } from "./launcher.ts";

/** The end of a connection and of a process are noticed apart; how long to wait for the second. */
const END_GRACE_MS = 500;

/** What the manager knows of one instance, from its launch to its end. */
export class ManagedInstance {
  /** Settled as soon as its process runs, or cannot. */
  launching: Promise<LaunchedInstance> | null = null;
  launched: LaunchedInstance | null = null;
  /** Set once it joined. */
  peer: Peer | null = null;
  registration: InstanceRegistration | null = null;
  info: InstanceInfo | null = null;
  /** What it said before it ended. */
  failure: ErrorRecord | null = null;
  isLost = false;
  readonly #ready = Promise.withResolvers<void>();
  readonly #disconnected = Promise.withResolvers<void>();

  constructor(readonly instanceId: InstanceId) {
    this.#ready.promise.catch(() => {}); // somebody may wait for it, or nobody
  }

  /** Resolves when it serves; rejects when it ends before. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  get isServing(): boolean {
    return this.registration !== null && !this.isLost;
  }

  register(registration: InstanceRegistration): void {
    this.registration = registration;
    this.#ready.resolve();
  }

  /** A no-op when it has served. */
  failStart(reason: string): void {
    const kind = this.failure?.kind ?? "internal";
    this.#ready.reject(fromErrorRecord({ kind, message: reason }));
  }

  askToStop(): void {
    if (this.peer?.isOpen) this.peer.notify("shutdown", { data: null });
    else this.launched?.stop("SIGTERM");
  }

  /** Nothing more will come from it. */
  noteDisconnected(): void {
    this.#disconnected.resolve();
  }

  /**
   * Why a lost instance ended. Its last message and its exit status may still be under way, so this
   * waits a moment for both; one that only lost its connection is killed.
   */
  async describeEnd(clock: Clock): Promise<string> {
    const grace = Promise.withResolvers<null>();
    const cancel = clock.after(END_GRACE_MS, () => grace.resolve(null));
    const status = await Promise.race([this.launched?.exited ?? null, grace.promise]);
    await Promise.race([this.#disconnected.promise, grace.promise]);
    cancel();
    if (!status) this.launched?.stop("SIGKILL");
    const verb = this.registration ? "failed" : "could not start";
    if (this.failure) return `${this.instanceId} ${verb}: ${this.failure.message}`;
    const end = status ? describeExit(status) : "lost its connection and was killed";
    return `${this.instanceId} ${end}${this.registration ? "" : " before it was ready"}`;
  }
}

function describeExit({ code, signal }: ExitStatus): string {
  return signal ? `was ended by ${signal}` : `exited with code ${code}`;
}
