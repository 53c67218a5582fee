/** Runs with a directory of its own, which is removed in the end. */
export async function withDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = Deno.makeTempDirSync();
  try {
    await use(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}
