/** Hashes everything that an executable is made from: if the hash is unchanged, no build is needed. */

const trees = ["src", "ffi", "scripts/bundle", "scripts/std"];
const files = ["deno.json", "deno.lock", "scripts/build.ts"];

/**
 * Hash over the sources, the built kernels and the tools, in hexadecimal.
 * @param commit `--version` shows it
 */
export async function hashInputs(root: string, commit: string | null): Promise<string> {
  const paths = [...files, ...trees.flatMap((tree) => [...filesUnder(root, tree)])].sort();
  const lines = [
    `${Deno.version.deno} ${Deno.build.target} ${Deno.env.get("DENORT_BIN") ?? ""} ${commit}`,
  ];
  for (const path of paths) {
    lines.push(`${path} ${await shortHash(await Deno.readFile(`${root}/${path}`))}`);
  }
  return await shortHash(new TextEncoder().encode(lines.join("\n")));
}

/** The first 64 bits of SHA-256, in hexadecimal: to tell builds apart, not to resist forgery. */
export async function shortHash(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return new Uint8Array(digest, 0, 8).toHex();
}

function* filesUnder(root: string, directory: string): Generator<string> {
  for (const entry of Deno.readDirSync(`${root}/${directory}`)) {
    const path = `${directory}/${entry.name}`;
    if (entry.isDirectory) yield* filesUnder(root, path);
    else yield path;
  }
}
