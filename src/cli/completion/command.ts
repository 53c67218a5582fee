/** `llumnix completion SHELL`: completion scripts, from the argument tables. */
import { UsageError } from "../../core/errors.ts";
import type { Command } from "../command.ts";

const shells = ["bash", "zsh", "fish"] as const;

export const completion: Command = {
  run: async ([shell, ...rest]) => {
    if (rest.length > 0 || !(shells as readonly string[]).includes(shell)) {
      throw new UsageError(`expected a shell: llumnix completion ${shells.join("|")}`);
    }
    const { completionScript } = await import("./scripts.ts");
    const { completedCommands } = await import("./completed_commands.ts");
    console.log(completionScript(shell as typeof shells[number], await completedCommands()));
    return 0;
  },
  notes: () => Promise.resolve(notes),
};

const notes = [
  "bash: llumnix completion bash > ~/.local/share/bash-completion/completions/llumnix",
  'zsh:  llumnix completion zsh > "${fpath[1]}/_llumnix"',
  "fish: llumnix completion fish > ~/.config/fish/completions/llumnix.fish",
].join("\n");
