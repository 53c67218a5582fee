// cuda* functions of the runtime, over the cu* functions. Built once per version of the runtime:
// RUNTIME_VERSION is 13000 or 12090.
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "memory.h"
#include "status.h"

#define CU(declaration) extern "C" int declaration;
#define CUDA_API extern "C" __attribute__((visibility("default"))) int

using namespace soft;

CU(cuInit(unsigned))
CU(cuDriverGetVersion(int*))
CU(cuDeviceGetCount(int*))
CU(cuDeviceGetAttribute(int*, int, int))
CU(cuDeviceGetPCIBusId(char*, int, int))
CU(cuDeviceCanAccessPeer(int*, int, int))
CU(cuDevicePrimaryCtxRetain(uint64_t*, int))
CU(cuDevicePrimaryCtxGetState(int, unsigned*, int*))
CU(cuDevicePrimaryCtxSetFlags_v2(int, unsigned))
CU(cuCtxSetCurrent(uint64_t))
CU(cuCtxGetCurrent(uint64_t*))
CU(cuCtxGetDevice(int*))
CU(cuCtxSynchronize())
CU(cuCtxGetStreamPriorityRange(int*, int*))
CU(cuCtxEnablePeerAccess(uint64_t, unsigned))
CU(cuCtxDisablePeerAccess(uint64_t))
CU(cuMemGetInfo_v2(size_t*, size_t*))
CU(cuMemAlloc_v2(uint64_t*, size_t))
CU(cuMemFree_v2(uint64_t))
CU(cuMemHostAlloc(uint64_t*, size_t, unsigned))
CU(cuMemFreeHost(uint64_t))
CU(cuMemHostRegister_v2(uint64_t, size_t, unsigned))
CU(cuMemHostUnregister(uint64_t))
CU(cuMemHostGetDevicePointer_v2(uint64_t*, uint64_t, unsigned))
CU(cuMemcpy(uint64_t, uint64_t, size_t))
CU(cuMemcpyAsync(uint64_t, uint64_t, size_t, uint64_t))
CU(cuMemcpy2DAsync_v2(const void*, uint64_t))
CU(cuMemcpyBatchAsync(const uint64_t*, const uint64_t*, const size_t*, size_t, const void*,
                      const size_t*, size_t, size_t*, uint64_t))
CU(cuMemsetD8Async(uint64_t, unsigned char, size_t, uint64_t))
CU(cuPointerGetAttribute(void*, int, uint64_t))
CU(cuIpcGetMemHandle(SharedName*, uint64_t))
CU(cuIpcOpenMemHandle_v2(uint64_t*, SharedName, unsigned))
CU(cuIpcCloseMemHandle(uint64_t))
CU(cuIpcGetEventHandle(SharedName*, uint64_t))
CU(cuIpcOpenEventHandle(uint64_t*, SharedName))
CU(cuStreamCreateWithPriority(uint64_t*, unsigned, int))
CU(cuStreamDestroy_v2(uint64_t))
CU(cuStreamSynchronize(uint64_t))
CU(cuStreamQuery(uint64_t))
CU(cuStreamWaitEvent(uint64_t, uint64_t, unsigned))
CU(cuStreamGetPriority(uint64_t, int*))
CU(cuStreamGetFlags(uint64_t, unsigned*))
CU(cuStreamBeginCapture_v2(uint64_t, int))
CU(cuStreamEndCapture(uint64_t, uint64_t*))
CU(cuStreamIsCapturing(uint64_t, int*))
CU(cuLaunchHostFunc(uint64_t, void (*)(void*), void*))
CU(cuEventCreate(uint64_t*, unsigned))
CU(cuEventDestroy_v2(uint64_t))
CU(cuEventRecord(uint64_t, uint64_t))
CU(cuEventQuery(uint64_t))
CU(cuEventSynchronize(uint64_t))
CU(cuEventElapsedTime_v2(float*, uint64_t, uint64_t))
CU(cuGraphInstantiateWithFlags(uint64_t*, uint64_t, uint64_t))
CU(cuGraphLaunch(uint64_t, uint64_t))
CU(cuGraphGetNodes(uint64_t, uint64_t*, size_t*))
CU(cuGraphDestroy(uint64_t))
CU(cuGraphExecDestroy(uint64_t))

