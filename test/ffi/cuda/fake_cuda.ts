/** libcudart and libcuda that do nothing but answer with chosen codes and record batched copies. */
import { cudartSymbols } from "../../../ffi/cuda/cudart.ts";
import { identitySymbols } from "../../../ffi/cuda/device_identities.ts";
import { driverSymbols } from "../../../ffi/cuda/driver.ts";
import { graphSymbols } from "../../../ffi/cuda/graphs.ts";
import { kernelSymbols } from "../../../ffi/cuda/kernels.ts";
import { compileLibrary, fakeSource } from "../fake_library.ts";

const batch =
  "void *dsts, void *srcs, void *sizes, size_t count, int *attrs, size_t *idxs, size_t n";

/** Records of a fake library, by `recorded`. */
const records = `
uint64_t batches, batch_stream, batch_count, batch_order, singles;
static int record(const char *name, size_t count, int *attrs, uint64_t stream) {
  if (answer(name)) return answer(name);
  batches++; batch_count = count; batch_order = attrs[0]; batch_stream = stream;
  return 0;
}
int single(const char *name) { singles++; return answer(name); }
`;

/** A libcudart of a version, for a driver of a version. */
export async function fakeCudart(path: string, version: number, driver: number): Promise<void> {
  const old = version < 13000 ? ", size_t *fail" : "";
  await compileLibrary(
    path,
    fakeSource(
      [cudartSymbols],
      `${records}
int cudaRuntimeGetVersion(int *v) { *v = ${version}; return 0; }
int cudaDriverGetVersion(int *v) { *v = ${driver}; return 0; }
int cudaGetDeviceCount(int *n) { *n = 1; return answer("cudaGetDeviceCount"); }
const char *cudaGetErrorName(int code) { return "cudaErrorOfFake"; }
const char *cudaGetErrorString(int code) { return "a text of the library"; }
int cudaMemGetInfo(size_t *free, size_t *total) { *free = 3 << 20; *total = 8 << 20; return 0; }
int cudaMemcpyAsync() { return single("cudaMemcpyAsync"); }
int cudaMemcpyBatchAsync(${batch}${old}, uint64_t stream) {
  return record("cudaMemcpyBatchAsync", count, attrs, stream);
}`,
    ),
  );
}

/** A libcuda; `batched` says which form of batched copies it has. */
export async function fakeLibcuda(
  path: string,
  { driver = 13000, batched = "new" as "new" | "old" } = {},
): Promise<void> {
  const tables = [driverSymbols, identitySymbols, kernelSymbols, graphSymbols];
  const old = `int cuMemcpyBatchAsync(${batch}, size_t *fail, uint64_t stream) {
  return record("cuMemcpyBatchAsync", count, attrs, stream);
}`;
  // A function that is only declared is not exported.
  const absent = "int cuMemcpyBatchAsync_v2();";
  const withNew = `int cuMemcpyBatchAsync_v2(${batch}, uint64_t stream) {
  return record("cuMemcpyBatchAsync_v2", count, attrs, stream);
}`;
  await compileLibrary(
    path,
    fakeSource(
      tables,
      `${records}${old}
${batched === "new" ? withNew : absent}
int cuDriverGetVersion(int *v) { *v = ${driver}; return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return answer("cuDeviceGetCount"); }
int cuGetErrorName(int code, const char **text) { *text = "CUDA_ERROR_OF_FAKE"; return 0; }
int cuGetErrorString(int code, const char **text) { *text = "a text of the driver"; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 3 << 20; *total = 8 << 20; return 0; }
int cuMemcpyAsync() { return single("cuMemcpyAsync"); }
${kernels}`,
    ),
  );
}

/** A kernel of a pointer, an integer, a float and an integer, whose launches are recorded. */
const kernels = `
uint64_t grid_x, grid_z, block_y, shared, stream, attributes, first_attribute, first_value;
uint64_t pointer, small, real, argument_bytes, second_attribute;
int cuFuncGetParamInfo(void *f, size_t i, size_t *offset, size_t *size) {
  static const size_t at[] = {0, 8, 12, 16}, sizes[] = {8, 4, 4, 4};
  if (i >= 4) return 1;
  *offset = at[i]; *size = sizes[i];
  return 0;
}
int cuModuleGetFunction(uint64_t *f, uint64_t module, const char *name) {
  *f = 77; return strcmp(name, "scale") == 0 ? 0 : 500;
}
int cuModuleLoadDataEx(uint64_t *m, const char *image, unsigned n, int *options, void **values) {
  if (strncmp(image, ".version", 8) == 0) { *m = 5; return 0; }
  if (n == 2 && options[0] == 5) strncpy(values[0], "ptxas: line 1: syntax error", (size_t)values[1]);
  return 218;
}
int cuLaunchKernelEx(char *config, uint64_t f, void **params, void **extra) {
  int code = answer("cuLaunchKernelEx");
  if (code) return code;
  grid_x = *(unsigned *)(config); grid_z = *(unsigned *)(config + 8);
  block_y = *(unsigned *)(config + 16); shared = *(unsigned *)(config + 24);
  stream = *(uint64_t *)(config + 32); attributes = *(unsigned *)(config + 48);
  char *attribute = *(char **)(config + 40);
  first_attribute = *(int *)attribute; first_value = *(int *)(attribute + 8);
  second_attribute = *(int *)(attribute + 72);
  if ((size_t)extra[0] != 1 || (size_t)extra[2] != 2 || extra[4]) return 1;
  char *arguments = extra[1];
  argument_bytes = *(size_t *)extra[3];
  pointer = *(uint64_t *)arguments; small = *(unsigned *)(arguments + 8);
  real = *(unsigned *)(arguments + 12);
  return 0;
}`;
