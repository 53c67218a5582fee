/**
 * The commands of the program. Each is loaded when it is used, so that `--version` and `--help` start
 * without the argument tables.
 */
import { UsageError } from "../core/errors.ts";
import { didYouMean } from "../core/suggest.ts";
import type { Command } from "./command.ts";

/** A command's line in the program's help, and its module. */
export interface CommandEntry {
  readonly summary: string;
  /** Null: not available yet. */
  readonly load: (() => Promise<Command>) | null;
}

export const commands: ReadonlyMap<string, CommandEntry> = new Map<string, CommandEntry>([
  ["serve", {
    summary: "Serve a model over HTTP with one instance or many.",
    load: async () => (await import("./role_commands.ts")).serve,
  }],
  ["instance", {
    summary: "Add one instance to a running manager (serve and manager start their own).",
    load: async () => (await import("./role_commands.ts")).instance,
  }],
  ["manager", {
    summary: "Run the manager and its instances; API servers run apart (api-server).",
    load: async () => (await import("./role_commands.ts")).manager,
  }],
  ["api-server", {
    summary: "Run an API server for the instances of a running manager (manager).",
    load: async () => (await import("./role_commands.ts")).apiServer,
  }],
  ["agent", {
    summary: "Let a manager on another host start instances on this one.",
    load: async () => (await import("./role_commands.ts")).agent,
  }],
  ["bench", {
    summary: "Measure a server under load, or compare two.",
    load: async () => (await import("./bench/command.ts")).bench,
  }],
  ["demo", {
    summary: "Watch requests move between four instances, and survive the kill of one.",
    load: async () => (await import("./demo/command.ts")).demo,
  }],
  ["simulate", {
    summary: "Run workloads on simulated clusters, and compare policies.",
    load: async () => (await import("./simulate/command.ts")).simulate,
  }],
  ["decide", {
    summary: "Print the manager's decisions for records read from a file.",
    load: async () => (await import("./decide/command.ts")).decide,
  }],
  ["profile", {
    summary: "Make a latency profile: from this host's executor (run) or from logs (fit).",
    load: async () => (await import("./profile/command.ts")).profile,
  }],
  ["doctor", {
    summary: "Check this host: devices, libraries, migration backends, speed of its paths.",
    load: async () => (await import("./doctor/command.ts")).doctor,
  }],
  ["upgrade", {
    summary: "Replace a running service by a new executable; no request is interrupted.",
    load: async () => (await import("./upgrade/command.ts")).upgrade,
  }],
  ["systemd", {
    summary: "Print or write a systemd unit for a service (--write).",
    load: async () => (await import("./systemd/command.ts")).systemd,
  }],
  ["completion", {
    summary: "Print the completion script of a shell (completion bash, zsh or fish).",
    load: async () => (await import("./completion/command.ts")).completion,
  }],
  ["keygen", {
    summary: "Make the key for processes that connect over TCP (keygen FILE).",
    load: async () => (await import("./keygen.ts")).keygen,
  }],
  ["grafana", {
    summary: "Write a Grafana dashboard for /metrics (grafana [FILE]).",
    load: async () => (await import("./observability.ts")).grafana,
  }],
  ["alerts", {
    summary: "Write Prometheus alert rules for /metrics (alerts [FILE]).",
    load: async () => (await import("./observability.ts")).alerts,
  }],
  ["help", {
    summary: "Show help of a command, or the argument page (--markdown).",
    load: async () => (await import("./help_command.ts")).help,
  }],
]);

/** @throws {UsageError} no command has this name */
export function findCommand(name: string): CommandEntry {
  const command = commands.get(name);
  if (command !== undefined) return command;
  if (name.startsWith("-")) {
    throw new UsageError(`expected a command before ${name}, such as: llumnix serve ${name}`);
  }
  throw new UsageError(
    `unknown command ${name}${didYouMean(name, commands.keys())} (llumnix --help lists them)`,
  );
}

/** Help of the program: its commands. */
export function programHelp(): string {
  const lines = [...commands].map(([name, { summary, load }]) =>
    `  ${name.padEnd(12)}${summary}${load === null ? " (not available yet)" : ""}`
  );
  return [
    "usage: llumnix [-h] [--version] COMMAND ...",
    "",
    "Serves LLMs with many model instances that act as one service.",
    "",
    "Commands:",
    ...lines,
    "",
    "llumnix COMMAND --help shows a command's options.",
  ].join("\n");
}