namespace {

thread_local int chosenDevice = 0;
/// What cudaGetLastError gives: the last error of this thread, "not ready" included, as the real one.
thread_local int lastError = Ok;

int noted(int status) {
  if (status != Ok) lastError = status;
  return status;
}

int start() {
  int version = 0;
  cuDriverGetVersion(&version);
  return version < RUNTIME_VERSION / 1000 * 1000 ? int(InsufficientDriver) : cuInit(0);
}

/// Handle of the device's primary context; the runtime retains it once for the process.
int primaryContext(int device, uint64_t* context) {
  static std::mutex mutex;
  static uint64_t contexts[16];
  std::lock_guard lock(mutex);
  unsigned flags = 0;
  int active = 0;
  int status = cuDevicePrimaryCtxGetState(device, &flags, &active);
  if (status == Ok && (contexts[device] == 0 || !active)) {
    status = cuDevicePrimaryCtxRetain(&contexts[device], device);
  }
  *context = contexts[device];
  return status;
}

int useDevice(int device) {
  uint64_t context = 0;
  const int status = primaryContext(device, &context);
  return status == Ok ? cuCtxSetCurrent(context) : status;
}

/// Runs `call` with a context, which the thread's first call makes.
template <class F>
int with(F call) {
  int status = start();
  uint64_t current = 0;
  if (status == Ok) status = cuCtxGetCurrent(&current);
  int device = 0;
  unsigned flags = 0;
  int active = current != 0;
  if (current != 0 && cuCtxGetDevice(&device) == Ok) cuDevicePrimaryCtxGetState(device, &flags, &active);
  if (status == Ok && !active) status = useDevice(chosenDevice);
  return noted(status == Ok ? call() : status);
}

/// cudaMemcpyKind: 0 host to host, 1 to the device, 2 from the device, 3 on the device, 4 by address.
int checkKind(uint64_t to, uint64_t from, int kind) {
  if (kind < 0 || kind > 4) return 21;  // cudaErrorInvalidMemcpyDirection
  if (kind == 4) return Ok;
  auto onDevice = [](uint64_t address) {
    unsigned type = 0;
    return cuPointerGetAttribute(&type, 2, address) == Ok && type == 2;
  };
  const bool toDevice = kind == 1 || kind == 3, fromDevice = kind == 2 || kind == 3;
  return onDevice(to) == toDevice && onDevice(from) == fromDevice ? Ok : InvalidValue;
}

}  // namespace

CUDA_API cudaRuntimeGetVersion(int* version) {
  *version = RUNTIME_VERSION;
  return Ok;
}
CUDA_API cudaDriverGetVersion(int* version) { return cuDriverGetVersion(version); }

CUDA_API cudaGetLastError() {
  const int error = lastError;
  lastError = Ok;
  return error;
}
CUDA_API cudaPeekAtLastError() { return lastError; }

extern "C" __attribute__((visibility("default"))) const char* cudaGetErrorName(int code) {
  const StatusText* text = statusText(code);
  return text == nullptr ? "unrecognized error code" : text->runtimeName;
}
extern "C" __attribute__((visibility("default"))) const char* cudaGetErrorString(int code) {
  const StatusText* text = statusText(code);
  return text == nullptr ? "unrecognized error code" : text->text;
}

CUDA_API cudaGetDeviceCount(int* count) {
  const int status = start();
  if (status != Ok) *count = 0;
  return noted(status == Ok ? cuDeviceGetCount(count) : status);
}
CUDA_API cudaSetDevice(int device) {
  int count = 0;
  int status = start();
  if (status == Ok) status = cuDeviceGetCount(&count);
  if (status == Ok && (device < 0 || device >= count)) status = InvalidDevice;
  if (status == Ok) {
    chosenDevice = device;
    status = useDevice(device);
  }
  return noted(status);
}
CUDA_API cudaGetDevice(int* device) {
  *device = chosenDevice;
  return noted(start());
}
CUDA_API cudaSetDeviceFlags(unsigned flags) {
  const int status = start();
  return noted(status == Ok ? cuDevicePrimaryCtxSetFlags_v2(chosenDevice, flags) : status);
}
CUDA_API cudaDeviceGetAttribute(int* value, int which, int device) {
  const int status = start();
  return noted(status == Ok ? cuDeviceGetAttribute(value, which, device) : status);
}
CUDA_API cudaDeviceGetPCIBusId(char* id, int length, int device) {
  const int status = start();
  return noted(status == Ok ? cuDeviceGetPCIBusId(id, length, device) : status);
}
CUDA_API cudaDeviceSynchronize() {
  return with([] { return cuCtxSynchronize(); });
}
CUDA_API cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return with([=] { return cuCtxGetStreamPriorityRange(least, greatest); });
}
CUDA_API cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  const int status = start();
  return noted(status == Ok ? cuDeviceCanAccessPeer(can, device, peer) : status);
}
CUDA_API cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
  return with([=] {
    int count = 0;
    cuDeviceGetCount(&count);
    if (peer < 0 || peer >= count) return int(InvalidDevice);
    uint64_t context = 0;
    const int status = primaryContext(peer, &context);
    return status == Ok ? cuCtxEnablePeerAccess(context, flags) : status;
  });
}
CUDA_API cudaDeviceDisablePeerAccess(int peer) {
  return with([=] {
    int count = 0;
    cuDeviceGetCount(&count);
    if (peer < 0 || peer >= count) return int(InvalidDevice);
    uint64_t context = 0;
    const int status = primaryContext(peer, &context);
    return status == Ok ? cuCtxDisablePeerAccess(context) : status;
  });
}

