// cu* functions: initialization, devices, contexts and peer access.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "device.h"

using namespace soft;

namespace {

bool known(int device) { return device >= 0 && device < settings().devices; }

uint64_t contextHandle(int device) { return uint64_t(&Driver::get().contexts[device]); }

/// The device of a context's handle, or -1.
int deviceOf(uint64_t context) {
  for (int device = 0; device < mostDevices; device++) {
    if (contextHandle(device) == context) return device;
  }
  return -1;
}

/// Contexts that cuCtxPushCurrent put aside in this thread.
thread_local std::vector<int> aside;

/// CUdevice_attribute of cuda.h. A kernel may count on what a Hopper has; nothing here is a promise
/// about speed. What is not listed is 0: not supported.
int attribute(int which, int device) {
  switch (which) {
    case 1: return 1024;  // threads a block
    case 2:
    case 3: return 1024;        // block x, y
    case 4: return 64;          // block z
    case 5: return 0x7fffffff;  // grid x
    case 6:
    case 7: return 65535;        // grid y, z
    case 8: return 48 << 10;     // shared memory a block
    case 10: return 32;          // warp size
    case 13: return 1000000;     // clock, kHz
    case 16: return 4;           // multiprocessors
    case 33: return device + 1;  // PCI bus
    case 38: return 1 << 20;     // L2 bytes
    case 39: return 2048;        // threads a multiprocessor
    case 40: return 2;           // copy engines
    case 41: return 1;           // unified addressing
    case 75: return settings().computeCapability / 10;
    case 76: return settings().computeCapability % 10;
    case 78: return 1;          // stream priorities
    case 81: return 228 << 10;  // shared memory a multiprocessor
    case 91:
    case 99: return 1;          // registered host memory: same address, supported
    case 97: return 227 << 10;  // shared memory a block, on request
    case 125: return 1;         // events between processes
    default: return 0;
  }
}

}  // namespace

CUDA_API cuInit(unsigned flags) {
  if (flags != 0) return InvalidValue;
  Engine::Lock lock(Engine::get().mutex);
  if (!environmentComplaint().empty()) {
    std::fprintf(stderr, "LLUMNIX_SOFTWARE_DEVICE: %s\n", environmentComplaint().c_str());
    return InvalidValue;
  }
  if (settings().devices == 0) return NoDevice;
  Driver::get().initialized = true;
  return Ok;
}

CUDA_API cuDriverGetVersion(int* version) {
  if (version == nullptr) return InvalidValue;
  *version = settings().driverVersion;
  return Ok;
}

CUDA_API cuDeviceGetCount(int* count) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  *count = settings().devices;
  return Ok;
}

CUDA_API cuDeviceGet(int* device, int ordinal) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  if (!known(ordinal)) return InvalidDevice;
  *device = ordinal;
  return Ok;
}

CUDA_API cuDeviceGetName(char* name, int length, int device) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  if (!known(device) || length <= 0) return known(device) ? InvalidValue : InvalidDevice;
  std::snprintf(name, size_t(length), "Llumnix software device (not a GPU)");
  return Ok;
}

CUDA_API cuDeviceGetAttribute(int* value, int which, int device) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  if (!known(device)) return InvalidDevice;
  if (value == nullptr || which <= 0) return InvalidValue;
  *value = attribute(which, device);
  return Ok;
}

CUDA_API cuDeviceTotalMem_v2(size_t* bytes, int device) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  if (!known(device)) return InvalidDevice;
  *bytes = settings().memoryBytes;
  return Ok;
}

CUDA_API cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  if (!known(device)) return InvalidDevice;
  std::memcpy(uuid, "LlumnixSoft", 11);
  for (int i = 0; i < 4; i++) {
    uuid[11 + i] = static_cast<unsigned char>(settings().identity >> (24 - 8 * i));
  }
  uuid[15] = static_cast<unsigned char>(device);
  return Ok;
}
CUDA_API cuDeviceGetUuid(unsigned char* uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }

CUDA_API cuDeviceGetPCIBusId(char* id, int length, int device) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  if (!known(device)) return InvalidDevice;
  if (length < 13) return InvalidValue;
  std::snprintf(id, size_t(length), "0000:%02x:00.0", device + 1);
  return Ok;
}

CUDA_API cuDevicePrimaryCtxRetain(uint64_t* context, int device) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  if (!known(device)) return InvalidDevice;
  if (settings().busy) return DeviceUnavailable;
  if (call.engine.fault(device) != Ok) return call.engine.fault(device);
  call.driver.contexts[device].retained++;
  *context = contextHandle(device);
  return Ok;
}

CUDA_API cuDevicePrimaryCtxRelease_v2(int device) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  if (!known(device)) return InvalidDevice;
  Context& context = call.driver.contexts[device];
  if (context.retained == 0) return InvalidContext;
  context.retained--;
  return Ok;
}

