import assert from "node:assert/strict";
import { completion } from "../../../src/cli/completion/command.ts";
import { completedCommands } from "../../../src/cli/completion/completed_commands.ts";
import { completionScript } from "../../../src/cli/completion/scripts.ts";
import { commands } from "../../../src/cli/commands.ts";

const completed = await completedCommands();
const hasBash = await runs("bash");

async function runs(program: string): Promise<boolean> {
  try {
    return (await new Deno.Command(program, { args: ["--version"] }).output()).success;
  } catch {
    return false;
  }
}

/** What bash offers after these words, the last of which is being written. */
async function offered(...words: string[]): Promise<string[]> {
  const script = completionScript("bash", completed);
  const test = `${script}
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_llumnix
printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = await new Deno.Command("bash", {
    args: ["-c", test, "bash", ...words],
  }).output();
  assert.equal(new TextDecoder().decode(stderr), "");
  return new TextDecoder().decode(stdout).trim().split("\n");
}

Deno.test({
  name: "completion: bash offers commands, options, values and files",
  ignore: !hasBash,
  async fn() {
    assert.deepEqual(await offered("llumnix", "se"), ["serve"]);
    assert.deepEqual(await offered("llumnix", "serve", "--initial"), ["--initial-instances"]);
    const policies = ["balanced", "load", "queue", "rr"];
    assert.deepEqual(await offered("llumnix", "serve", "--dispatch-policy", ""), policies);
    assert.deepEqual(await offered("llumnix", "serve", "--dispatch-policy", "=", "r"), ["rr"]);
    assert.deepEqual(await offered("llumnix", "serve", "--dispatch-policy", "="), policies);
    assert.deepEqual(await offered("llumnix", "completion", "z"), ["zsh"]);
    assert.deepEqual(await offered("llumnix", "help", "man"), ["manager"]);
    assert.deepEqual(await offered("llumnix", "serve", "--config-file", "/et"), ["/etc"]);
  },
});

Deno.test("completion: every command and option is there, for each shell", () => {
  for (const shell of ["bash", "zsh", "fish"] as const) {
    const script = completionScript(shell, completed);
    for (const { name, options } of completed) {
      assert.ok(script.includes(name), `${shell}: ${name}`);
      for (const option of options) {
        const written = shell === "fish" ? `-l ${option.name} ` : `--${option.name}`;
        assert.ok(script.includes(written), `${shell}: ${name} ${option.name}`);
      }
    }
  }
  const available = [...commands].filter(([, { load }]) => load !== null).map(([name]) => name);
  assert.deepEqual(completed.map(({ name }) => name), available);
});

Deno.test("completion: quotes in texts end no word of a script", () => {
  const odd = [{
    name: "odd",
    summary: "it's [odd]: really",
    options: [{ name: "x", help: "a 'b' [c]: d\\e", isFlag: true, values: null }],
    words: "files" as const,
  }];
  assert.match(completionScript("zsh", odd), /'--x\[a '\\''b'\\'' \\\[c\\\]\\: d\\\\e\]'/);
  assert.match(completionScript("fish", odd), /-d 'a \\'b\\' \[c\]: d\\\\e'/);
});

Deno.test("completion: another shell is refused", async () => {
  for (const argv of [[], ["tcsh"], ["bash", "zsh"]]) {
    await assert.rejects(completion.run(argv), { kind: "usage", message: /bash\|zsh\|fish/ });
  }
});