CUDA_API cudaMemGetInfo(size_t* free, size_t* total) {
  return with([=] { return cuMemGetInfo_v2(free, total); });
}
CUDA_API cudaMalloc(uint64_t* address, size_t bytes) {
  return with([=] {
    if (address != nullptr) *address = 0;
    return bytes == 0 ? int(Ok) : cuMemAlloc_v2(address, bytes);
  });
}
CUDA_API cudaFree(uint64_t address) {
  return with([=] { return address == 0 ? int(Ok) : cuMemFree_v2(address); });
}
CUDA_API cudaHostAlloc(uint64_t* address, size_t bytes, unsigned flags) {
  return with([=] { return cuMemHostAlloc(address, bytes, flags); });
}
CUDA_API cudaMallocHost(uint64_t* address, size_t bytes) { return cudaHostAlloc(address, bytes, 0); }
CUDA_API cudaFreeHost(uint64_t address) {
  return with([=] { return address == 0 ? int(Ok) : cuMemFreeHost(address); });
}
CUDA_API cudaHostRegister(uint64_t address, size_t bytes, unsigned flags) {
  return with([=] { return cuMemHostRegister_v2(address, bytes, flags); });
}
CUDA_API cudaHostUnregister(uint64_t address) {
  return with([=] { return cuMemHostUnregister(address); });
}
CUDA_API cudaHostGetDevicePointer(uint64_t* address, uint64_t host, unsigned flags) {
  return with([=] { return cuMemHostGetDevicePointer_v2(address, host, flags); });
}

CUDA_API cudaMemcpy(uint64_t to, uint64_t from, size_t bytes, int kind) {
  return with([=] {
    const int valid = checkKind(to, from, kind);
    return valid == Ok ? cuMemcpy(to, from, bytes) : valid;
  });
}
CUDA_API cudaMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, int kind, uint64_t stream) {
  return with([=] {
    const int valid = checkKind(to, from, kind);
    return valid == Ok ? cuMemcpyAsync(to, from, bytes, stream) : valid;
  });
}
CUDA_API cudaMemcpyPeerAsync(uint64_t to, int, uint64_t from, int, size_t bytes, uint64_t stream) {
  return with([=] { return cuMemcpyAsync(to, from, bytes, stream); });
}
CUDA_API cudaMemcpy2DAsync(uint64_t to, size_t toPitch, uint64_t from, size_t fromPitch,
                           size_t widthBytes, size_t height, int kind, uint64_t stream) {
  return with([=] {
    const int valid = checkKind(to, from, kind);
    // CUDA_MEMCPY2D: two sides of x, y, memory type (4: by address), host, device, array, pitch.
    const uint64_t copy[16] = {0, 0, 4, 0,  from, 0,       fromPitch,  0,
                               0, 4, 0, to, 0,    toPitch, widthBytes, height};
    return valid == Ok ? cuMemcpy2DAsync_v2(copy, stream) : valid;
  });
}

