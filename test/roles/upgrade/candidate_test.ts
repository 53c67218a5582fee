import assert from "node:assert/strict";
import { type Clock, realClock } from "../../../src/core/clock.ts";
import { checkCandidate } from "../../../src/roles/upgrade/candidate.ts";
import { until } from "../../patience.ts";
import { withDirectory } from "../../temporary_directory.ts";
import { writeProgram } from "./_program.ts";

const argv = ["serve", "--port", "1"];

Deno.test("candidate: one that tells its version and accepts the arguments is accepted", () =>
  withDirectory(async (directory) => {
    const program = writeProgram(
      directory,
      `[ "$*" = --version ] && echo "llumnix 9.9.9" && exit
       [ "$*" = "serve --port 1 --print-config" ]`,
    );
    await checkCandidate([program], argv);
  }));

Deno.test("candidate: what does not start, or is something else, is refused with what it said", () =>
  withDirectory(async (directory) => {
    const cases: [program: string, message: RegExp][] = [
      [`${directory}/none`, /none cannot be started: no such file or directory$/],
      [
        writeProgram(directory, "echo not for this host >&2; exit 126"),
        /code 126 and said: not for/,
      ],
      [
        writeProgram(directory, "exit 1"),
        /is not this program, or does not run here: .* said: nothing/,
      ],
      [writeProgram(directory, "echo python 3.12"), /code 0 and said: python 3\.12$/],
      [writeProgram(directory, "echo ls 9; echo licence"), /code 0 and said: ls 9$/],
      [
        writeProgram(
          directory,
          `[ "$*" = --version ] && echo "llumnix 9.9.9" && exit
           echo "llumnix serve: error: unknown option --port" >&2; exit 2`,
        ),
        /refuses the arguments of this process: llumnix serve: error: unknown option --port$/,
      ],
    ];
    for (const [program, message] of cases) {
      await assert.rejects(checkCandidate([program], argv), { name: "ConflictError", message });
    }
  }));

Deno.test("candidate: one that ignores SIGTERM is killed at the time limit", () =>
  withDirectory(async (directory) => {
    const pidFile = `${directory}/pid`;
    const program = writeProgram(directory, `trap "" TERM; echo $$ > ${pidFile}; exec sleep 600`);
    const due: (() => void)[] = [];
    const clock: Clock = { ...realClock, after: (_, callback) => (due.push(callback), () => {}) };
    const check = checkCandidate([program], argv, { timeoutMs: 1234, clock });
    const refused = assert.rejects(check, {
      name: "ConflictError",
      message: /program-\S+ --version did not end within 1\.234 s$/,
    });
    const pid = (await untilText(pidFile)).trim();
    due[0]();
    await refused;
    assert.ok(!exists(`/proc/${pid}`), `process ${pid} runs on`);
  }));

Deno.test("candidate: a check is cut short when the process stops", () =>
  withDirectory(async (directory) => {
    const pidFile = `${directory}/pid`;
    const program = writeProgram(directory, `trap "" TERM; echo $$ > ${pidFile}; exec sleep 600`);
    const stop = new AbortController();
    const check = checkCandidate([program], argv, { signal: stop.signal });
    const pid = (await untilText(pidFile)).trim();
    stop.abort();
    await assert.rejects(check, { name: "ConflictError", message: "this process is stopping" });
    assert.ok(!exists(`/proc/${pid}`), `process ${pid} runs on`);
    await assert.rejects(checkCandidate([program], argv, { signal: stop.signal }), /is stopping/);
  }));

Deno.test({
  name: "candidate: what it has started and left running is not waited for",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withDirectory(async (directory) => {
      const pidFile = `${directory}/pid`;
      const program = writeProgram(
        directory,
        `[ "$*" = --version ] || exit 0
         sleep 600 & echo $! > ${pidFile}; echo "llumnix 9.9.9"`,
      );
      await checkCandidate([program], argv);
      Deno.kill(Number(await untilText(pidFile)), "SIGKILL"); // it holds stdout open until now
    }),
});

Deno.test("candidate: of one that writes without end, the end is shown", () =>
  withDirectory(async (directory) => {
    const program = writeProgram(
      directory,
      `[ "$*" = --version ] && echo "llumnix 9.9.9" && exit
       yes 0123456789 | head -n 400000; echo end; exit 1`,
    );
    const error = await checkCandidate([program], argv).catch((error) => error);
    assert.match(error.message, /0123456789\nend$/);
    assert.ok(error.message.length < 2_000, `${error.message.length} characters`);
  }));

/** What is in a file, once something is. */
async function untilText(path: string): Promise<string> {
  const text = () => exists(path) ? Deno.readTextFileSync(path) : "";
  await until(() => text() !== "", `something is in ${path}`);
  return text();
}

function exists(path: string): boolean {
  try {
    return Deno.lstatSync(path) !== null;
  } catch {
    return false;
  }
}
