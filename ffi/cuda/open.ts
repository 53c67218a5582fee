/** The choice between the two libraries of CUDA. */
import { LibraryNotFoundError, type OpenOptions } from "../library.ts";
import type { Cuda } from "./cuda.ts";
import { openCudart } from "./cudart.ts";
import { openDriver } from "./driver.ts";
import { DriverTooOldError, NoDriverError } from "./errors.ts";

/**
 * libcudart; libcuda where the host has no libcudart, or none that its driver can serve.
 * @throws {NoDriverError} if the host has no NVIDIA driver
 * @throws {CudaError} if the driver does not come up
 */
export function openCuda(options: OpenOptions = {}): Cuda {
  let reason: LibraryNotFoundError | DriverTooOldError;
  try {
    return openCudart(options);
  } catch (error) {
    const next = error instanceof LibraryNotFoundError || error instanceof DriverTooOldError;
    if (!next) throw error;
    reason = error;
  }
  try {
    return openDriver(options);
  } catch (error) {
    if (!(error instanceof LibraryNotFoundError)) throw error;
    if (reason instanceof DriverTooOldError) throw reason;
    throw new NoDriverError(`${error.message}\n${reason.message}`);
  }
}
