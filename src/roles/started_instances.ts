/** Starts instances from the API server's process (`--disable-init-instance-by-manager`). */
import type { Address } from "../bus/bus.ts";
import { type Clock, sleep } from "../core/clock.ts";
import { UnavailableError } from "../core/errors.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type { ClusterClient } from "../client/cluster_client.ts";
import type { InstanceLauncher } from "../manager/fleet/launcher.ts";

/** How much later than an instance's end the manager's news may come that it has served. */
const NEWS_DELAY_MS = 1_000;

export interface StartedInstancesConfig {
  readonly launcher: InstanceLauncher;
  readonly managerAddress: Address;
  readonly cluster: Pick<ClusterClient, "untilServing">;
  readonly clock: Clock;
  readonly count: number;
}

/**
 * Starts instances that register with the manager, and waits until each has served. From then on the
 * manager owns them, and replaces those that are lost.
 * @throws {UnavailableError} an instance ended before it served
 */
export async function startInstances(config: StartedInstancesConfig): Promise<void> {
  await Promise.all(
    Array.from(
      { length: config.count },
      (_, i) => startOne(`instance-api-${Deno.pid}-${i}`, config),
    ),
  );
}

async function startOne(
  instanceId: InstanceId,
  { launcher, managerAddress, cluster, clock }: StartedInstancesConfig,
): Promise<void> {
  const { exited } = await launcher.launch({
    instanceId,
    managerAddress,
    numBlocks: null,
    startedBy: "api-server",
  });
  const served = cluster.untilServing(instanceId).then(() => null);
  const end = await Promise.race([served, exited]);
  if (end === null) return;
  const news = sleep(clock, NEWS_DELAY_MS).then(() => end);
  if (await Promise.race([served, news]) === null) return;
  throw new UnavailableError(
    `${instanceId} ended with ${
      end.signal ?? `code ${end.code}`
    } before it served; the manager's ` +
      "log says why",
  );
}
