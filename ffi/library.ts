/**
 * Native libraries: where to look for them, and how to open them for the life of the process.
 */
import { openLibC } from "./libc.ts";
import {
  candidates,
  explicitPlace,
  type LibraryName,
  searchedDirectories,
  searchedPatterns,
  type SearchPlaces,
  systemPlaces,
} from "./library_search.ts";

/** One place that was tried, and why it did not serve. */
export interface FailedCandidate {
  readonly path: string;
  readonly reason: string;
}

/** No candidate of a library could be opened. `tried` has each of them, in order. */
export class LibraryNotFoundError extends Error {
  override readonly name = "LibraryNotFoundError";
  constructor(
    readonly library: string,
    readonly tried: readonly FailedCandidate[],
    /** Places that were searched for files. Every file that was found there is in `tried`. */
    readonly searched: readonly string[],
    advice: string,
  ) {
    const list = tried.map(({ path, reason }) => `\n  ${path}: ${reason}`).join("");
    const places = searched.length === 0 ? "" : `\nSearched: ${searched.join(", ")}.`;
    super(`${library} cannot be opened. Tried:${list}${places}\n${advice}`);
  }
}

/** A library that can be opened, of a version that the bindings are not written for. */
export class LibraryVersionError extends Error {
  override readonly name = "LibraryVersionError";
  constructor(
    readonly library: string,
    readonly path: string,
    readonly version: string,
    /** The versions that serve: "2.18.3 or later". */
    readonly needed: string,
    advice: string,
  ) {
    super(
      `${library} ${version} at ${path} cannot be used: the version has to be ${needed}. ${advice}`,
    );
  }
}

/** A library that is open, for the life of the process. */
export interface Library<S extends Deno.ForeignLibraryInterface> {
  /** The name that people use: "libcudart". */
  readonly name: string;
  /** The file that the loader mapped; the soname where the system does not tell. */
  readonly path: string;
  /** True if this is the project's software device: nothing that it does says anything of a GPU. */
  readonly softwareDevice: boolean;
  readonly symbols: Deno.DynamicLibrary<S>["symbols"];
}

/** Where to look instead of the system's places. */
export interface OpenOptions {
  /**
   * A file, or a directory with files of the library's sonames. Nothing else is searched. The default
   * is the environment variable of the library, then the places of the system.
   */
  readonly from?: string;
  /** The system's places; tests give their own. */
  readonly places?: SearchPlaces;
}

/** Only the software device exports it. Its value means nothing. */
const mark = { llumnixSoftwareDevice: { type: "u8", optional: true } } as const;

const opened = new Map<string, Map<Deno.ForeignLibraryInterface, unknown>>();

/**
 * Opens the first candidate of `library` that has every required symbol. It is never closed: threads
 * of CUDA, NCCL and UCX may run inside. A second call with the same `symbols` object returns the same
 * library.
 * @throws {LibraryNotFoundError} with every candidate and what was wrong with it
 */
export function openLibrary<const S extends Deno.ForeignLibraryInterface>(
  library: LibraryName,
  symbols: S,
  options: OpenOptions = {},
): Library<S> {
  for (const attempt of openEach(library, symbols, options)) return attempt;
  throw new Error("unreachable: openEach throws if it yields nothing");
}

/**
 * Opens the candidates of `library` one by one, best first, for a caller that wants the next one if a
 * library does not suit the host (a libcudart that is newer than the driver, say).
 * @throws {LibraryNotFoundError} after the last one, if none could be opened
 */
export function* openEach<const S extends Deno.ForeignLibraryInterface>(
  library: LibraryName,
  symbols: S,
  options: OpenOptions = {},
): Generator<Library<S>> {
  const tried: FailedCandidate[] = [];
  const seen = new Set<string>();
  const places = options.places ?? systemPlaces;
  const explicit = explicitPlace(library, options.from, places) !== undefined;
  for (const path of candidates(library, options.from, places)) {
    let found: Library<S>;
    try {
      found = openPath(library.name, path, symbols);
    } catch (error) {
      tried.push({ path, reason: reasonOf(error, path) });
      continue;
    }
    // The loader gives any open library of this soname, also one that another place has chosen.
    if (found.softwareDevice && !explicit) {
      tried.push({ path, reason: "the software device, which only an explicit path chooses" });
      continue;
    }
    if (seen.has(found.path)) continue;
    seen.add(found.path);
    yield found;
  }
  if (seen.size === 0) {
    const searched = explicit ? [] : [...searchedPatterns, ...searchedDirectories(places)];
    const advice = `${library.install} Or name its file, or the directory that holds it, in the ` +
      `environment variable ${library.variable}.`;
    throw new LibraryNotFoundError(library.name, tried, searched, advice);
  }
}

function openPath<const S extends Deno.ForeignLibraryInterface>(
  name: string,
  path: string,
  symbols: S,
): Library<S> {
  const known = opened.get(path)?.get(symbols);
  if (known !== undefined) return known as Library<S>;
  const library: Library<S> = {
    name,
    symbols: Deno.dlopen(path, symbols).symbols,
    softwareDevice: Deno.dlopen(path, mark).symbols.llumnixSoftwareDevice !== null,
    path: pin(path) ?? path,
  };
  if (!opened.has(path)) opened.set(path, new Map());
  opened.get(path)!.set(symbols, library);
  return library;
}

/** What the loader says, without the words that the report has already. */
function reasonOf(error: unknown, path: string): string {
  const message = error instanceof Error ? error.message : String(error);
  const words = message.split("\n")[0].replaceAll("Could not open library: ", "");
  return words.startsWith(`${path}: `) ? words.slice(path.length + 2) : words;
}

// dlfcn.h of glibc.
const RTLD_LAZY = 0x1;
const RTLD_NOLOAD = 0x4;
const RTLD_NODELETE = 0x1000;
const RTLD_DI_LINKMAP = 2;

const loader = {
  dlopen: { parameters: ["buffer", "i32"], result: "u64", optional: true },
  dlinfo: { parameters: ["u64", "i32", "buffer"], result: "i32", optional: true },
} as const satisfies Deno.ForeignLibraryInterface;

let loaderSymbols: Deno.DynamicLibrary<typeof loader>["symbols"] | null | undefined;

/**
 * Keeps a library that is open in the process even if every worker that opened it ends: Deno closes a
 * worker's libraries with it, and a native thread that is inside would crash.
 * @returns the path of its file, null where the C library does not tell
 */
function pin(path: string): string | null {
  loaderSymbols ??= Deno.build.os === "linux" ? openLibC(loader) : null;
  const { dlopen, dlinfo } = loaderSymbols ?? {};
  const flags = RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE;
  const handle = dlopen?.(new TextEncoder().encode(`${path}\0`), flags) ?? 0n;
  if (handle === 0n) return null;
  const linkMap = new BigUint64Array(1);
  if (dlinfo?.(handle, RTLD_DI_LINKMAP, linkMap) !== 0) return null;
  // struct link_map: l_addr@0, l_name@8.
  const map = new Deno.UnsafePointerView(Deno.UnsafePointer.create(linkMap[0])!);
  const file = map.getPointer(8);
  return file === null ? null : Deno.UnsafePointerView.getCString(file) || null;
}
