/** What a shell can complete: the commands, their options, and the values of those. */
import { ArgumentIndex, type Entry } from "../arguments/index.ts";
import { commands } from "../commands.ts";

export interface CompletedCommand {
  readonly name: string;
  readonly summary: string;
  readonly options: readonly CompletedOption[];
  /** Words that may follow the command; `files`: any file. */
  readonly words: readonly string[] | "files";
}

export interface CompletedOption {
  /** Without dashes. */
  readonly name: string;
  /** The first sentence of its help. */
  readonly help: string;
  readonly isFlag: boolean;
  readonly values: readonly string[] | "files" | null;
}

/** Words that commands without a table of arguments take. */
const wordsOf: Readonly<Record<string, readonly string[]>> = {
  completion: ["bash", "zsh", "fish"],
  help: [...commands.keys(), "--markdown"],
};

const fileNames =
  /(^|-)(file|path|filename|keyfile|certfile|certs|dir|model|tokenizer|binary|template)$/;

/** The commands that can be run, in the order of help. */
export async function completedCommands(): Promise<CompletedCommand[]> {
  const found: CompletedCommand[] = [];
  for (const [name, { summary, load }] of commands) {
    if (load === null) continue;
    const { groups = [] } = await load();
    const entries = new ArgumentIndex(groups).entries
      .filter(({ argument }) => argument.status.kind !== "refused");
    const help = { name: "help", help: "Show help.", isFlag: true, values: null };
    const options = [...entries.map(completedOption), help];
    found.push({ name, summary, options, words: wordsOf[name] ?? "files" });
  }
  return found;
}

function completedOption({ name, argument }: Entry): CompletedOption {
  const { kind, choices, refusedChoices } = argument;
  const values = kind === "boolean"
    ? ["true", "false"]
    : choices?.map(String).filter((choice) => !(choice in refusedChoices));
  return {
    name,
    help: firstSentence(argument.help),
    isFlag: kind === "flag",
    values: values ?? (fileNames.test(name) ? "files" : null),
  };
}

function firstSentence(text: string): string {
  return text.replaceAll("`", "").split(/(?<=[.:;]) /)[0].replace(/[.:;]$/, "");
}