CUDA_API cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  if (!known(device)) return InvalidDevice;
  call.driver.contexts[device].flags = flags;
  return Ok;
}

CUDA_API cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  if (!known(device)) return InvalidDevice;
  *flags = call.driver.contexts[device].flags;
  *active = call.driver.contexts[device].retained > 0;
  return Ok;
}

CUDA_API cuCtxSetCurrent(uint64_t context) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  const int device = deviceOf(context);
  if (context != 0 && device < 0) return InvalidContext;
  setCurrentDevice(device);
  return Ok;
}

CUDA_API cuCtxGetCurrent(uint64_t* context) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  *context = currentDevice() < 0 ? 0 : contextHandle(currentDevice());
  return Ok;
}

CUDA_API cuCtxPushCurrent_v2(uint64_t context) {
  const int before = currentDevice();
  const int status = cuCtxSetCurrent(context);
  if (status == Ok) aside.push_back(before);
  return status;
}

CUDA_API cuCtxPopCurrent_v2(uint64_t* context) {
  if (currentDevice() < 0) return InvalidContext;
  if (context != nullptr) *context = contextHandle(currentDevice());
  setCurrentDevice(aside.empty() ? -1 : aside.back());
  if (!aside.empty()) aside.pop_back();
  return Ok;
}

CUDA_API cuCtxGetDevice(int* device) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  if (currentDevice() < 0) return InvalidContext;
  *device = currentDevice();
  return Ok;
}

CUDA_API cuCtxGetDevice_v2(int* device, uint64_t context) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  *device = context == 0 ? currentDevice() : deviceOf(context);
  return *device < 0 ? InvalidContext : Ok;
}

CUDA_API cuCtxGetId(uint64_t context, uint64_t* id) {
  const int device = context == 0 ? currentDevice() : deviceOf(context);
  if (device < 0) return InvalidContext;
  *id = uint64_t(device) + 1;
  return Ok;
}

CUDA_API cuCtxSetFlags(unsigned flags) {
  Call call(Call::CaptureSafe);
  if (!call.refused()) call.driver.contexts[call.device].flags = flags;
  return call.status;
}

CUDA_API cuCtxSynchronize() {
  Call call;
  if (call.refused()) return call.status;
  call.engine.awaitDevice(call.lock, call.device);
  return call.outcome();
}

CUDA_API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  if (least != nullptr) *least = leastPriority;
  if (greatest != nullptr) *greatest = greatestPriority;
  return Ok;
}

CUDA_API cuDeviceCanAccessPeer(int* can, int device, int peer) {
  Call call(Call::Initialized);
  if (call.refused()) return call.status;
  if (!known(device) || !known(peer)) return InvalidDevice;
  *can = device != peer;
  return Ok;
}

CUDA_API cuCtxEnablePeerAccess(uint64_t context, unsigned flags) {
  Call call;
  if (call.refused()) return call.status;
  const int peer = deviceOf(context);
  if (flags != 0) return InvalidValue;
  if (peer < 0 || !known(peer)) return InvalidContext;
  if (peer == call.device) return InvalidDevice;
  bool& enabled = call.driver.contexts[call.device].peers[peer];
  if (enabled) return PeerAccessAlreadyEnabled;
  enabled = true;
  return Ok;
}

CUDA_API cuCtxDisablePeerAccess(uint64_t context) {
  Call call;
  if (call.refused()) return call.status;
  const int peer = deviceOf(context);
  if (peer < 0) return InvalidContext;
  bool& enabled = call.driver.contexts[call.device].peers[peer];
  if (!enabled) return PeerAccessNotEnabled;
  enabled = false;
  return Ok;
}

CUDA_API cuGetErrorName(int code, const char** name) {
  const StatusText* text = statusText(code);
  *name = text == nullptr ? nullptr : text->driverName;
  return *name == nullptr ? InvalidValue : Ok;
}

CUDA_API cuGetErrorString(int code, const char** name) {
  const StatusText* text = statusText(code);
  *name = text == nullptr || text->driverName == nullptr ? nullptr : text->text;
  return *name == nullptr ? InvalidValue : Ok;
}

/// The newest version of a function that this library has; UCX asks for functions by their plain name.
CUDA_API cuGetProcAddress_v2(const char* symbol, void** function, int, uint64_t, int* found) {
  static void* const self = [] {
    Dl_info info;
    dladdr(reinterpret_cast<void*>(&cuGetProcAddress_v2), &info);
    return dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  }();
  *function = nullptr;
  for (const char* version : {"_v3", "_v2", ""}) {
    if (*function == nullptr) *function = dlsym(self, (std::string(symbol) + version).c_str());
  }
  if (found != nullptr) *found = *function == nullptr ? 1 : 0;
  return *function == nullptr ? NotFound : Ok;
}
CUDA_API cuGetProcAddress(const char* symbol, void** function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(symbol, function, version, flags, nullptr);
}
