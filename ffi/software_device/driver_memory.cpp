// cu* functions: memory, copies and memory shared between processes.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "copies.h"
#include "device.h"

using namespace soft;

namespace {

/// Reports an overrun that reached the bytes around an allocation: on a real device it would have
/// changed another one.
void checkOverrun(Call& call, const RegionRef& region) {
  const uint64_t at = region->overrun();
  if (at == 0) return;
  char text[160];
  std::snprintf(text, sizeof text, "%s %lld bytes from the start of an allocation of %llu bytes",
                "something wrote outside an allocation, at", static_cast<long long>(at - region->base),
                static_cast<unsigned long long>(region->bytes));
  call.engine.fail(call.device, IllegalAddress, text);
}

Status release(Call& call, Kind kind, uint64_t address) {
  const RegionRef region = call.memory.remove(kind, address);
  if (region == nullptr) return InvalidValue;
  checkOverrun(call, region);
  return call.outcome();
}

Status copyAsync(Call& call, const Copy& copy, uint64_t stream, const char* what) {
  const Status valid = checkCopy(call.memory, copy);
  if (valid != Ok) return valid;
  return call.submit(call.stream(stream), what, copies(call.device, {copy}));
}

bool onDevice(const Memory& memory, uint64_t address) {
  const RegionRef region = memory.find(address);
  return region != nullptr && (region->kind == Kind::Device || region->kind == Kind::Imported);
}

/// A copy by a call without "Async". Between two places on a device it does not wait for its end.
Status copyNow(uint64_t to, uint64_t from, size_t bytes) {
  Call call;
  if (call.refused()) return call.status;
  const Copy copy{to, from, bytes};
  const Status valid = checkCopy(call.memory, copy);
  if (valid != Ok) return valid;
  WorkRef work;
  const Status submitted = call.submit(call.stream(0), "copy", copies(call.device, {copy}), true, &work);
  if (submitted != Ok || (onDevice(call.memory, to) && onDevice(call.memory, from))) return submitted;
  call.engine.await(call.lock, work);
  return call.outcome();
}

Status fillAsync(uint64_t to, uint32_t value, unsigned elementBytes, size_t count, uint64_t stream) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  if (count == 0) return Ok;
  const Status valid = checkRange(call.memory, to, count * elementBytes);
  if (valid != Ok) return valid;
  if (!call.memory.ours(to) || to % elementBytes != 0) return InvalidValue;
  return call.submit(call.stream(stream), "fill", fill(call.device, to, value, elementBytes, count));
}

/// CUmemcpyAttributes: srcAccessOrder at 0, location hints at 4 and 12, flags at 20.
struct BatchAttributes {
  uint32_t sourceAccessOrder;  ///< 1 in stream order, 2 during the call, 3 at any time.
  uint32_t hints[4];
  uint32_t flags;
};
static_assert(sizeof(BatchAttributes) == 24);

/// Reads the source now, if its attributes allow that: the caller may have been wrong to allow it.
Maker batchedCopy(Call& call, std::vector<Copy> all, const std::vector<uint32_t>& orders) {
  auto early = std::make_shared<std::vector<std::vector<unsigned char>>>();
  for (size_t i = 0; i < all.size(); i++) {
    if (orders[i] == 1) continue;
    std::vector<unsigned char> bytes(all[i].bytes);
    if (!copyBytes(uint64_t(bytes.data()), all[i].from, bytes.size(), true)) continue;
    early->push_back(std::move(bytes));
    all[i].from = uint64_t(early->back().data());
  }
  // Copies of a batch have no order among themselves.
  for (size_t i = all.size(); i > 1; i--) std::swap(all[i - 1], all[call.engine.choose(i)]);
  const Maker make = copies(call.device, std::move(all));
  return [make, early]() -> Body { return [body = make(), early] { return body(); }; };
}

}  // namespace

CUDA_API cuMemGetInfo_v2(size_t* free, size_t* total) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  *total = settings().memoryBytes;
  *free = *total - std::min<size_t>(*total, call.memory.usedBytes(call.device));
  return Ok;
}

CUDA_API cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  Call call;
  if (call.refused()) return call.status;
  if (address == nullptr) return InvalidValue;
  if (call.engine.allocationFails(bytes)) return OutOfMemory;
  return call.memory.allocateDevice(call.device, bytes, address);
}

// Does not wait for work in flight, though today's drivers do: nothing promises it. Work that still
// uses the memory fails with error 700.
CUDA_API cuMemFree_v2(uint64_t address) {
  Call call;
  return call.refused() ? call.status : release(call, Kind::Device, address);
}

CUDA_API cuMemHostAlloc(uint64_t* address, size_t bytes, unsigned flags) {
  Call call;
  if (call.refused()) return call.status;
  if (address == nullptr || flags > 7) return InvalidValue;
  return call.memory.allocatePinned(bytes, address);
}
CUDA_API cuMemAllocHost_v2(uint64_t* address, size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }

CUDA_API cuMemFreeHost(uint64_t address) {
  Call call;
  return call.refused() ? call.status : release(call, Kind::Pinned, address);
}

