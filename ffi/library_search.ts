/**
 * Where hosts have the libraries of CUDA, NCCL and UCX: system directories, CUDA's own, and the wheels
 * of Python, which are the only place on many hosts.
 */

/** A library by the names under which hosts have it. */
export interface LibraryName {
  /** What people call it: "libcudart". */
  readonly name: string;
  /** Sonames, the best one first. */
  readonly sonames: readonly string[];
  /** Environment variable with a file or directory. If set, nothing else is searched. */
  readonly variable: string;
  /** Part of an error message: how to get it. */
  readonly install: string;
}

const cudaVariable = "LLUMNIX_CUDA_LIBRARIES";

/** The libraries that this package binds. */
export const libraries = {
  cuda: {
    name: "libcuda",
    sonames: ["libcuda.so.1"],
    variable: cudaVariable,
    install: "It comes with the NVIDIA driver: install the driver.",
  },
  cudart: {
    name: "libcudart",
    sonames: ["libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"],
    variable: cudaVariable,
    install: "Install the CUDA runtime, for example `pip install nvidia-cuda-runtime`.",
  },
  nccl: {
    name: "libnccl",
    sonames: ["libnccl.so.2"],
    variable: cudaVariable,
    install: "Install NCCL, for example `pip install nvidia-nccl-cu13`.",
  },
  cublasLt: {
    name: "libcublasLt",
    sonames: ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"],
    variable: cudaVariable,
    install: "Install cuBLAS, for example `pip install nvidia-cublas`.",
  },
  ucp: {
    name: "libucp",
    sonames: ["libucp.so.0"],
    variable: "LLUMNIX_UCX_LIBRARIES",
    install: "Install UCX, for example `pip install libucx-cu13` or `apt install libucx0`.",
  },
} as const satisfies Record<string, LibraryName>;

/** The places of the search, for messages. */
export const searchedPatterns = [
  "ldconfig -p",
  "$CUDA_HOME/lib64",
  "/usr/local/cuda*/lib64",
  "<python>/lib/python*/site-packages/{nvidia/*/lib,libucx/lib,*.libs}",
  "/usr/local/nvidia/lib64",
] as const;

/** What the search sees of a host. */
export interface SearchPlaces {
  /** Prefix of every absolute path that is searched: "" but in tests. */
  readonly root: string;
  /** Whether the loader is asked for bare sonames first. False only in tests. */
  readonly loader: boolean;
  variable(name: string): string | undefined;
  /** The output of `ldconfig -p`, "" where it does not run. */
  ldconfig(): string;
}

/** This host. */
export const systemPlaces: SearchPlaces = {
  root: "",
  loader: true,
  variable: (name) => Deno.env.get(name),
  ldconfig() {
    for (const command of ["ldconfig", "/sbin/ldconfig"]) {
      try {
        const { success, stdout } = new Deno.Command(command, { args: ["-p"] }).outputSync();
        if (success) return new TextDecoder().decode(stdout);
      } catch {
        // The next name may run; without any, the other places remain.
      }
    }
    return "";
  },
};

/**
 * What to give to dlopen for `library`, best first: sonames (the loader searches), then files that
 * exist. With `from`, or with the library's environment variable, only that place.
 */
export function* candidates(
  library: LibraryName,
  from: string | undefined,
  places: SearchPlaces,
): Generator<string> {
  const only = explicitPlace(library, from, places);
  if (only !== undefined) {
    yield* explicitCandidates(library, only);
    return;
  }
  if (places.loader) yield* library.sonames;
  yield* installedFiles(library, places);
}

/**
 * The only place to search, if the caller or the user gives one. The variable serves several libraries:
 * a file in it counts for the library whose name the file has.
 */
export function explicitPlace(
  library: LibraryName,
  from: string | undefined,
  places: SearchPlaces,
): string | undefined {
  if (from !== undefined) return from;
  const given = places.variable(library.variable);
  if (!given) return undefined;
  const file = given.slice(given.lastIndexOf("/") + 1);
  const others = Object.values<LibraryName>(libraries).filter(({ name }) => name !== library.name);
  const ofAnother = others.some(({ name }) => file.startsWith(`${name}.`));
  return ofAnother ? undefined : given;
}

function explicitCandidates(library: LibraryName, only: string): string[] {
  if (!isDirectory(only)) return [only];
  return library.sonames.map((soname) => `${only}/${soname}`);
}

