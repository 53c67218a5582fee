/** `llumnix agent`: starts instances on this host for a manager that may be on another one. */
import { openBus } from "../../bus/open_bus.ts";
import { logger } from "../../core/log.ts";
import { AgentRole } from "../../roles/agent/agent.ts";
import { clusterKey } from "../../roles/cluster_key.ts";
import { exitOnDefects } from "../../roles/defects.ts";
import { managerAddress } from "../../roles/manager_address.ts";
import { keepProgram } from "../../roles/old_programs.ts";
import { startLogging } from "../../roles/start_logging.ts";
import { StopSignals } from "../../roles/stop_signals.ts";
import { ServiceManager } from "../../roles/systemd/service_manager.ts";
import type { RoleOptions } from "../arguments/tables.ts";
import { toArgv } from "../to_argv.ts";

/** The name on the lines of its log. */
const ROLE = "agent";

/**
 * Runs until it is told to stop, which ends the instances of this host once their requests have left.
 * @returns the exit code: 0 after an orderly stop
 * @throws {LlumnixError} what the operator must change
 */
export async function runAgent(options: RoleOptions): Promise<number> {
  const logFile = startLogging(options, ROLE);
  const log = logger(ROLE);
  exitOnDefects(log);
  keepProgram();
  using systemd = new ServiceManager();
  using signals = new StopSignals();
  systemd.starting();
  await using agent = await AgentRole.open({
    options,
    managerAddress: managerAddress(options.managerAddress),
    engineArgv: toArgv(options),
    bus: openBus({ clusterKey: clusterKey(options) }),
    log,
    logFile,
    initialInstances: 0,
  });
  const first = signals.first;
  const joined = agent.join().then(() => null);
  if (await Promise.race([joined, first]) === null) {
    systemd.ready(`starting instances on ${agent.host}`);
  }
  log.info(`stopping: ${await first}`);
  systemd.stopping();
  if (await Promise.race([agent.stop().then(() => true), signals.second.then(() => false)])) {
    return 0;
  }
  log.warn("second signal: stopping at once");
  agent.kill();
  return 130;
}
