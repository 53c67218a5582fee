/** The commands that run a role of the service: serve, manager, api-server, agent, instance. */
import { ArgumentIndex } from "./arguments/index.ts";
import {
  agentGroups,
  allRoleGroups,
  apiServerGroups,
  everyGroup,
  managerGroups,
} from "./arguments/role_tables.ts";
import {
  instanceGroups,
  type InstanceOptions,
  type RoleOptions,
  serveGroups,
  type ServeOptions,
} from "./arguments/tables.ts";
import type { EngineWorker } from "../executor/thread/threaded_executor.ts";
import { ARGUMENTS_FROM_STDIN, givenArguments } from "../roles/given_arguments.ts";
import type { Command } from "./command.ts";
import { readInstanceOptions, readServingOptions } from "./role_options.ts";

export const serve: Command = {
  groups: serveGroups,
  run: async (argv) => {
    const index = new ArgumentIndex(serveGroups);
    const options = await readServingOptions<ServeOptions>("serve", argv, index, index);
    if (options === null) return 0;
    if (options.cluster) {
      return await (await import("./commands/serve_cluster.ts")).runServeCluster(options);
    }
    const { prepareInstance } = await import("../roles/prepared_instance.ts");
    const prepared = prepareInstance(options);
    return await (await import("./commands/serve.ts")).runServe(options, prepared);
  },
};

export const manager: Command = {
  groups: managerGroups,
  run: async (argv) => {
    const options = await readServingOptions<RoleOptions>(
      "manager",
      argv,
      new ArgumentIndex(managerGroups),
      new ArgumentIndex(allRoleGroups),
    );
    if (options === null) return 0;
    return await (await import("./commands/manager.ts")).runManager(options);
  },
};

export const apiServer: Command = {
  groups: apiServerGroups,
  run: async (argv) => {
    const options = await readServingOptions<RoleOptions>(
      "api-server",
      argv,
      new ArgumentIndex(apiServerGroups),
      new ArgumentIndex(allRoleGroups),
    );
    if (options === null) return 0;
    return await (await import("./commands/api_server.ts")).runApiServer(options);
  },
};

export const agent: Command = {
  groups: agentGroups,
  run: async (argv) => {
    const options = await readServingOptions<RoleOptions>(
      "agent",
      argv,
      new ArgumentIndex(agentGroups),
      new ArgumentIndex(allRoleGroups),
    );
    if (options === null) return 0;
    return await (await import("./commands/agent.ts")).runAgent(options);
  },
};

export const instance: Command = {
  groups: instanceGroups,
  run: async (argv) =>
    argv[0] === ARGUMENTS_FROM_STDIN ? await runPreparedInstance() : await runInstance(argv),
};

async function runInstance(argv: readonly string[], worker?: EngineWorker): Promise<number> {
  const options = await readInstanceOptions<InstanceOptions>(
    argv,
    new ArgumentIndex(instanceGroups),
    new ArgumentIndex(everyGroup),
  );
  return await (await import("./commands/instance.ts")).runInstance(options, worker);
}

/** Loads what every instance needs while it waits for its arguments. */
async function runPreparedInstance(): Promise<number> {
  const [argv, worker] = await Promise.all([
    givenArguments(),
    import("../executor/thread/threaded_executor.ts").then((module) => module.startEngineWorker()),
    import("./commands/instance.ts"),
    import("../core/protocol/calls.ts"), // the checks of what the manager will say
  ]);
  return argv === null ? 0 : await runInstance(argv, worker);
}
