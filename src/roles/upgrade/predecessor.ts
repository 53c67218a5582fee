/** A process that serves, as its successor and `llumnix upgrade` see it. */
import { setInherited } from "../../../ffi/listening_sockets.ts";
import type { Bus, Listener, Peer, Service } from "../../bus/bus.ts";
import { openBus } from "../../bus/open_bus.ts";
import { type Clock, realClock } from "../../core/clock.ts";
import { ConflictError, LlumnixError, toErrorRecord, UnavailableError } from "../../core/errors.ts";
import { fileProblem } from "../../core/file_problem.ts";
import type { Log } from "../../core/log.ts";
import type {
  Handover,
  RoleStatus,
  TakeOver,
  Upgraded,
  UpgradeOrder,
  UpgradeRole,
  UpgradeStatus,
} from "../../core/protocol/upgrade.ts";
import { selfCommand } from "../../core/self_command.ts";
import { fullVersion } from "../../core/version.ts";
import { checkCandidate } from "./candidate.ts";
import { endOfText, signalIfRunning } from "./child.ts";
import { controlAddress, prepareControlDirectory } from "./control_socket.ts";
import { type Succession, SUCCESSION_VARIABLE } from "./succession.ts";

/** Time for a successor to load what it needs and to serve. */
const START_TIMEOUT_MS = 120_000;
/** Elsewhere a successor cannot get the sockets: see `ffi/listening_sockets.ts`. */
const canUpgrade = Deno.build.os === "linux";
/** How long a successor that has ended may keep its output open. */
const OUTPUT_TIMEOUT_MS = 1_000;
/** Characters of the reason that a failed successor may give. */
const MAX_REASON_CHARS = 8_192;

export interface UpgradesConfig {
  readonly role: UpgradeRole;
  readonly log: Log;
  /** Variables of the successor's environment that this process's environment lacks. */
  readonly environment: () => Readonly<Record<string, string>>;
  /** Descriptors of the sockets at which clients reach this process. */
  readonly sockets: () => readonly number[];
  /** Gives up what only one process can have, for a successor that is ready. */
  readonly handOver: (to: TakeOver) => Promise<Handover>;
  /** The successor ended after the handover, before it served: takes back what was given up. */
  readonly takeBack: () => Promise<void>;
  /** The successor serves. */
  readonly onReplaced: (pid: number) => void;
  readonly status: () => RoleStatus | Promise<RoleStatus>;
  /** The arguments of this process. Default: those of its command line. */
  readonly argv?: readonly string[];
  readonly clock?: Clock;
  readonly bus?: Bus;
}

/** A successor that was started and does not serve yet. */
interface Candidate {
  readonly child: Deno.ChildProcess;
  version: string;
  /** It is given what only one process can have; null: not yet. */
  handover: Promise<Handover> | null;
  readonly served: PromiseWithResolvers<void>;
}

/**
 * Replaces this process by another one of the same arguments, and of another executable if there is one.
 * Until the successor serves, this process does; a successor that fails changes nothing.
 */
export class Upgrades implements AsyncDisposable {
  readonly #config: UpgradesConfig;
  readonly #clock: Clock;
  readonly #finish = Promise.withResolvers<number>();
  /** Null: it cannot listen. */
  readonly #listening: Promise<Listener | null>;
  #candidate: Candidate | null = null;
  /** The upgrade that is under way; never rejects. */
  #upgrading: Promise<unknown> | null = null;
  #isServing = false;
  /** It serves, or has served. */
  #successor: Deno.ChildProcess | null = null;
  readonly #stopping = new AbortController();
  readonly #onSignal = () => this.#upgradeBySignal();

