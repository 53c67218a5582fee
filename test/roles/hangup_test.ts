import assert from "node:assert/strict";
import { until } from "../patience.ts";

const isLinux = Deno.build.os === "linux";
const suffix = isLinux ? "" : " (ignored: needs setsid and script of Linux)";
const child = new URL("_hangup_child.ts", import.meta.url).pathname;
const config = new URL("../../deno.json", import.meta.url).pathname;

/** Runs the child below a launcher, with the path of its log and its pid. */
function withChild(
  name: string,
  launcher: (command: readonly string[]) => readonly string[],
  body: (log: string, pid: number, ended: Promise<unknown>) => Promise<void>,
): void {
  Deno.test({
    name: name + suffix,
    ignore: !isLinux,
    fn: async () => {
      const folder = await Deno.makeTempDir();
      const log = `${folder}/server.log`;
      const run = [Deno.execPath(), "run", "-A", "--no-check", "--config", config, child, log];
      const [program, ...args] = launcher(run);
      const started = new Deno.Command(program, {
        args,
        stdin: "null",
        stdout: "null",
        stderr: "null",
      }).spawn();
      const [, pid] = await found(log, /ready pid=(\d+)/);
      try {
        await body(log, Number(pid), started.status);
      } finally {
        try {
          Deno.kill(Number(pid), "SIGKILL");
        } catch {
          // It has ended.
        }
        await started.status;
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

/** What the file says, as soon as it says it. */
async function found(path: string, pattern: RegExp): Promise<RegExpExecArray> {
  let match: RegExpExecArray | null = null;
  const isFound = async () => {
    match = pattern.exec(await Deno.readTextFile(path).catch(() => ""));
    return match !== null;
  };
  await until(isFound, `${path} says ${pattern}`, 20);
  return match!;
}

const withoutTerminal = (command: readonly string[]) => ["setsid", ...command];
const onTerminal = (command: readonly string[]) => [
  ...["script", "--quiet", "--return", "--command", command.join(" "), "/dev/null"],
];

withChild(
  "without a terminal SIGHUP opens the log file anew and stops nothing",
  withoutTerminal,
  async (log, pid) => {
    await Deno.rename(log, `${log}.old`);
    Deno.kill(pid, "SIGHUP");
    await found(log, /here/);
    Deno.kill(pid, "SIGTERM");
    await found(log, /stopping signal=SIGTERM/);
    assert.doesNotMatch(await Deno.readTextFile(`${log}.old`), /stopping/);
  },
);

withChild("a terminal that hangs up stops the process", onTerminal, async (log, pid, ended) => {
  Deno.kill(pid, "SIGHUP");
  await found(log, /stopping signal=SIGHUP/);
  await ended;
});

withChild(
  "under nohup a terminal that hangs up stops nothing",
  (command) => onTerminal(["nohup", ...command, ">/dev/null", "2>&1"]),
  async (log, pid) => {
    Deno.kill(pid, "SIGHUP");
    await new Promise((resolve) => setTimeout(resolve, 300));
    Deno.kill(pid, "SIGTERM");
    await found(log, /stopping signal=SIGTERM/);
  },
);
