/**
 * What systemd wants to hear of a service of Type=notify (sd_notify(3), sd_watchdog_enabled(3)): datagrams
 * to the socket that NOTIFY_SOCKET names. Without that variable nothing is sent.
 */
import { sendUnixDatagram } from "../../../ffi/unix_datagram.ts";
import { type Clock, realClock } from "../../core/clock.ts";
import { logger } from "../../core/log.ts";

const log = logger("systemd");

/** How often a start or a stop that goes on asks for more time, and for how much. */
const EXTEND_INTERVAL_MS = 5_000;
const EXTEND_BY_MS = 20_000;

type Environment = Pick<Deno.Env, "get" | "delete">;

export interface ServiceManagerConfig {
  readonly environment?: Environment;
  readonly clock?: Clock;
  readonly pid?: number;
  readonly send?: (path: string, text: string) => boolean;
}

/** The connection to systemd, or to nobody. */
export class ServiceManager implements Disposable {
  readonly #socket: string | null;
  readonly #watchdogMs: number | null;
  readonly #clock: Clock;
  readonly #send: (path: string, text: string) => boolean;
  #cancelWatchdog: () => void = () => {};
  #cancelExtension: () => void = () => {};
  #hasFailed = false;

  /**
   * Reads the variables of systemd, and takes them out of the environment: they are for this process and
   * not for its instances, which would be taken for the service.
   */
  constructor(config: ServiceManagerConfig = {}) {
    const { environment = Deno.env, clock = realClock, pid = Deno.pid } = config;
    this.#clock = clock;
    this.#send = config.send ?? sendUnixDatagram;
    this.#socket = take(environment, "NOTIFY_SOCKET") || null;
    const watchdogMicros = Number(take(environment, "WATCHDOG_USEC"));
    const watchedPid = take(environment, "WATCHDOG_PID");
    const isForUs = watchedPid === undefined || Number(watchedPid) === pid;
    this.#watchdogMs = this.#socket !== null && isForUs && watchdogMicros > 0
      ? watchdogMicros / 1000
      : null;
  }

  /** Variables for a successor, which becomes the main process of the service. */
  get environment(): Record<string, string> {
    if (this.#socket === null) return {};
    return {
      NOTIFY_SOCKET: this.#socket,
      ...(this.#watchdogMs !== null && { WATCHDOG_USEC: `${this.#watchdogMs * 1000}` }),
    };
  }

  /** The service starts, which may take longer than systemd waits by itself. */
  starting(): void {
    this.#extend("starting");
  }

  /** The service serves. From now on systemd is told at intervals that this process is alive. */
  ready(status: string): void {
    this.#cancelExtension();
    this.#notify("READY=1", `STATUS=${oneLine(status)}`);
    this.#keepAlive();
  }

  /** The service stops, once its requests have finished. */
  stopping(): void {
    this.#notify("STOPPING=1");
    this.#extend("finishing requests");
  }

  /** Another process is the main process of the service from now on. */
  handOver(pid: number): void {
    this.#notify(`MAINPID=${pid}`);
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.#cancelExtension();
    this.#cancelWatchdog();
  }

  /** While this goes on, systemd does not consider the start or the stop to have failed. */
  #extend(status: string): void {
    if (this.#socket === null) return;
    this.#cancelExtension();
    this.#notify(`EXTEND_TIMEOUT_USEC=${EXTEND_BY_MS * 1000}`, `STATUS=${status}`);
    this.#cancelExtension = this.#clock.after(EXTEND_INTERVAL_MS, () => this.#extend(status));
  }

  /** By sd_watchdog_enabled(3) a service should report after half of the time. */
  #keepAlive(): void {
    if (this.#watchdogMs === null) return;
    this.#cancelWatchdog();
    this.#notify("WATCHDOG=1");
    this.#cancelWatchdog = this.#clock.after(this.#watchdogMs / 2, () => this.#keepAlive());
  }

  #notify(...assignments: readonly string[]): void {
    if (this.#socket === null || this.#send(this.#socket, assignments.join("\n"))) return;
    if (!this.#hasFailed) {
      log.warn("systemd cannot be told of this service", { socket: this.#socket });
    }
    this.#hasFailed = true;
  }
}

function take(environment: Environment, name: string): string | undefined {
  const value = environment.get(name);
  if (value !== undefined) environment.delete(name);
  return value;
}

/** A status that has lines would be more than one assignment. */
function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ");
}