  /** Takes orders from now on: SIGUSR2, and calls to the control socket of this process. */
  constructor(config: UpgradesConfig) {
    this.#config = config;
    this.#clock = config.clock ?? realClock;
    if (canUpgrade) Deno.addSignalListener("SIGUSR2", this.#onSignal);
    this.#listening = this.#listen();
  }

  /** This process serves, and may be replaced. Resolves when it can be reached for that. */
  async noteServing(): Promise<void> {
    this.#isServing = true;
    await this.#listening;
  }

  /**
   * Ends an upgrade that is under way, because this process stops. What was given up is taken back.
   * @returns whether a successor serves nevertheless
   */
  async cancel(): Promise<boolean> {
    this.#stopping.abort();
    if (this.#candidate !== null) signalIfRunning(this.#candidate.child, "SIGKILL");
    await this.#upgrading;
    return this.#isReplaced;
  }

  /** Asks the successor to stop, if it has not ended. */
  stopSuccessor(): void {
    if (this.#successor !== null) signalIfRunning(this.#successor, "SIGTERM");
  }

  /** Resolves with the time limit when the successor, which is stopping, wants this process to end. */
  get finish(): Promise<number> {
    return this.#finish.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (canUpgrade) Deno.removeSignalListener("SIGUSR2", this.#onSignal);
    await this.cancel();
    await (await this.#listening)?.close();
  }

  /** A service that cannot have a control socket serves without one. */
  async #listen(): Promise<Listener | null> {
    const { bus = openBus(), log } = this.#config;
    try {
      await prepareControlDirectory();
      return await bus.listen(controlAddress(Deno.pid), this.#service());
    } catch (error) {
      if (!(error instanceof LlumnixError)) throw error;
      log.warn("this process cannot be upgraded: it has no control socket", { cause: error });
      return null;
    }
  }

  #service(): Service {
    return {
      calls: {
        upgrade: async ({ data }) => ({ data: await this.#upgrade(data) }),
        upgrade_status: async () => ({ data: await this.#status() }),
        take_over: async ({ data }, peer) => {
          const candidate = this.#candidateOf(peer);
          candidate.version = data.version;
          candidate.handover ??= this.#config.handOver(data);
          return { data: await candidate.handover };
        },
        taken_over: async (_, peer) => {
          const { handover } = this.#candidateOf(peer);
          if (handover === null) {
            throw new ConflictError("taken_over: a successor calls take_over first");
          }
          await handover; // else it has nothing to serve with
          const candidate = this.#candidateOf(peer);
          this.#candidate = null;
          this.#successor = candidate.child;
          this.#config.onReplaced(candidate.child.pid);
          candidate.served.resolve();
          return { data: null };
        },
      },
      notifications: {
        finish: ({ data }) => this.#finish.resolve(data.withinMs),
      },
    };
  }

  get #isReplaced(): boolean {
    return this.#successor !== null;
  }

  async #status(): Promise<UpgradeStatus> {
    const { role, status } = this.#config;
    const ofRole = await status();
    const isReplaced = this.#isReplaced;
    return { role, pid: Deno.pid, version: fullVersion(), isReplaced, ...ofRole };
  }

  /** @throws {ConflictError} the peer is not the successor that this process has started */
  #candidateOf(peer: Peer): Candidate {
    const candidate = this.#candidate;
    if (candidate !== null && peer.pid === candidate.child.pid) return candidate;
    const caller = peer.pid === null
      ? "a process of which the system does not say the pid"
      : `process ${peer.pid}`;
    throw new ConflictError(`${caller} is not the successor of process ${Deno.pid}`);
  }

  async #upgradeBySignal(): Promise<void> {
    const { log } = this.#config;
    log.info("SIGUSR2: starting a successor");
    try {
      await this.#upgrade({ binary: null });
    } catch (error) {
      log.error(`not upgraded, and serving on: ${toErrorRecord(error).message}`);
    }
  }

  async #upgrade({ binary }: UpgradeOrder): Promise<Upgraded> {
    if (!canUpgrade) throw new ConflictError("a running service can be upgraded on Linux alone");
    if (this.#isReplaced) throw new ConflictError("this process has a successor already");
    if (!this.#isServing) throw new ConflictError("this process does not serve yet; try again");
    if (this.#upgrading !== null) throw new ConflictError("a successor is starting already");
    const upgraded = this.#checkAndReplace(binary === null ? selfCommand() : [binary]);
    this.#upgrading = upgraded.then(() => {}, () => {}).finally(() => this.#upgrading = null);
    return await upgraded;
  }

  async #checkAndReplace(command: readonly string[]): Promise<Upgraded> {
    if (await this.#listening === null) {
      throw new UnavailableError("this process has no control socket: its log says why");
    }
    const argv = this.#config.argv ?? Deno.args;
    const { signal } = this.#stopping;
    await checkCandidate(command, argv, { signal });
    if (signal.aborted) throw new ConflictError("this process is stopping");
    return await this.#replaceBy(command, argv);
  }

  /**
   * Starts a successor, and waits until it serves.
   * @throws {ConflictError} it ended before, with its reason, or took too long
   */
  async #replaceBy(command: readonly string[], argv: readonly string[]): Promise<Upgraded> {
    const { log, takeBack } = this.#config;
    const child = this.#spawn(command, argv);
    const served = Promise.withResolvers<void>();
    const candidate: Candidate = { child, version: "", handover: null, served };
    this.#candidate = candidate;
    log.info(`process ${child.pid} starts as successor`, { executable: command[0] });
    const reason = endOfText(child.stdout, MAX_REASON_CHARS);
    const failed = child.status.then(async ({ code, signal }) => {
      // What the successor has started, and left behind, may hold its output open.
      const cancel = this.#clock.after(OUTPUT_TIMEOUT_MS, () => reason.stop());
      const said = (await reason.whole).trim();
      cancel();
      const end = signal ?? `code ${code}`;
      return said ||
        `it ended with ${end} before it served; the log of this process has its reason`;
    });
    const late = Promise.withResolvers<string>();
    const cancel = this.#clock.after(START_TIMEOUT_MS, () => {
      late.resolve(`it did not serve within ${START_TIMEOUT_MS / 1000} s`);
    });
    const problem = await Promise.race([served.promise.then(() => null), failed, late.promise]);
    cancel();
    if (problem === null) return { pid: child.pid, version: candidate.version };
    this.#candidate = null;
    signalIfRunning(child, "SIGKILL");
    await child.status;
    if (candidate.handover !== null) {
      await candidate.handover.catch(() => {}); // its caller has the error, if it still runs
      await takeBack();
    }
    throw new ConflictError(`${command[0]} could not take over: ${problem}`);
  }

  /** The successor inherits the sockets and stderr; no other program may inherit the sockets. */
  #spawn([program, ...leading]: readonly string[], argv: readonly string[]): Deno.ChildProcess {
    const sockets = [...this.#config.sockets()];
    const succession: Succession = { predecessor: controlAddress(Deno.pid), sockets };
    for (const fd of sockets) setInherited(fd, true);
    try {
      return new Deno.Command(program, {
        args: [...leading, ...argv],
        env: {
          ...this.#config.environment(),
          [SUCCESSION_VARIABLE]: JSON.stringify(succession),
        },
        stdin: "null",
        stdout: "piped", // why it failed: see `asSuccessor`
        stderr: "inherit",
      }).spawn();
    } catch (cause) {
      throw new ConflictError(`${program} cannot be started: ${fileProblem(cause)}`, { cause });
    } finally {
      for (const fd of sockets) setInherited(fd, false);
    }
  }
}
