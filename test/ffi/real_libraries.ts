/**
 * The real libraries of NVIDIA and UCX, where a host has them: installed, or in the directory that the
 * environment variable LLUMNIX_TEST_WHEELS names, which holds unpacked wheels.
 */
import { installedFiles, type LibraryName, systemPlaces } from "../../ffi/library_search.ts";

const wheels = Deno.env.get("LLUMNIX_TEST_WHEELS") || null;

/** Every file of a library, each once. */
export function realFiles(library: LibraryName): string[] {
  const names: readonly string[] = library.sonames;
  const unpacked = wheels === null ? [] : [...filesUnder(wheels, names)];
  const installed = [...installedFiles(library, { ...systemPlaces, variable: environment })];
  return [...new Set([...unpacked, ...installed].map((file) => Deno.realPathSync(file)))];
}

/** Without the variables that point to the software device. */
function environment(name: string): string | undefined {
  return name.startsWith("LLUMNIX_") ? undefined : systemPlaces.variable(name);
}

function* filesUnder(directory: string, names: readonly string[], depth = 8): Generator<string> {
  for (const entry of Deno.readDirSync(directory)) {
    const path = `${directory}/${entry.name}`;
    if (entry.isDirectory && depth > 0) yield* filesUnder(path, names, depth - 1);
    else if (names.includes(entry.name)) yield path;
  }
}

/** A test for each file of a library; one ignored test, with the reason in its name, without any. */
export function realTest(
  library: LibraryName,
  name: string,
  run: (file: string) => void | Promise<void>,
): void {
  const files = realFiles(library);
  const hint = "LLUMNIX_TEST_WHEELS can name a directory of unpacked wheels";
  if (files.length === 0) {
    const reason = `(skipped: no real ${library.name} here; ${hint})`;
    Deno.test({ name: `${name} ${reason}`, ignore: true, fn: () => {} });
  }
  for (const file of files) Deno.test(`${name}: ${shortened(file)}`, () => run(file));
}

function shortened(file: string): string {
  return wheels !== null && file.startsWith(Deno.realPathSync(wheels))
    ? file.slice(Deno.realPathSync(wheels).length + 1).replace(/site-packages\/nvidia\//, "")
    : file;
}

/** False where the tests can say something of a host without a driver. */
export const hasDriver = realFiles({
  name: "libcuda",
  sonames: ["libcuda.so.1"],
  variable: "",
  install: "",
}).length > 0;
