/** `llumnix doctor`: its arguments, and how it starts. */
import { UsageError } from "../../core/errors.ts";
import type { Command } from "../command.ts";
import { doctorGroups, type DoctorOptions, doctorOptions } from "./arguments.ts";

export const doctor: Command = {
  groups: doctorGroups,
  run: async (argv) => {
    // The report asks a process of its own for what only one library of a process can tell.
    if (argv[0] === "child") return await (await import("./child.ts")).runChild(argv.slice(1));
    const options = doctorOptions(argv);
    checkCluster(options);
    if (options.cluster !== null) {
      const { runClusterDoctor } = await import("../commands/doctor_cluster.ts");
      return await runClusterDoctor(options.cluster, options);
    }
    if (options.selfTest) {
      return await (await import("./self_test.ts")).runDoctorSelfTest(options);
    }
    return await (await import("../commands/doctor.ts")).runDoctor(options);
  },
};

/** @throws {UsageError} an option that needs --cluster without it, or one that excludes it beside it */
function checkCluster(options: DoctorOptions): void {
  const { cluster, selfTest, clusterCredentials, clusterKeyFile, clusterInsecure } = options;
  if (cluster !== null) {
    if (!selfTest) return;
    throw new UsageError("--self-test is of this host, and --cluster of all hosts: leave one out");
  }
  const stray = clusterCredentials !== null
    ? "--cluster-credentials"
    : clusterKeyFile !== null
    ? "--cluster-key-file"
    : clusterInsecure
    ? "--cluster-insecure"
    : null;
  if (stray !== null) throw new UsageError(`${stray} has no effect without --cluster URL`);
}
