/** `llumnix doctor`: its arguments, and how it starts. */
import type { Command } from "../command.ts";
import { doctorGroups, doctorOptions } from "./arguments.ts";

export const doctor: Command = {
  groups: doctorGroups,
  run: async (argv) => {
    // The report asks a process of its own for what only one library of a process can tell.
    if (argv[0] === "child") return await (await import("./child.ts")).runChild(argv.slice(1));
    const options = doctorOptions(argv);
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
