import {
  LibraryNotFoundError,
  LibraryVersionError,
  type OpenOptions,
} from "../../../ffi/library.ts";
import { LocalRanks } from "../../../ffi/nccl/local_ranks.ts";
import { Nccl, NcclError } from "../../../ffi/nccl/nccl.ts";
import { UnavailableError, UsageError } from "../../core/errors.ts";
import { keepToHost } from "../../kv/transfer/nccl/interfaces.ts";

/**
 * Opens NCCL, and communicators between devices of this host, which this thread drives.
 * @throws {UsageError} the host has no NCCL, or it does not take the devices
 * @throws {UnavailableError} NCCL cannot be used now
 */
export function openCommunicators(devices: readonly number[], libraries: OpenOptions): LocalRanks {
  keepToHost("127.0.0.1");
  const option = `--tensor-parallel-size ${devices.length}`;
  try {
    return new LocalRanks(Nccl.open(libraries), devices);
  } catch (error) {
    if (error instanceof LibraryNotFoundError || error instanceof LibraryVersionError) {
      throw new UsageError(`${option} needs NCCL: ${error.message}`, { cause: error });
    }
    if (!(error instanceof NcclError)) throw error;
    throw new UnavailableError(`${option}: ${error.message}`, { cause: error });
  }
}

/** Ends communicators, once nothing is under way. What NCCL cannot end stays until the process ends. */
export async function endCommunicators(communicators: LocalRanks | null): Promise<void> {
  try {
    await communicators?.close();
  } catch (error) {
    if (!(error instanceof NcclError)) throw error;
  }
}
