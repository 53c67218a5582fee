import assert from "node:assert/strict";
import { completion } from "../../../src/cli/completion/command.ts";
import { completedCommands } from "../../../src/cli/completion/completed_commands.ts";
import { completionScript } from "../../../src/cli/completion/scripts.ts";
import { commands } from "../../../src/cli/commands.ts";

const completed = await completedCommands();
const hasBash = await runs("bash"), hasZsh = await runs("zsh"), hasFish = await runs("fish");
/** Follows the name of a test that is ignored without the shell. */
const needed = (shell: string, isThere: boolean) => isThere ? "" : ` (needs ${shell})`;

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

/**
 * Types lines into a zsh that completes as a user's does. zsh has no way to ask what it would offer, so `compadd`,
 * which every completion ends in, writes it to a file.
 */
const zshSession = String.raw`
zmodload zsh/zpty
directory=$1; shift
cat > $directory/setup <<'END'
PROMPT= RPROMPT=
fpath=($directory $fpath)
autoload -Uz compinit
compinit -u -D
compadd() {
  if [[ $argv[1,(i)(-|--)] == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
  local -a hits
  builtin compadd -A hits "$@"
  print -rl -- $hits >> $directory/offered
}
_asked() { _complete; print -- "[end]" >> $directory/offered; return 1 }
zstyle ':completion:*' completer _asked
bindkey '^I' complete-word
END
: > $directory/offered
zpty shell zsh -f -i
zpty -w shell "directory=$directory; source $directory/setup"
count=0 waits=0
for line in "$@"; do
  zpty -w -n shell "$line"$'\t'
  ((count++))
  until [[ $(grep -c -F '[end]' $directory/offered) -ge $count ]]; do
    zpty -r -t shell > /dev/null
    ((++waits < 3000)) || { print -u2 "no end after: $line"; exit 1 }
    sleep 0.02
  done
  zpty -w -n shell $'\C-u'
done
cat $directory/offered
`;

/** What zsh offers after each of these lines. */
async function offeredByZsh(lines: readonly string[]): Promise<string[][]> {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${directory}/_llumnix`, completionScript("zsh", completed));
    const { stdout, stderr } = await new Deno.Command("zsh", {
      args: ["-f", "-c", zshSession, "zsh", directory, ...lines],
    }).output();
    assert.equal(new TextDecoder().decode(stderr), "");
    return new TextDecoder().decode(stdout).split("[end]\n").slice(0, -1)
      .map((offers) => [...new Set(offers.split("\n").filter((offer) => offer !== ""))].sort());
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** What fish offers after this line. */
async function offeredByFish(line: string): Promise<string[]> {
  const { stdout, stderr } = await new Deno.Command("fish", {
    args: ["--no-config", "-c", "eval $argv[1]; complete -C $argv[2]", "--"]
      .concat(completionScript("fish", completed), line),
  }).output();
  assert.equal(new TextDecoder().decode(stderr), "");
  return new TextDecoder().decode(stdout).split("\n").map((offer) => offer.split("\t")[0])
    .filter((offer) => offer !== "").sort();
}

/** Lines and what each shell offers after them. */
const lines: readonly (readonly [line: string, offers: readonly string[]])[] = [
  ["llumnix se", ["serve"]],
  ["llumnix serve --initial", ["--initial-instances"]],
  ["llumnix serve --dispatch-policy ", ["balanced", "load", "queue", "rr"]],
  ["llumnix completion z", ["zsh"]],
  ["llumnix help man", ["manager"]],
];

Deno.test({
  name: `completion: zsh offers commands, options and values${needed("zsh", hasZsh)}`,
  ignore: !hasZsh,
  async fn() {
    const offers = await offeredByZsh(lines.map(([line]) => line));
    assert.deepEqual(offers, lines.map(([, expected]) => expected));
  },
});

Deno.test({
  name: `completion: fish offers commands, options and values${needed("fish", hasFish)}`,
  ignore: !hasFish,
  async fn() {
    for (const [line, expected] of lines) {
      assert.deepEqual(await offeredByFish(line), expected, line);
    }
  },
});

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
