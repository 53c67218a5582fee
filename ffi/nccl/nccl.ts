/**
 * libnccl as it is: point-to-point transfers between two ranks over nonblocking communicators, and the
 * all-gather of the devices of one process over blocking ones. The rules of when to call what are in
 * `pair.ts` and `local_ranks.ts`.
 */
import { type Library, LibraryVersionError, openLibrary, type OpenOptions } from "../library.ts";
import { libraries } from "../library_search.ts";
import { textAt } from "../memory.ts";
import { ncclSymbols } from "./symbols.ts";

/** Bytes of an `ncclUniqueId`. */
export const uniqueIdBytes = 128;

/** `ncclResult_t` by its names in C. */
export const ncclResults = {
  ncclSuccess: 0,
  ncclUnhandledCudaError: 1,
  ncclSystemError: 2,
  ncclInternalError: 3,
  ncclInvalidArgument: 4,
  ncclInvalidUsage: 5,
  ncclRemoteError: 6,
  ncclInProgress: 7,
} as const;
const resultNames = Object.keys(ncclResults);

/** Counts are bytes. */
export const ncclUint8 = 1;

/** "inProgress": NCCL goes on in the background. Poll `asyncState` until it is "success". */
export type NcclState = "success" | "inProgress";

/** A failed call of NCCL, or the failure that a communicator has come to. */
export class NcclError extends Error {
  override readonly name = "NcclError";
  constructor(
    /** The function that returned the error. */
    readonly call: string,
    /** `ncclResult_t`. */
    readonly code: number,
    /** NCCL's own text of `code`. */
    readonly text: string,
    /** NCCL's text of its latest failure, "" if it has none. */
    readonly detail: string,
  ) {
    const codeName = resultNames[code] ?? "unknown";
    super(`${call}: ${text} (${codeName}, ${code})${detail === "" ? "" : `; ${detail}`}`);
  }
}

/** Settings of a communicator, `ncclConfig_t`. */
export interface CommunicatorConfig {
  /** False by default. A blocking call stays inside NCCL for as long as its peer does not answer. */
  readonly blocking?: boolean;
  /** Bounds on the thread blocks that a transfer takes from the device. */
  readonly minCtas?: number;
  readonly maxCtas?: number;
}

/** NCCL_CONFIG_UNDEF_INT: NCCL takes its own default. */
export const configUnset = -0x80000000;

/** Layout of `ncclConfig_t` up to splitShare: the form that every NCCL since 2.18.3 accepts. */
export const configLayout = {
  byteLength: 48,
  size: 0,
  magic: 8,
  version: 12,
  blocking: 16,
  cgaClusterSize: 20,
  minCtas: 24,
  maxCtas: 28,
  netName: 32,
  splitShare: 40,
} as const;

/** NCCL_API_MAGIC. */
export const configMagic = 0xcafebeef;
/** 2.18.3, the first version whose `ncclConfig_t` has these 48 bytes. */
const configVersion = 21803;

/** The bytes of an `ncclConfig_t`. */
export function encodeConfig(config: CommunicatorConfig): Uint8Array<ArrayBuffer> {
  const { minCtas = configUnset, maxCtas = configUnset, blocking = false } = config;
  for (const [name, value] of [["minCtas", minCtas], ["maxCtas", maxCtas]] as const) {
    if (value !== configUnset && !(Number.isInteger(value) && value >= 1 && value <= 64)) {
      throw new RangeError(`${name} is ${value}; expected an integer from 1 to 64`);
    }
  }
  const view = new DataView(new ArrayBuffer(configLayout.byteLength));
  view.setBigUint64(configLayout.size, BigInt(configLayout.byteLength), true);
  view.setUint32(configLayout.magic, configMagic, true);
  view.setUint32(configLayout.version, configVersion, true);
  view.setInt32(configLayout.blocking, blocking ? 1 : 0, true);
  view.setInt32(configLayout.cgaClusterSize, configUnset, true);
  view.setInt32(configLayout.minCtas, minCtas, true);
  view.setInt32(configLayout.maxCtas, maxCtas, true);
  view.setInt32(configLayout.splitShare, configUnset, true);
  return new Uint8Array(view.buffer);
}

/** libnccl. A communicator is a handle; a call on an aborted or destroyed one crashes. */
export class Nccl {
  readonly #library: Library<typeof ncclSymbols>;
  readonly #handle = new BigUint64Array(1);
  readonly #word = new Int32Array(1);
  /** Version as NCCL codes it: 23203 is 2.32.3. */
  readonly version: number;

  /** @throws {LibraryNotFoundError} {@linkcode LibraryVersionError} before 2.18.3 */
  static open(options: OpenOptions = {}): Nccl {
    return new Nccl(openLibrary(libraries.nccl, ncclSymbols, options));
  }

  private constructor(library: Library<typeof ncclSymbols>) {
    this.#library = library;
    this.#check("ncclGetVersion", this.#call.ncclGetVersion(this.#word));
    this.version = this.#word[0];
    if (this.version < configVersion) {
      const { name, path } = library;
      const { install } = libraries.nccl;
      throw new LibraryVersionError(name, path, this.versionText, "2.18.3 or later", install);
    }
  }

  /** Where the library is, and whether it is the software device's. */
  get library(): Pick<Library<typeof ncclSymbols>, "name" | "path" | "softwareDevice"> {
    return this.#library;
  }