#if RUNTIME_VERSION >= 13000
CUDA_API cudaMemcpyBatchAsync(const uint64_t* to, const uint64_t* from, const size_t* bytes,
                              size_t count, const void* attributes, const size_t* firstOf,
                              size_t attributeCount, uint64_t stream) {
  size_t* const failed = nullptr;
#else
CUDA_API cudaMemcpyBatchAsync(const uint64_t* to, const uint64_t* from, const size_t* bytes,
                              size_t count, const void* attributes, const size_t* firstOf,
                              size_t attributeCount, size_t* failed, uint64_t stream) {
#endif
  return with([=] {
    return cuMemcpyBatchAsync(to, from, bytes, count, attributes, firstOf, attributeCount, failed,
                              stream);
  });
}

CUDA_API cudaMemsetAsync(uint64_t to, int value, size_t count, uint64_t stream) {
  return with([=] { return cuMemsetD8Async(to, static_cast<unsigned char>(value), count, stream); });
}
CUDA_API cudaMemset(uint64_t to, int value, size_t count) {
  return cudaMemsetAsync(to, value, count, 0);
}

CUDA_API cudaIpcGetMemHandle(SharedName* handle, uint64_t address) {
  return with([=] { return cuIpcGetMemHandle(handle, address); });
}
CUDA_API cudaIpcOpenMemHandle(uint64_t* address, SharedName handle, unsigned flags) {
  return with([=] { return cuIpcOpenMemHandle_v2(address, handle, flags); });
}
CUDA_API cudaIpcCloseMemHandle(uint64_t address) {
  return with([=] { return cuIpcCloseMemHandle(address); });
}
CUDA_API cudaIpcGetEventHandle(SharedName* handle, uint64_t event) {
  return with([=] { return cuIpcGetEventHandle(handle, event); });
}
CUDA_API cudaIpcOpenEventHandle(uint64_t* event, SharedName handle) {
  return with([=] { return cuIpcOpenEventHandle(event, handle); });
}

CUDA_API cudaStreamCreateWithPriority(uint64_t* stream, unsigned flags, int priority) {
  return with([=] { return cuStreamCreateWithPriority(stream, flags, priority); });
}
CUDA_API cudaStreamCreateWithFlags(uint64_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
CUDA_API cudaStreamCreate(uint64_t* stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
CUDA_API cudaStreamDestroy(uint64_t stream) {
  return with([=] { return cuStreamDestroy_v2(stream); });
}
CUDA_API cudaStreamSynchronize(uint64_t stream) {
  return with([=] { return cuStreamSynchronize(stream); });
}
CUDA_API cudaStreamQuery(uint64_t stream) {
  return with([=] { return cuStreamQuery(stream); });
}
CUDA_API cudaStreamWaitEvent(uint64_t stream, uint64_t event, unsigned flags) {
  return with([=] { return cuStreamWaitEvent(stream, event, flags); });
}
CUDA_API cudaStreamGetPriority(uint64_t stream, int* priority) {
  return with([=] { return cuStreamGetPriority(stream, priority); });
}
CUDA_API cudaStreamGetFlags(uint64_t stream, unsigned* flags) {
  return with([=] { return cuStreamGetFlags(stream, flags); });
}
CUDA_API cudaLaunchHostFunc(uint64_t stream, void (*function)(void*), void* data) {
  return with([=] { return cuLaunchHostFunc(stream, function, data); });
}

CUDA_API cudaEventCreateWithFlags(uint64_t* event, unsigned flags) {
  return with([=] { return cuEventCreate(event, flags); });
}
CUDA_API cudaEventCreate(uint64_t* event) { return cudaEventCreateWithFlags(event, 0); }
CUDA_API cudaEventDestroy(uint64_t event) {
  return with([=] { return cuEventDestroy_v2(event); });
}
CUDA_API cudaEventRecord(uint64_t event, uint64_t stream) {
  return with([=] { return cuEventRecord(event, stream); });
}
CUDA_API cudaEventQuery(uint64_t event) {
  return with([=] { return cuEventQuery(event); });
}
CUDA_API cudaEventSynchronize(uint64_t event) {
  return with([=] { return cuEventSynchronize(event); });
}
CUDA_API cudaEventElapsedTime(float* milliseconds, uint64_t first, uint64_t second) {
  return with([=] { return cuEventElapsedTime_v2(milliseconds, first, second); });
}

CUDA_API cudaStreamBeginCapture(uint64_t stream, int mode) {
  return with([=] { return cuStreamBeginCapture_v2(stream, mode); });
}
CUDA_API cudaStreamEndCapture(uint64_t stream, uint64_t* graph) {
  return with([=] { return cuStreamEndCapture(stream, graph); });
}
CUDA_API cudaStreamIsCapturing(uint64_t stream, int* status) {
  return with([=] { return cuStreamIsCapturing(stream, status); });
}
CUDA_API cudaGraphInstantiate(uint64_t* executable, uint64_t graph, uint64_t flags) {
  return with([=] { return cuGraphInstantiateWithFlags(executable, graph, flags); });
}
CUDA_API cudaGraphLaunch(uint64_t executable, uint64_t stream) {
  return with([=] { return cuGraphLaunch(executable, stream); });
}
CUDA_API cudaGraphGetNodes(uint64_t graph, uint64_t* nodes, size_t* count) {
  return with([=] { return cuGraphGetNodes(graph, nodes, count); });
}
CUDA_API cudaGraphDestroy(uint64_t graph) {
  return with([=] { return cuGraphDestroy(graph); });
}
CUDA_API cudaGraphExecDestroy(uint64_t executable) {
  return with([=] { return cuGraphExecDestroy(executable); });
}
