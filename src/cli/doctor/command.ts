/** The command `doctor`. */
import type { Command } from "../command.ts";
import { doctorGroups, doctorOptions } from "./arguments.ts";

export const doctor: Command = {
  groups: doctorGroups,
  async run(argv) {
    // The doctor's own processes: see `child.ts`.
    if (argv[0] === "child") return await (await import("./child.ts")).runChild(argv.slice(1));
    const options = doctorOptions(argv);
    return await (await import("../commands/doctor.ts")).runDoctor(options);
  },
};