  /** "2.32.3". */
  get versionText(): string {
    const { version } = this;
    return `${Math.floor(version / 10000)}.${Math.floor(version / 100) % 100}.${version % 100}`;
  }

  /**
   * A new id, [128] bytes, for the ranks of one communicator. Each id that no communicator uses keeps
   * a thread, a port and a descriptor until the process ends.
   */
  uniqueId(): Uint8Array<ArrayBuffer> {
    const id = new Uint8Array(uniqueIdBytes);
    this.#check("ncclGetUniqueId", this.#call.ncclGetUniqueId(id));
    return id;
  }

  /**
   * Begins a communicator of `ranks` ranks on the calling thread's device.
   * @param id of `uniqueId`, the same for all ranks
   * @returns its handle; nonblocking ones are ready once `asyncState` says "success"
   */
  initRank(
    ranks: number,
    id: Uint8Array<ArrayBuffer>,
    rank: number,
    config: CommunicatorConfig = {},
  ): bigint {
    if (id.length !== uniqueIdBytes) {
      throw new RangeError(`an NCCL id has ${uniqueIdBytes} bytes, not ${id.length}`);
    }
    const { ncclCommInitRankConfig } = this.#call;
    const settings = encodeConfig(config);
    this.#handle[0] = 0n;
    const code = ncclCommInitRankConfig(this.#handle, ranks, id, rank, settings);
    this.#check("ncclCommInitRankConfig", code);
    return this.#handle[0];
  }

  /**
   * Makes the communicators of a rank for each device, all of this process, and waits until they are ready.
   * They are blocking: calls for several ranks of one thread are between `groupStart` and `groupEnd`.
   * @param devices numbers of the devices, each once
   * @returns their handles, by rank
   */
  initAll(devices: readonly number[]): bigint[] {
    const handles = new BigUint64Array(devices.length);
    const list = Int32Array.from(devices);
    const code = this.#call.ncclCommInitAll(handles, devices.length, list);
    this.#check("ncclCommInitAll", code);
    return [...handles];
  }

  /** What the latest call on a nonblocking communicator has come to. @throws {NcclError} its failure */
  asyncState(communicator: bigint): NcclState {
    const code = this.#call.ncclCommGetAsyncError(communicator, this.#word);
    this.#check("ncclCommGetAsyncError", code, communicator);
    return this.#check("ncclCommGetAsyncError", this.#word[0], communicator);
  }

  groupStart(): void {
    this.#check("ncclGroupStart", this.#call.ncclGroupStart());
  }

  /** Posts the sends and receives since `groupStart` together. */
  groupEnd(): NcclState {
    return this.#check("ncclGroupEnd", this.#call.ncclGroupEnd());
  }

  /** Sends `byteLength` bytes at a device address to rank `peer`, in the order of `stream`. */
  send(
    address: bigint,
    byteLength: number,
    peer: number,
    communicator: bigint,
    stream: bigint,
  ): NcclState {
    const count = BigInt(byteLength);
    const code = this.#call.ncclSend(address, count, ncclUint8, peer, communicator, stream);
    return this.#check("ncclSend", code, communicator);
  }

  /** Receives `byteLength` bytes of rank `peer` at a device address, in the order of `stream`. */
  receive(
    address: bigint,
    byteLength: number,
    peer: number,
    communicator: bigint,
    stream: bigint,
  ): NcclState {
    const count = BigInt(byteLength);
    const code = this.#call.ncclRecv(address, count, ncclUint8, peer, communicator, stream);
    return this.#check("ncclRecv", code, communicator);
  }

  /**
   * Writes what each rank sends, `byteLength` bytes, to `to` [ranks, byteLength], in the order of `stream`. `from`
   * may be the rank's own place in `to`.
   */
  allGather(
    from: bigint,
    to: bigint,
    byteLength: number,
    communicator: bigint,
    stream: bigint,
  ): NcclState {
    const count = BigInt(byteLength);
    const code = this.#call.ncclAllGather(from, to, count, ncclUint8, communicator, stream);
    return this.#check("ncclAllGather", code, communicator);
  }

  /** Begins the orderly end of a communicator; `destroy` follows once `asyncState` says "success". */
  finalize(communicator: bigint): NcclState {
    const code = this.#call.ncclCommFinalize(communicator);
    return this.#check("ncclCommFinalize", code, communicator);
  }

  /**
   * Ends a communicator in any state, on a thread of the FFI pool: the call may wait for the device. The
   * handle is invalid from the call on.
   */
  async abort(communicator: bigint): Promise<void> {
    this.#check("ncclCommAbort", await this.#call.ncclCommAbort(communicator));
  }

  /** Frees a communicator that was finalised, on a thread of the FFI pool: it may wait. */
  async destroy(communicator: bigint): Promise<void> {
    this.#check("ncclCommDestroy", await this.#call.ncclCommDestroy(communicator));
  }

  /** NCCL's text of the latest failure, of any communicator if none is given; "" if there is none. */
  lastError(communicator = 0n): string {
    return textAt(this.#call.ncclGetLastError(communicator)).trim();
  }

  get #call() {
    return this.#library.symbols;
  }

  #check(call: string, code: number, communicator = 0n): NcclState {
    if (code === ncclResults.ncclSuccess) return "success";
    if (code === ncclResults.ncclInProgress) return "inProgress";
    const text = textAt(this.#call.ncclGetErrorString(code));
    throw new NcclError(call, code, text, this.lastError(communicator));
  }
}