CUDA_API cuMemHostRegister_v2(uint64_t address, size_t bytes, unsigned flags) {
  Call call;
  if (call.refused()) return call.status;
  return flags > 15 ? InvalidValue : call.memory.registerHost(address, bytes);
}

CUDA_API cuMemHostUnregister(uint64_t address) {
  Call call;
  if (call.refused()) return call.status;
  return call.memory.remove(Kind::Registered, address) == nullptr ? HostMemoryNotRegistered : Ok;
}

CUDA_API cuMemHostGetDevicePointer_v2(uint64_t* address, uint64_t host, unsigned flags) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const RegionRef region = call.memory.find(host);
  if (flags != 0 || region == nullptr || onDevice(call.memory, host)) return InvalidValue;
  *address = host;
  return Ok;
}

CUDA_API cuMemGetAddressRange_v2(uint64_t* base, size_t* bytes, uint64_t address) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const RegionRef region = call.memory.find(address);
  if (region == nullptr) return NotFound;
  if (base != nullptr) *base = region->base;
  if (bytes != nullptr) *bytes = region->bytes;
  return Ok;
}

CUDA_API cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  Call call(Call::CaptureSafe);
  return call.refused() ? call.status : copyAsync(call, {to, from, bytes}, stream, "copy");
}
CUDA_API cuMemcpyHtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  return cuMemcpyAsync(to, from, bytes, stream);
}
CUDA_API cuMemcpyDtoHAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  return cuMemcpyAsync(to, from, bytes, stream);
}
CUDA_API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  return cuMemcpyAsync(to, from, bytes, stream);
}
CUDA_API cuMemcpyPeerAsync(uint64_t to, uint64_t, uint64_t from, uint64_t, size_t bytes,
                           uint64_t stream) {
  return cuMemcpyAsync(to, from, bytes, stream);
}

CUDA_API cuMemcpy(uint64_t to, uint64_t from, size_t bytes) { return copyNow(to, from, bytes); }
CUDA_API cuMemcpyHtoD_v2(uint64_t to, uint64_t from, size_t bytes) { return copyNow(to, from, bytes); }
CUDA_API cuMemcpyDtoH_v2(uint64_t to, uint64_t from, size_t bytes) { return copyNow(to, from, bytes); }
CUDA_API cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t bytes) { return copyNow(to, from, bytes); }

/// CUDA_MEMCPY2D.
struct Copy2D {
  struct Side {
    uint64_t x, y;
    uint32_t memoryType;  ///< 1 host, 2 device, 4 unified: the device address.
    uint64_t host, device, array, pitch;
  } from, to;
  uint64_t widthBytes, height;
};
static_assert(sizeof(Copy2D) == 128);

CUDA_API cuMemcpy2DAsync_v2(const Copy2D* copy, uint64_t stream) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  for (auto* side : {&copy->from, &copy->to}) {
    if (side->memoryType == 3 || side->pitch < copy->widthBytes) return InvalidValue;
  }
  if (copy->height > uint64_t(1) << 20) return InvalidValue;
  auto address = [](const Copy2D::Side& side, uint64_t row) {
    const uint64_t first = side.memoryType == 1 ? side.host : side.device;
    return first + (side.y + row) * side.pitch + side.x;
  };
  std::vector<Copy> rows;
  for (uint64_t row = 0; row < copy->height; row++) {
    rows.push_back({address(copy->to, row), address(copy->from, row), copy->widthBytes});
    const Status valid = checkCopy(call.memory, rows.back());
    if (valid != Ok) return valid;
  }
  return call.submit(call.stream(stream), "2D copy", copies(call.device, std::move(rows)));
}

/// The form of CUDA 13.
CUDA_API cuMemcpyBatchAsync_v2(const uint64_t* to, const uint64_t* from, const size_t* bytes,
                               size_t count, const BatchAttributes* attributes, const size_t* firstOf,
                               size_t attributeCount, uint64_t stream) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  if (stream <= 1 || count == 0 || attributeCount == 0 || attributeCount > count) return InvalidValue;
  const StreamRef into = call.stream(stream);
  if (into == nullptr) return InvalidHandle;
  if (into->capture != nullptr) return CaptureUnsupported;
  std::vector<Copy> all;
  std::vector<uint32_t> orders;
  for (size_t i = 0, which = 0; i < count; i++) {
    if (i == 0 && firstOf[0] != 0) return InvalidValue;
    if (which + 1 < attributeCount && firstOf[which + 1] == i) which++;
    const uint32_t order = attributes[which].sourceAccessOrder;
    if (order < 1 || order > 3) return InvalidValue;
    const Copy copy{to[i], from[i], bytes[i]};
    if (copy.bytes == 0 || checkCopy(call.memory, copy) != Ok) return InvalidValue;
    all.push_back(copy);
    orders.push_back(order);
  }
  for (size_t i = 1; i < attributeCount; i++) {
    if (firstOf[i] <= firstOf[i - 1] || firstOf[i] >= count) return InvalidValue;
  }
  return call.submit(into, "batch of copies", batchedCopy(call, std::move(all), orders));
}

