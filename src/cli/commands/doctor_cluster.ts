/** `llumnix doctor --cluster`: whether the hosts of a cluster reach each other, and agree. */
import { openBus } from "../../bus/open_bus.ts";
import { openLeaseStore } from "../../cluster/store/stores.ts";
import { realClock } from "../../core/clock.ts";
import { clusterCredentials } from "../../roles/cluster_credentials.ts";
import { clusterKey } from "../../roles/cluster_key.ts";
import type { DoctorOptions } from "../doctor/arguments.ts";
import { announced } from "../doctor/announced.ts";
import { examineCluster } from "../doctor/cluster/examine.ts";
import { clusterReportText } from "../doctor/cluster/text.ts";

/** Limit of each call of the store: longer than that of the roles, so that a slow store is measured. */
const STORE_TIMEOUT_MS = 2_000;

/**
 * Examines a cluster from this host, and prints the report.
 * @returns the exit code: 0 if nothing has to be put right, else 1
 * @throws {UsageError} `--cluster` is no URL, or the credentials or the key cannot be used
 */
export async function runClusterDoctor(
  url: string,
  options: DoctorOptions,
): Promise<number> {
  const store = await openLeaseStore(url, {
    timeoutMs: STORE_TIMEOUT_MS,
    mustExist: true,
    credentials: clusterCredentials(options.clusterCredentials),
  });
  try {
    const report = await examineCluster({
      url,
      store,
      bus: openBus({ clusterKey: clusterKey(options) }),
      clock: realClock,
      prefillTokensPerSecond: options.prefillTokensPerSecond,
      step: announced,
    });
    console.log(options.json ? JSON.stringify(report, null, 2) : clusterReportText(report));
    return report.problems.length === 0 ? 0 : 1;
  } finally {
    await store.close();
  }
}
