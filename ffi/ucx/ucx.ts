/**
 * UCX: one-sided puts and gets between processes, over shared memory, TCP, InfiniBand or CUDA IPC.
 * The library chooses among the transports that reach both memories.
 *
 * A context and all that comes of it belong to one thread.
 */
import { type Library, LibraryVersionError, openLibrary, type OpenOptions } from "../library.ts";
import { libraries } from "../library_search.ts";
import { cString } from "../memory.ts";
import { UcxCalls } from "./calls.ts";
import { UcxContext } from "./context.ts";
import { contextParams, struct, ucpConstants as ucp } from "./layouts.ts";
import { ucpSymbols } from "./symbols.ts";

/** The memory of a pool, `ucs_memory_type_t`. */
export type MemoryType = "host" | "cuda";

/** Settings of a context. */
export interface ContextOptions {
  /**
   * Settings by UCX's own names without "UCX_", before the environment's: `{ TLS: "tcp" }` leaves
   * only TCP. `ucx_info -c` lists them. UCX 1.13 ignores unknown ones.
   */
  readonly settings?: Readonly<Record<string, string>>;
}

/**
 * UCX reads these when it is loaded. Unless the user has set them: no signal handlers, which would
 * catch Deno's signals; no hooks of malloc and mmap; no files under /tmp; no log lines on stdout.
 */
const environment = {
  UCX_HANDLE_ERRORS: "none",
  UCX_ERROR_SIGNALS: "",
  UCX_MEM_EVENTS: "n",
  UCX_MEM_MMAP_HOOK_MODE: "none",
  UCX_VFS_ENABLE: "n",
  UCX_LOG_FILE: "stderr",
};

/** The version of the API that the signatures and structs here are of: UCX 1.13. */
const apiMajor = 1, apiMinor = 13;

/**
 * libucp. One process should open one file of it: a second one would get the first one's libucs, which
 * has the same soname.
 */
export class Ucx {
  readonly #library: Library<typeof ucpSymbols>;
  readonly #calls: UcxCalls;
  /** "1.22.0". */
  readonly version: string;

  /** @throws {LibraryNotFoundError} {@linkcode LibraryVersionError} unless 1.13 or later, below 2 */
  static open(options: OpenOptions = {}): Ucx {
    for (const [name, value] of Object.entries(environment)) {
      if (Deno.env.get(name) === undefined) Deno.env.set(name, value);
    }
    return new Ucx(openLibrary(libraries.ucp, ucpSymbols, options));
  }

  private constructor(library: Library<typeof ucpSymbols>) {
    this.#library = library;
    this.#calls = new UcxCalls(library.symbols);
    const parts = [0, 1, 2].map(() => new Uint32Array(1));
    library.symbols.ucp_get_version(parts[0], parts[1], parts[2]);
    this.version = parts.map(([part]) => part).join(".");
    const [[major], [minor]] = parts;
    if (major !== apiMajor || minor < apiMinor) {
      const { name, path } = library;
      const needed = `${apiMajor}.${apiMinor} or a later ${apiMajor}.x`;
      throw new LibraryVersionError(name, path, this.version, needed, libraries.ucp.install);
    }
  }

  /** Where the library is. */
  get library(): Pick<Library<typeof ucpSymbols>, "name" | "path" | "softwareDevice"> {
    return this.#library;
  }

  /**
   * A context with remote memory access and wakeup by descriptor.
   * @throws {UcxError} if a setting is unknown or has no such value, or no transport of them is there
   */
  createContext({ settings = {} }: ContextOptions = {}): UcxContext {
    const { symbols } = this.#library;
    const handle = new BigUint64Array(1);
    this.#calls.check("ucp_config_read", symbols.ucp_config_read(null, null, handle));
    const config = handle[0];
    try {
      for (const [name, value] of Object.entries(settings)) {
        const code = symbols.ucp_config_modify(config, cString(name), cString(value));
        this.#calls.check(`ucp_config_modify(${name}=${value})`, code);
      }
      const params = struct((view) => {
        view.setBigUint64(contextParams.fieldMask, BigInt(ucp.UCP_PARAM_FIELD_FEATURES), true);
        const features = BigInt(ucp.UCP_FEATURE_RMA | ucp.UCP_FEATURE_WAKEUP);
        view.setBigUint64(contextParams.features, features, true);
      });
      const code = symbols.ucp_init_version(apiMajor, apiMinor, params, config, handle);
      this.#calls.check("ucp_init", code);
    } finally {
      symbols.ucp_config_release(config);
    }
    return new UcxContext(this.#calls, handle[0]);
  }
}
