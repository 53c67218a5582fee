import assert from "node:assert/strict";
import { join } from "node:path";
import { ArgumentIndex } from "../../../src/cli/arguments/index.ts";
import { agentGroups, allRoleGroups } from "../../../src/cli/arguments/role_tables.ts";
import type { RoleOptions } from "../../../src/cli/arguments/tables.ts";
import { AgentService } from "../../../src/cli/commands/agent.ts";
import { readServingOptions } from "../../../src/cli/role_options.ts";
import { logger } from "../../../src/core/log.ts";
import { within } from "../../patience.ts";

Deno.test("agent: takes its host back from a successor that failed, and stops, without a manager", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const address = `unix:${join(directory, "manager.sock")}`;
    const options = await readServingOptions<RoleOptions>(
      "agent",
      [`--manager-address=${address}`, `--host-name=test-${Deno.pid}`, "--log-filename="],
      new ArgumentIndex(agentGroups),
      new ArgumentIndex(allRoleGroups),
    );
    assert.notEqual(options, null);
    const service = new AgentService(options!, address, logger("test"), null, null);
    await within(service.takeBack(), "it had its host back");
    await within(service.finishRequests(), "it had stopped");
    await service[Symbol.asyncDispose]();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
