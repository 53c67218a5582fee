/** `llumnix grafana` and `llumnix alerts`: files for the tools that watch a service. */
import { UsageError } from "../core/errors.ts";
import type { Command } from "./command.ts";

export const grafana: Command = {
  run: async (argv) => {
    const path = pathOf("grafana", argv);
    const { dashboard } = await import("../metrics/dashboard.ts");
    const text = JSON.stringify(dashboard(), null, 2) + "\n";
    write(path, text, "import it in Grafana (Dashboards, New, Import)");
    return 0;
  },
};

export const alerts: Command = {
  run: async (argv) => {
    const path = pathOf("alerts", argv);
    const { alertRules } = await import("../metrics/alerts.ts");
    write(path, await alertRules(), "name it under rule_files in Prometheus' configuration");
    return 0;
  },
};

/** @returns null for standard output */
function pathOf(command: string, [path, ...rest]: readonly string[]): string | null {
  if (rest.length === 0 && !path?.startsWith("-")) return path ?? null;
  throw new UsageError(
    `expected the name of a new file, or nothing for standard output: llumnix ${command} [FILE]`,
  );
}

/** @throws {UsageError} the file exists, or cannot be written */
function write(path: string | null, text: string, next: string): void {
  if (path === null) return console.log(text.trimEnd());
  try {
    Deno.writeTextFileSync(path, text, { createNew: true });
  } catch (error) {
    const why = error instanceof Deno.errors.AlreadyExists
      ? "it exists; give another name, or remove it"
      : (error as Error).message;
    throw new UsageError(`cannot write ${path}: ${why}`, { cause: error });
  }
  console.log(`${path}: ${next}`);
}