/** Files of `library` on this host, best first. A file with several links is listed once. */
export function* installedFiles(library: LibraryName, places: SearchPlaces): Generator<string> {
  const seen = new Set<string>();
  function* fresh(paths: Iterable<string>): Generator<string> {
    for (const path of paths) {
      const real = realPath(path);
      if (real === null || seen.has(real)) continue;
      seen.add(real);
      yield path;
    }
  }
  // ldconfig runs a process: only if the caller comes this far.
  yield* fresh(filesOfLdconfig(library, places));
  const directories = searchedDirectories(places);
  for (const soname of library.sonames) {
    yield* fresh(directories.flatMap((directory) => filesIn(directory, soname)));
  }
}

/** Existing directories that `installedFiles` searches after the files of ldconfig. */
export function searchedDirectories(places: SearchPlaces): string[] {
  return [
    ...cudaDirectories(places),
    ...sitePackages(places).flatMap((site) => [
      ...expand(`${site}/nvidia/*/lib`),
      ...expand(`${site}/libucx/lib`),
      ...expand(`${site}/*.libs`),
    ]),
    ...["lib64", "lib"].map((lib) => `${places.root}/usr/local/nvidia/${lib}`),
  ].filter(isDirectory);
}

/** Paths of `ldconfig -p` lines: "\tlibcudart.so.12 (libc6,x86-64) => /usr/lib/libcudart.so.12". */
function filesOfLdconfig(library: LibraryName, places: SearchPlaces): string[] {
  const lines = places.ldconfig().split("\n").flatMap((line) => {
    const [, soname, path] = /^\s*(\S+) \(.*\) => (\S+)$/.exec(line) ?? [];
    return soname === undefined ? [] : [{ soname, path }];
  });
  return library.sonames.flatMap((soname) =>
    lines.filter((line) => line.soname === soname).map(({ path }) => places.root + path)
  );
}

function cudaDirectories({ root, variable }: SearchPlaces): string[] {
  const given = ["CUDA_HOME", "CUDA_PATH"].flatMap((name) => variable(name) || []);
  // The newest version first, by name: cuda-13.0 before cuda-12.9.
  const installed = expand(`${root}/usr/local/cuda*`).reverse();
  return [...given, ...installed].flatMap((home) => [
    `${home}/lib64`,
    `${home}/lib`,
    ...expand(`${home}/targets/*/lib`),
  ]);
}

/** Directories of Python packages: the active environment, Pythons on PATH, the usual places. */
function sitePackages({ root, variable }: SearchPlaces): string[] {
  const home = variable("HOME");
  const prefixes = [
    ...["VIRTUAL_ENV", "CONDA_PREFIX"].flatMap((name) => variable(name) || []),
    ...(variable("PATH") ?? "").split(":").filter((path) => path.startsWith("/")).flatMap(
      (path) => {
        const python = realPath(`${path}/python3`);
        return python === null ? [] : [`${path}/..`, python.replace(/\/[^/]+\/[^/]+$/, "")];
      },
    ),
    ...(home ? [`${home}/.local`] : []),
    ...["/usr/local", "/usr", "/opt/conda"].map((path) => root + path),
    ...expand(`${variable("PYENV_ROOT") ?? `${home}/.pyenv`}/versions/*`),
  ];
  const sites = prefixes.flatMap((prefix) => [
    ...expand(`${prefix}/lib/python*/site-packages`),
    ...expand(`${prefix}/lib/python*/dist-packages`),
  ]);
  return [...new Set(sites.flatMap((site) => realPath(site) ?? []))];
}

/**
 * Files of a directory that are `soname`, under it or, in a wheel that bundles its libraries, under a
 * name with a hash: libucp-1a2b3c4d.so.0.0.0 for libucp.so.0.
 */
function filesIn(directory: string, soname: string): string[] {
  const [, stem, version] = /^(.*)\.so\.(.*)$/.exec(soname)!;
  return names(directory).filter((name) => {
    if (name === soname) return true;
    return name.startsWith(`${stem}-`) && name.slice(stem.length).includes(`.so.${version}`);
  }).map((name) => `${directory}/${name}`);
}

/** Paths that exist for a pattern in which "*" stands for any part of one name, sorted. */
function expand(pattern: string): string[] {
  let paths = [""];
  for (const part of pattern.split("/").slice(1)) {
    if (!part.includes("*")) {
      paths = paths.map((path) => `${path}/${part}`);
      continue;
    }
    const [before, after] = part.split("*");
    paths = paths.flatMap((path) =>
      names(path).filter((name) =>
        name.length >= part.length - 1 && name.startsWith(before) && name.endsWith(after)
      ).map((name) => `${path}/${name}`)
    );
  }
  return paths.filter(isDirectory);
}

function names(directory: string): string[] {
  try {
    return [...Deno.readDirSync(directory)].map((entry) => entry.name).sort();
  } catch {
    return [];
  }
}

function isDirectory(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}

function realPath(path: string): string | null {
  try {
    return Deno.realPathSync(path);
  } catch {
    return null;
  }
}
