/** `llumnix manager`: the manager and its instances, for API servers that run apart. */
import type { Address } from "../../bus/bus.ts";
import { openBus } from "../../bus/open_bus.ts";
import { UnavailableError } from "../../core/errors.ts";
import { type Log, logger } from "../../core/log.ts";
import { toArgv } from "../to_argv.ts";
import type { RoleOptions } from "../arguments/tables.ts";
import { exitOnDefects } from "../../roles/defects.ts";
import { ManagerRole } from "../../roles/manager.ts";
import { clusterKey } from "../../roles/cluster_key.ts";
import { managerAddress, takeManagerPlace, takenError } from "../../roles/manager_address.ts";
import { startLogging } from "../../roles/start_logging.ts";
import { StopSignals } from "../../roles/stop_signals.ts";

/**
 * Runs until it is told to stop, which stops its instances.
 * @returns the exit code: 0 after an orderly stop, 1 if no instance serves and none can start
 * @throws {LlumnixError} what the user must change, before anything serves
 */
export async function runManager(options: RoleOptions): Promise<number> {
  const address = managerAddress(options.managerAddress);
  const logFile = startLogging(options, "manager");
  const log = logger("manager");
  const exitOnDefect = exitOnDefects(log);

  using signals = new StopSignals();
  await using disposables = new AsyncDisposableStack();
  const place = await takeManagerPlace(address);
  disposables.defer(() => place.release());
  const failed = Promise.withResolvers<string>();
  let hasFailed = false;
  failed.promise.then(() => hasFailed = true);
  const role = await listen(options, address, log, logFile, failed.resolve);
  disposables.use(role);
  log.info(`listening at ${address}`);
  const started = role.startInstances(place);
  started.catch(exitOnDefect); // after a signal nothing else awaits it
  await Promise.race([started, signals.first, failed.promise]);
  const reason = await Promise.race([signals.first, failed.promise]);
  log.info(`stopping: ${reason}`);
  const stopped = role.manager.finishRequests(options.shutdownTimeout * 1000);
  if (await Promise.race([stopped.then(() => true), signals.second.then(() => false)])) {
    return hasFailed ? 1 : 0;
  }
  log.warn("second signal: stopping at once");
  role.manager.kill();
  return 130;
}

async function listen(
  options: RoleOptions,
  address: Address,
  log: Log,
  logFile: string | null,
  onGivenUp: (reason: string) => void,
): Promise<ManagerRole> {
  try {
    return await ManagerRole.listen({
      options,
      engineArgv: toArgv(options),
      bus: openBus({ clusterKey: clusterKey(options) }),
      addresses: [address],
      orphanTimeoutMs: options.orphanTimeout * 1000,
      log,
      logFile,
      onEvent: ({ type }) => {
        if (type === "given_up") onGivenUp("no instance serves, and none can start");
      },
    });
  } catch (error) {
    const { cause } = error as Error;
    if (error instanceof UnavailableError && cause instanceof Deno.errors.AddrInUse) {
      throw takenError(address);
    }
    throw error;
  }
}