/// The form of CUDA 12.8, which also names the copy that was refused.
CUDA_API cuMemcpyBatchAsync(const uint64_t* to, const uint64_t* from, const size_t* bytes, size_t count,
                            const BatchAttributes* attributes, const size_t* firstOf,
                            size_t attributeCount, size_t* failed, uint64_t stream) {
  const int status =
      cuMemcpyBatchAsync_v2(to, from, bytes, count, attributes, firstOf, attributeCount, stream);
  if (failed != nullptr && status != Ok) {
    *failed = ~size_t(0);  // SIZE_MAX: the error is not one copy's
    Engine::Lock lock(Engine::get().mutex);
    for (size_t i = count; i-- > 0;) {
      if (checkCopy(Memory::get(), {to[i], from[i], bytes[i]}) != Ok) *failed = i;
    }
  }
  return status;
}

CUDA_API cuMemsetD8Async(uint64_t to, unsigned char value, size_t count, uint64_t stream) {
  return fillAsync(to, value, 1, count, stream);
}
CUDA_API cuMemsetD16Async(uint64_t to, unsigned short value, size_t count, uint64_t stream) {
  return fillAsync(to, value, 2, count, stream);
}
CUDA_API cuMemsetD32Async(uint64_t to, unsigned value, size_t count, uint64_t stream) {
  return fillAsync(to, value, 4, count, stream);
}
CUDA_API cuMemsetD8_v2(uint64_t to, unsigned char value, size_t count) {
  return fillAsync(to, value, 1, count, 0);
}

CUDA_API cuIpcGetMemHandle(SharedName* handle, uint64_t address) {
  Call call;
  if (call.refused()) return call.status;
  return handle == nullptr ? InvalidValue : call.memory.exportHandle(address, handle);
}

CUDA_API cuIpcOpenMemHandle_v2(uint64_t* address, SharedName handle, unsigned flags) {
  Call call;
  if (call.refused()) return call.status;
  if (address == nullptr || flags != 1) return InvalidValue;
  return call.memory.import(handle, call.device, address);
}

CUDA_API cuIpcCloseMemHandle(uint64_t address) {
  Call call;
  return call.refused() ? call.status : call.memory.closeImport(address);
}

namespace {

/// CUpointer_attribute of cuda.h, for an address of this library.
Status pointerAttribute(void* out, int which, uint64_t address, const Region& region) {
  const bool device = region.kind == Kind::Device || region.kind == Kind::Imported;
  switch (which) {
    case 1: *static_cast<uint64_t*>(out) = uint64_t(&Driver::get().contexts[region.device]); return Ok;
    case 2: *static_cast<unsigned*>(out) = device ? 2 : 1; return Ok;
    case 3: *static_cast<uint64_t*>(out) = address; return Ok;
    case 4:
      if (device) return InvalidValue;
      *static_cast<uint64_t*>(out) = address;
      return Ok;
    case 7: *static_cast<uint64_t*>(out) = region.id; return Ok;
    case 8: *static_cast<unsigned*>(out) = 0; return Ok;  // managed
    case 9: *static_cast<int*>(out) = region.device; return Ok;
    case 10:
      *static_cast<unsigned char*>(out) = region.kind == Kind::Device;
      return Ok;  // may be shared
    case 11: *static_cast<uint64_t*>(out) = region.base; return Ok;
    case 12: *static_cast<uint64_t*>(out) = region.bytes; return Ok;
    case 13: *static_cast<unsigned char*>(out) = 1; return Ok;  // mapped
    case 14:
    case 17: *static_cast<uint64_t*>(out) = 0; return Ok;       // handle types, pool
    case 15: *static_cast<unsigned char*>(out) = 0; return Ok;  // GPUDirect RDMA
    default: return InvalidValue;
  }
}

}  // namespace

CUDA_API cuPointerGetAttribute(void* out, int which, uint64_t address) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const RegionRef region = call.memory.find(address);
  return region == nullptr ? InvalidValue : pointerAttribute(out, which, address, *region);
}

/// Memory that the device does not know of is no error here: its attributes are zero.
CUDA_API cuPointerGetAttributes(unsigned count, const int* which, void** outs, uint64_t address) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const RegionRef region = call.memory.find(address);
  for (unsigned i = 0; i < count; i++) {
    if (region != nullptr) {
      const Status status = pointerAttribute(outs[i], which[i], address, *region);
      if (status != Ok) return status;
    } else if (which[i] == 9) {
      *static_cast<int*>(outs[i]) = -2;  // CU_DEVICE_INVALID
    } else if (which[i] == 2 || which[i] == 8) {
      *static_cast<unsigned*>(outs[i]) = 0;
    } else if (which[i] == 10 || which[i] == 13 || which[i] == 15) {
      *static_cast<unsigned char*>(outs[i]) = 0;
    } else {
      *static_cast<uint64_t*>(outs[i]) = 0;
    }
  }
  return Ok;
}

CUDA_API cuPointerSetAttribute(const void*, int, uint64_t address) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  return call.memory.find(address) == nullptr ? InvalidValue : Ok;
}
