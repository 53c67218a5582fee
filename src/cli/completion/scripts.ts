/** Completion scripts of shells: bash-completion, zsh's _arguments, fish's complete. */
import type { CompletedCommand, CompletedOption } from "./completed_commands.ts";

type Commands = readonly CompletedCommand[];

const globalOptions = ["--help", "--version"];

/** The script for one shell. */
export function completionScript(shell: "bash" | "zsh" | "fish", commands: Commands): string {
  return { bash, zsh, fish }[shell](commands);
}

function bash(commands: Commands): string {
  const options = commands.map(({ name, options }) =>
    `      ${name}) words=${quote(options.map((option) => `--${option.name}`).join(" "))} ;;`
  );
  const words = commands.filter(({ words }) => words !== "files")
    .map(({ name, words }) => `    ${name}) words=${quote((words as string[]).join(" "))} ;;`);
  return `# bash completion for llumnix
_llumnix() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} words=
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W ${quote(names(commands).concat(globalOptions).join(" "))} -- "$cur"))
    return
  fi
  # --option=value is three words of bash.
  if [[ $cur == = ]]; then cur= ; elif [[ $prev == = ]]; then prev=\${COMP_WORDS[COMP_CWORD - 2]}; fi
  case "\${COMP_WORDS[1]} $prev" in
${bashValues(commands).join("\n")}
  esac
  if [[ -n $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    return
  fi
  case \${COMP_WORDS[1]} in
${words.join("\n")}
  esac
  if [[ $cur == -* ]]; then
    case \${COMP_WORDS[1]} in
${options.join("\n")}
    esac
  fi
  if [[ -n $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  else
    COMPREPLY=($(compgen -f -- "$cur"))
  fi
}
complete -o filenames -F _llumnix llumnix`;
}

/** Options with the same values in several commands share a line. */
function bashValues(commands: Commands): string[] {
  const patterns = new Map<string, string[]>();
  for (const { name, options } of commands) {
    for (const option of options) {
      if (option.values === null || option.values === "files") continue;
      const key = `words=${quote(option.values.join(" "))}`;
      patterns.set(key, [...patterns.get(key) ?? [], `"${name} --${option.name}"`]);
    }
  }
  return [...patterns].map(([action, options]) => `    ${options.join(" | ")}) ${action} ;;`);
}

function zsh(commands: Commands): string {
  const cases = commands.map(({ name, options, words }) => {
    const rest = words === "files" ? "'*:file:_files'" : `'*:word:(${words.join(" ")})'`;
    const specs = [...options.map(zshOption), rest];
    return `    ${name})\n      _arguments \\\n${
      specs.map((spec) => `        ${spec}`).join(" \\\n")
    }\n      ;;`;
  });
  const described = commands.map(({ name, summary }) => `    ${quote(`${name}:${summary}`)}`);
  return `#compdef llumnix
_llumnix() {
  local -a commands
  commands=(
${described.join("\n")}
  )
  if ((CURRENT == 2)); then
    _describe command commands
    return
  fi
  shift words
  ((CURRENT--))
  case $words[1] in
${cases.join("\n")}
  esac
}
_llumnix "$@"`;
}

function zshOption({ name, help, isFlag, values }: CompletedOption): string {
  const text = help.replaceAll(/[[\]:\\]/g, "\\$&");
  if (isFlag) return quote(`--${name}[${text}]`);
  const action = values === "files" ? "_files" : values === null ? " " : `(${values.join(" ")})`;
  return quote(`*--${name}=[${text}]:value:${action}`);
}

function fish(commands: Commands): string {
  const lines = commands.flatMap(({ name, summary, options, words }) => [
    `complete -c llumnix -n __fish_use_subcommand -f -a ${name} -d ${fishQuote(summary)}`,
    ...(words === "files" ? [] : [`${fishIn(name)} -f -a ${fishQuote(words.join(" "))}`]),
    ...options.map((option) => `${fishIn(name)} ${fishOption(option)}`),
  ]);
  return ["# fish completion for llumnix", ...lines].join("\n");
}

function fishIn(command: string): string {
  return `complete -c llumnix -n '__fish_seen_subcommand_from ${command}'`;
}

function fishOption({ name, help, isFlag, values }: CompletedOption): string {
  const value = isFlag
    ? ""
    : values === "files"
    ? " -r"
    : values === null
    ? " -x"
    : ` -x -a ${fishQuote(values.join(" "))}`;
  return `-l ${name}${value} -d ${fishQuote(help)}`;
}

function names(commands: Commands): string[] {
  return commands.map(({ name }) => name);
}

/** A word of sh, bash and zsh. */
function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function fishQuote(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
