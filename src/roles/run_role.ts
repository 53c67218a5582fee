/** The life of a process that serves: from its start to its end, or until a successor serves. */
import { realClock, sleep } from "../core/clock.ts";
import type { Log } from "../core/log.ts";
import type { Handover, RoleStatus, TakeOver, UpgradeRole } from "../core/protocol/upgrade.ts";
import { keepProgram, removeOldPrograms } from "./old_programs.ts";
import { StopSignals } from "./stop_signals.ts";
import { ServiceManager } from "./systemd/service_manager.ts";
import { Upgrades } from "./upgrade/predecessor.ts";
import type { Predecessor } from "./upgrade/successor.ts";

/** What the end of a process may take on top of the time limit of its requests. */
const END_MS = 5_000;

/** What a role does in each part of its life. Disposing of it ends it at once. */
export interface RoleService extends AsyncDisposable {
  readonly role: UpgradeRole;
  /** Resolves when it serves, with a line for people that it has logged. */
  start(): Promise<string>;
  /** Resolves with the reason when it cannot go on; null: that cannot happen. */
  readonly failed: Promise<string> | null;
  /** Takes no new requests, and lets those that run finish, for at most this long. */
  finishRequests(limitMs: number): Promise<void>;
  /** Ends its instances at once. */
  kill(): void;

  /** See {@linkcode UpgradesConfig}, as the next three. */
  sockets(): readonly number[];
  handOver(to: TakeOver): Promise<Handover>;
  takeBack(): Promise<void>;
  upgradeStatus(): RoleStatus | Promise<RoleStatus>;
  /** A successor serves: finishes the requests, without a time limit. */
  giveWay(): Promise<void>;
  /** This process is a successor, and the predecessor gives way. */
  noteTakenOver(): void;
}

export interface RunRoleConfig {
  readonly service: RoleService;
  /** Whose place this process takes; null: nobody's. */
  readonly predecessor: Predecessor | null;
  readonly shutdownTimeoutMs: number;
  readonly log: Log;
  /** Called with the error of a start that nothing waits for. See `defects.ts`. */
  readonly exitOnDefect: (error: unknown) => void;
}

/**
 * Runs a role until a signal, its failure, or a successor ends it.
 * @returns the exit code: 0 after an orderly end, 1 if the service cannot go on
 * @throws {LlumnixError} what the user must change, before anything serves
 */
export async function runRole(config: RunRoleConfig): Promise<number> {
  const { predecessor, log, exitOnDefect } = config;
  using systemd = new ServiceManager();
  using signals = new StopSignals();
  await using service = config.service;
  const replaced = Promise.withResolvers<number>();
  const stranded = Promise.withResolvers<string>();
  await using upgrades = new Upgrades({
    role: service.role,
    log,
    environment: () => systemd.environment,
    sockets: () => service.sockets(),
    handOver: (to) => service.handOver(to),
    takeBack: () =>
      service.takeBack().catch((error) => {
        stranded.resolve("it gave its instances to a successor, and cannot take them back");
        throw error;
      }),
    status: () => service.upgradeStatus(),
    onReplaced: (pid) => {
      systemd.handOver(pid);
      replaced.resolve(pid);
    },
  });
  const failed = Promise.race([stranded.promise, service.failed ?? stranded.promise]);

  keepProgram();
  systemd.starting();
  const started = service.start();
  started.catch(exitOnDefect); // after a signal nothing else awaits it
  const status = await Promise.race([
    started,
    signals.first.then(() => null),
    failed.then(() => null),
  ]);
  if (status !== null) {
    await predecessor?.takenOver().catch((error) => {
      log.warn("the predecessor ended before its requests did", { cause: error });
    });
    await upgrades.noteServing();
    systemd.ready(status);
    if (predecessor !== null) service.noteTakenOver();
    for (const name of removeOldPrograms()) {
      log.debug("removed what an old version unpacked", { name });
    }
  }

  const end = await Promise.race([
    replaced.promise.then((pid) => ({ successor: pid })),
    signals.first.then((signal) => ({ reason: signal, code: 0 })),
    failed.then((reason) => ({ reason, code: 1 })),
  ]);
  if ("successor" in end) {
    await giveWay(config, end.successor, signals, upgrades);
    return 0;
  }
  const stopping = `stopping: ${end.reason}`;
  if (end.code === 0) log.info(stopping);
  else log.error(stopping);
  if (await upgrades.cancel()) { // the successor was faster than the signal, which is for it too
    const pid = await replaced.promise;
    upgrades.stopSuccessor();
    await giveWay(config, pid, signals, upgrades);
    return 0;
  }
  systemd.stopping();
  const stopped = Promise.all([
    service.finishRequests(config.shutdownTimeoutMs),
    predecessor?.finish(config.shutdownTimeoutMs),
  ]);
  if (await Promise.race([stopped.then(() => true), signals.second.then(() => false)])) {
    return end.code;
  }
  log.warn("second signal: stopping at once");
  service.kill();
  return 130;
}

/** Finishes the requests while a successor serves, and ends after the predecessors have. */
async function giveWay(
  { service, predecessor, shutdownTimeoutMs, log }: RunRoleConfig,
  pid: number,
  signals: StopSignals,
  upgrades: Upgrades,
): Promise<void> {
  log.info(`process ${pid} has taken over: finishing the requests of this one`);
  const ends = Promise.all([service.giveWay(), predecessor?.gone]).then(() => null);
  const limitMs = await Promise.race([
    ends,
    upgrades.finish,
    signals.first.then(() => shutdownTimeoutMs),
  ]);
  if (limitMs === null) return;
  await Promise.race([
    Promise.all([service.finishRequests(limitMs), predecessor?.finish(limitMs)]),
    signals.second,
    sleep(realClock, limitMs + END_MS),
  ]);
}
