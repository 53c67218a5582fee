/**
 * Prometheus and promtool of Debian's package `prometheus`, where a host has them: installed, or unpacked
 * (`apt-get download prometheus && dpkg -x prometheus_*.deb DIRECTORY`) in the directory that the
 * environment variable LLUMNIX_TEST_PROMETHEUS names.
 */
const unpacked = Deno.env.get("LLUMNIX_TEST_PROMETHEUS") || null;

/** The path of a program; null where it is not. */
export function programOf(name: "prometheus" | "promtool"): string | null {
  const directories = unpacked === null
    ? (Deno.env.get("PATH") ?? "").split(":")
    : [`${unpacked}/usr/bin`];
  return directories.map((directory) => `${directory}/${name}`).find(isFile) ?? null;
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** A test that needs a program; an ignored one, with the reason in its name, without it. */
export function testWith(
  name: "prometheus" | "promtool",
  title: string,
  run: (program: string) => Promise<void>,
): void {
  const program = programOf(name);
  const reason = `(skipped: no ${name} here; LLUMNIX_TEST_PROMETHEUS can name a directory with it)`;
  if (program === null) Deno.test({ name: `${title} ${reason}`, ignore: true, fn: () => {} });
  else Deno.test(title, () => run(program));
}

/** Runs promtool with this input. @returns its exit code, and all that it says */
export async function promtool(
  program: string,
  args: readonly string[],
  input = "",
): Promise<{ readonly code: number; readonly text: string }> {
  const child = new Deno.Command(program, {
    args: [...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

/**
 * promtool wants no colons in names, which vLLM's have and by which Llumnix's own follow. It sees them
 * with underscores here, so that everything else that it says counts.
 */
export function withoutColons(text: string): string {
  return text.replace(/\b(vllm|llumnix):/g, "$1_");
}
