/** Instances that the process of the API server starts (`--disable-init-instance-by-manager`). */
import type { Address } from "../../bus/bus.ts";
import { realClock, sleep } from "../../core/clock.ts";
import type { Cluster } from "../../core/cluster.ts";
import { UnavailableError } from "../../core/errors.ts";
import type { InstanceId } from "../../core/messages.ts";
import type { ExitStatus, InstanceLauncher } from "../../manager/launcher.ts";

const POLL_MS = 20;

/**
 * Starts instances that register with the manager, and waits until all of them serve. From then on they
 * are the manager's, which replaces what is lost.
 * @throws {UnavailableError} one ended before
 */
export async function startInstances(
  launcher: InstanceLauncher,
  managerAddress: Address,
  cluster: Pick<Cluster, "instances">,
  count: number,
): Promise<void> {
  await Promise.all(Array.from({ length: count }, async (_, i) => {
    const instanceId = `instance-api-${Deno.pid}-${i}`;
    const { exited } = await launcher.launch({
      instanceId,
      managerAddress,
      numBlocks: null,
      startedBy: "api-server",
    });
    await untilServing(instanceId, exited, cluster);
  }));
}

async function untilServing(
  instanceId: InstanceId,
  exited: Promise<ExitStatus>,
  cluster: Pick<Cluster, "instances">,
): Promise<void> {
  let end: ExitStatus | null = null;
  exited.then((status) => end = status);
  while (!cluster.instances().some((one) => one.instanceId === instanceId)) {
    if (end !== null) {
      const { code, signal }: ExitStatus = end;
      throw new UnavailableError(
        `${instanceId} ended with ${
          signal ?? `code ${code}`
        } before it served; the manager's log ` +
          "says why",
      );
    }
    await sleep(realClock, POLL_MS);
  }
}
