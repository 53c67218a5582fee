import assert from "node:assert/strict";
import { checkCandidate } from "../../../src/roles/upgrade/candidate.ts";
import { writeProgram } from "./_program.ts";

const argv = ["serve", "--port", "1"];

/** Runs with a directory for programs. */
async function withDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = Deno.makeTempDirSync();
  try {
    await body(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

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
