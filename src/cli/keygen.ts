/** `llumnix keygen FILE`: makes the key of a cluster. */
import { UsageError } from "../core/errors.ts";
import type { Command } from "./command.ts";

export const keygen: Command = {
  run: async ([path, ...rest]) => {
    if (path === undefined || path.startsWith("-") || rest.length > 0) {
      throw new UsageError("expected the name of a new file: llumnix keygen FILE");
    }
    const { makeKeyFile } = await import("../roles/cluster_key.ts");
    makeKeyFile(path);
    console.log(
      `${path}: give this file to all processes of the cluster (--cluster-key-file ${path})`,
    );
    return 0;
  },
};
