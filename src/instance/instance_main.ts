import { basename, dirname } from "node:path";
import { parseAddress, tcpAddress } from "../bus/address.ts";
import type { Address, Bus, Listener, Peer } from "../bus/bus.ts";
import { openBus } from "../bus/open_bus.ts";
import { realClock } from "../core/clock.ts";
import { LlumnixError, toErrorRecord, UsageError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type {
  InstanceId,
  InstanceProgress,
  InstanceRegistration,
  JoinReply,
} from "../core/messages.ts";
import type { EngineOptions } from "../core/options.ts";
import type { Executor, ExecutorSpec, OnProgress } from "../executor/executor.ts";
import { loadThreadedExecutor } from "../executor/threaded_executor.ts";
import { Engine } from "./engine.ts";
import { resolveEngineConfig } from "./engine_config.ts";
import { InfoReporter } from "./info_reporter.ts";
import { InstanceService } from "./service.ts";

/** Requests that may wait in one instance; API servers bound theirs well below. */
const MAX_WAITING_REQUESTS = 10_000;
/** Least time between two progress messages. */
const PROGRESS_INTERVAL_MS = 100;
/** How long the running step may take when the instance stops. */
const CLOSE_TIMEOUT_MS = 2_000;
const MAX_REMOVE_ATTEMPTS = 10;

export interface InstanceArgs {
  readonly options: EngineOptions;
  readonly instanceId: InstanceId;
  readonly managerAddress: Address;
  /** Instances that share this host. */
  readonly hostShare: number;
  readonly log: Log;
  /** Default: a bus of its own. */
  readonly bus?: Bus;
  /** Default: loads in a worker of this program. */
  readonly loadExecutor?: (spec: ExecutorSpec, onProgress: OnProgress) => Promise<Executor>;
}

/**
 * Runs one instance: joins the manager, loads the model, serves API servers directly. It ends when
 * the manager asks for it or is gone, at SIGTERM, or when the executor fails. SIGINT is ignored: a
 * terminal sends it to the whole process group, and it is the manager that decides.
 * @returns the exit code: 0 when asked to stop, 2 for what the user can put right, else 1. The
 *   process should exit then, for a step that hangs is left behind.
 */
export function runInstance(args: InstanceArgs): Promise<number> {
  return new Instance(args).run();
}

/** Why an instance ends. */
interface End {
  readonly exitCode: number;
  readonly reason: string;
  readonly error?: unknown;
}

class Instance {
  readonly #args: InstanceArgs;
  readonly #bus: Bus;
  readonly #service = new InstanceService();
  readonly #ended = Promise.withResolvers<End>();
  #hasEnded = false;
  #manager: Peer | null = null;
  #reporter: InfoReporter | null = null;
  #executor: Executor | null = null;
  #engine: Engine | null = null;
  #listener: Listener | null = null;

  constructor(args: InstanceArgs) {
    this.#args = args;
    this.#bus = args.bus ?? openBus();
  }

  async run(): Promise<number> {
    const { log } = this.#args;
    const onTerminate = () => this.#finish({ exitCode: 0, reason: "got SIGTERM" });
    const onInterrupt = () => {};
    Deno.addSignalListener("SIGTERM", onTerminate);
    Deno.addSignalListener("SIGINT", onInterrupt);
    try {
      this.#start().catch((error) => this.#fail(error));
      const end = await this.#ended.promise;
      if (end.error === undefined) log.info("stopping", { reason: end.reason });
      else log.error("stopping", { reason: end.reason, error: end.error });
      await this.#close();
      return end.exitCode;
    } finally {
      Deno.removeSignalListener("SIGTERM", onTerminate);
      Deno.removeSignalListener("SIGINT", onInterrupt);
    }
  }

  /** The first reason counts. */
  #finish(end: End): void {
    this.#hasEnded = true;
    this.#ended.resolve(end);
  }

  async #start(): Promise<void> {
    const { instanceId, managerAddress } = this.#args;
    const manager = await this.#bus.connect(managerAddress, {
      notifications: {
        shutdown: () => this.#finish({ exitCode: 0, reason: "the manager asked for it" }),
      },
      onClose: () => this.#finish({ exitCode: 1, reason: "the manager is gone" }),
    });
    this.#manager = manager;
    const { data } = await manager.call("join", { data: { instanceId } });
    const executor = await this.#loadExecutor(manager);
    if (this.#hasEnded) return await executor.close();
    this.#executor = executor;
    const { infoIntervalMs } = data as JoinReply;
    const engine = this.#startEngine(executor, manager, infoIntervalMs);
    const address = serviceAddress(managerAddress, instanceId);
    this.#listener = await this.#bus.listen(address, this.#service.service);
    await manager.call("register", { data: this.#registration(executor, this.#listener.address) });
    this.#reporter!.report(engine.info());
  }

  #loadExecutor(manager: Peer): Promise<Executor> {
    const { options, hostShare, instanceId } = this.#args;
    if (options.device === "cuda") throw new UsageError("--device cuda is not available yet");
    const kind = options.device === "null" || options.device === "sim" ? options.device : "cpu";
    const load = this.#args.loadExecutor ??
      ((spec, onProgress) => loadThreadedExecutor(spec, { onProgress }));
    let lastMs = -Infinity;
    let lastPhase = "";
    return load({ kind, options, hostShare }, (progress) => {
      const isRoutine = progress.phase === lastPhase && progress.doneBytes < progress.totalBytes;
      if (isRoutine && performance.now() - lastMs < PROGRESS_INTERVAL_MS) return;
      lastMs = performance.now();
      lastPhase = progress.phase;
      manager.notify("progress", { data: { instanceId, ...progress } satisfies InstanceProgress });
    });
  }

  #startEngine(executor: Executor, manager: Peer, infoIntervalMs: number): Engine {
    const { instanceId, options } = this.#args;
    const reporter = this.#reporter = new InfoReporter(
      realClock,
      infoIntervalMs,
      (info) => manager.notify("info", { data: info }),
    );
    const engine = this.#engine = new Engine({
      config: resolveEngineConfig(
        { instanceId, instanceType: "both", maxWaitingRequests: MAX_WAITING_REQUESTS },
        options,
        executor.info.maxModelLen,
      ),
      executor,
      clock: realClock,
      onOutputs: (outputs) => this.#service.sendOutputs(outputs),
      onInfo: (info) => reporter.report(info),
      onFatal: (error) => this.#fail(error),
    });
    this.#service.attach(engine);
    return engine;
  }

  #registration({ info }: Executor, address: Address): InstanceRegistration {
    return {
      instanceId: this.#args.instanceId,
      instanceType: "both",
      address,
      pid: Deno.pid,
      model: info.model,
      executor: info.description,
      dtype: info.dtype,
      blockSize: info.layout.blockSize,
      totalBlocks: info.numBlocks,
      swapBlocks: info.numSwapBlocks,
      maxModelLen: info.maxModelLen,
    };
  }

  /** The manager reports a deliberate error; only a bug is worth a line, and a stack, of its own. */
  #fail(error: unknown): void {
    const record = toErrorRecord(error);
    const isReported = this.#manager?.isOpen === true;
    this.#manager?.notify("failed", { data: record });
    const isUserError = record.kind === "usage" || record.kind === "model";
    this.#finish({
      exitCode: isUserError ? 2 : 1,
      reason: record.message,
      error: isReported && error instanceof LlumnixError ? undefined : error,
    });
  }

  /** Ends what runs and tells those who wait for it, as far as the time limit allows. */
  async #close(): Promise<void> {
    this.#reporter?.close();
    let timer;
    const timeout = new Promise<void>((resolve) => timer = setTimeout(resolve, CLOSE_TIMEOUT_MS));
    await Promise.race([this.#closeParts(), timeout]);
    clearTimeout(timer);
  }

  async #closeParts(): Promise<void> {
    await (this.#engine ?? this.#executor)?.close(); // an engine closes its executor
    await this.#listener?.close();
    const { isOpen = false } = this.#manager ?? {};
    await this.#manager?.close();
    if (!isOpen) await this.#removeAbandonedDirectory();
  }

  /** A manager that was killed leaves its sockets behind; whoever notices removes them. */
  async #removeAbandonedDirectory(): Promise<void> {
    const { managerAddress } = this.#args;
    const parsed = parseAddress(managerAddress);
    if (parsed.scheme !== "unix" || !basename(dirname(parsed.path)).startsWith("llumnix-")) return;
    if (await this.#isManagerAlive()) return;
    // The other instances do the same: one that finds files gone under its hands tries again.
    for (let attempt = 0; attempt < MAX_REMOVE_ATTEMPTS; attempt++) {
      try {
        return Deno.removeSync(dirname(parsed.path), { recursive: true });
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) return;
      }
    }
  }

  /** A dying process still takes connections for a moment, so only an answer counts. */
  async #isManagerAlive(): Promise<boolean> {
    try {
      const peer = await this.#bus.connect(this.#args.managerAddress, {});
      await peer.call("ping", { data: null }, { timeoutMs: CLOSE_TIMEOUT_MS / 2 });
      await peer.close();
      return true;
    } catch {
      return false;
    }
  }
}

/** Beside the manager: in its directory, or on its network interface. */
function serviceAddress(managerAddress: Address, instanceId: InstanceId): Address {
  const manager = parseAddress(managerAddress);
  switch (manager.scheme) {
    case "inproc":
      return `inproc:${instanceId}`;
    case "unix":
      return `unix:${dirname(manager.path)}/${instanceId}.sock`;
    case "tcp":
      return tcpAddress(manager.host, 0);
  }
}
