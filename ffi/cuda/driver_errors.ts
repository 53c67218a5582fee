/** Errors of libcuda, which gives their texts through pointers to pointers. */
import type { Library } from "../library.ts";
import { textAt } from "../memory.ts";
import { CudaError, errorCodes, errorOf } from "./errors.ts";

export const driverErrorSymbols = {
  cuGetErrorName: { parameters: ["i32", "buffer"], result: "i32" },
  cuGetErrorString: { parameters: ["i32", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

type Symbols = Library<typeof driverErrorSymbols>["symbols"];

/** libcuda's name and text of an error code. */
export function describeDriverError(
  call: Symbols,
  code: number,
): { readonly codeName: string; readonly text: string } {
  const text = new BigUint64Array(1);
  const read = (status: number) =>
    status === errorCodes.CUDA_SUCCESS
      ? textAt(Deno.UnsafePointer.create(text[0]))
      : "unknown error";
  return {
    codeName: read(call.cuGetErrorName(code, text)),
    text: read(call.cuGetErrorString(code, text)),
  };
}

/** The error of a failed call; `log` is a text of the driver, if there is one. */
export function driverFailure(call: Symbols, name: string, code: number, log = ""): CudaError {
  const failure = { call: name, code, ...describeDriverError(call, code) };
  return log === "" ? errorOf(failure) : new CudaError(failure, log);
}
