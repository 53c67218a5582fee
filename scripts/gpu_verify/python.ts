/** Python on this host, for what Hugging Face transformers computes. */

/** Why this host has no python3 with torch and transformers; null: it has. */
export async function missingTransformers(): Promise<string | null> {
  const code = "import torch, transformers";
  try {
    const { success, stderr } = await new Deno.Command("python3", { args: ["-c", code] }).output();
    if (success) return null;
    return new TextDecoder().decode(stderr).trim().split("\n").at(-1) ?? "python3 fails";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "there is no python3";
    throw error;
  }
}

/** Runs a program; its lines go to stdout as they come. @returns whether it succeeded, and its complaints */
export async function runPython(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ success: boolean; complaint: string }> {
  const directory = Deno.execPath().replace(/\/[^/]*$/, "");
  const child = new Deno.Command("python3", {
    args: [...args],
    env: { PATH: `${directory}:${Deno.env.get("PATH") ?? ""}`, ...env },
    ...{ stdin: "null", stdout: "inherit", stderr: "piped" },
  }).spawn();
  const complaint = (await new Response(child.stderr).text()).trim().slice(-2000);
  return { success: (await child.status).success, complaint };
}
