#include "memory.h"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "settings.h"

namespace soft {
namespace {

/// Addresses are handed out in order from one range without memory behind it, so that the address of
/// freed memory stays invalid for long. 256 GiB of the 128 TiB that a process has.
constexpr uint64_t rangeBytes = uint64_t(1) << 38;
/// Alignment of cudaMalloc (CUDA C++ Programming Guide, "Device Memory Accesses").
constexpr uint64_t deviceAlignment = 256;
/// Fills the pages of an allocation around it; an overrun shorter than a page shows there.
constexpr unsigned char canaryByte = 0xa5;

uint64_t roundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

Memory& Memory::get() {
  static Memory& one = *new Memory;
  return one;
}

/// Addresses for `bytes` and a guard page on either side; 0 if the range is full.
uint64_t Memory::reserve(uint64_t bytes) {
  if (start_ == 0) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* range = mmap(nullptr, rangeBytes, PROT_NONE, flags, -1, 0);
    if (range == MAP_FAILED) return 0;
    start_ = next_ = uint64_t(range);
  }
  const uint64_t needed = bytes + 2 * pageBytes;
  if (needed > rangeBytes) return 0;
  for (int wrapped = 0; wrapped < 2;) {
    if (next_ + needed > start_ + rangeBytes) {
      next_ = start_;
      wrapped++;
    }
    // The last region below the end of the wanted addresses is the only one that may reach into them.
    auto after = regions_.lower_bound(next_ + needed);
    bool taken = false;
    while (after != regions_.begin()) {
      const Region& below = *(--after)->second;
      if (below.mapped == 0) continue;  // registered memory of the host lies elsewhere
      taken = below.mapped + below.mappedBytes + pageBytes > next_ && below.mapped >= start_;
      if (taken) next_ = below.mapped + below.mappedBytes + pageBytes;
      break;
    }
    if (taken) continue;
    const uint64_t address = next_ + pageBytes;
    next_ += needed;
    return address;
  }
  return 0;
}

/// Maps a region whose end lies as close to the guard page behind it as its alignment allows.
RegionRef Memory::map(Kind kind, uint64_t bytes, uint64_t alignment,
                      const std::shared_ptr<SharedFile>& file) {
  const uint64_t pages = roundUp(bytes, pageBytes);
  const uint64_t address = reserve(pages);
  if (address == 0) return nullptr;
  const int flags = MAP_FIXED | MAP_NORESERVE | (file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
  void* mapped = mmap(reinterpret_cast<void*>(address), pages, PROT_READ | PROT_WRITE, flags,
                      file ? file->file : -1, file ? off_t(pageBytes) : 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto region = std::make_shared<Region>();
  region->kind = kind;
  region->mapped = address;
  region->mappedBytes = pages;
  region->base = address + pages - roundUp(bytes, alignment);
  region->bytes = bytes;
  region->id = ++lastId_;
  region->file = file;
  regions_[region->base] = region;
  if (kind != Kind::Imported) {
    auto* first = reinterpret_cast<unsigned char*>(address);
    const uint64_t before = region->base - address;
    std::memset(first, canaryByte, before);
    std::memset(first + before + bytes, canaryByte, pages - before - bytes);
    if (settings().poison) std::memset(first + before, poisonByte, bytes);
  }
  return region;
}

Status Memory::allocateDevice(int device, uint64_t bytes, uint64_t* address) {
  if (bytes == 0) return InvalidValue;
  const uint64_t most = settings().memoryBytes;
  if (bytes > most || used_[device] + roundUp(bytes, pageBytes) > most) return OutOfMemory;
  auto file = SharedFile::create(roundUp(bytes, pageBytes));
  if (file == nullptr) return OutOfMemory;
  const RegionRef region = map(Kind::Device, bytes, deviceAlignment, file);
  if (region == nullptr) return OutOfMemory;
  region->device = device;
  used_[device] += region->mappedBytes;
  *address = region->base;
  return Ok;
}

Status Memory::allocatePinned(uint64_t bytes, uint64_t* address) {
  if (bytes == 0) return InvalidValue;
  if (bytes > rangeBytes / 4) return OutOfMemory;
  const RegionRef region = map(Kind::Pinned, bytes, deviceAlignment, nullptr);
  if (region == nullptr) return OutOfMemory;
  *address = region->base;
  return Ok;
}

Status Memory::registerHost(uint64_t address, uint64_t bytes) {
  if (address == 0 || bytes == 0 || address + bytes < address || ours(address)) return InvalidValue;
  const auto next = regions_.lower_bound(address + bytes);
  if (next != regions_.begin()) {
    const Region& below = *std::prev(next)->second;
    if (below.base + below.bytes > address) return HostMemoryAlreadyRegistered;
  }
  unsigned char present;
  const uint64_t first = address / pageBytes * pageBytes, end = address + bytes;
  for (uint64_t page = first; page < end; page += pageBytes) {
    const uint64_t probe = page < address ? address : page;
    if (!copyBytes(uint64_t(&present), probe, 1, true)) return InvalidValue;
  }
  auto region = std::make_shared<Region>();
  region->kind = Kind::Registered;
  region->base = address;
  region->bytes = bytes;
  region->id = ++lastId_;
  regions_[address] = region;
  return Ok;
}

RegionRef Memory::remove(Kind kind, uint64_t address) {
  const auto found = regions_.find(address);
  if (found == regions_.end() || found->second->kind != kind) return nullptr;
  RegionRef region = found->second;
  regions_.erase(found);
  if (kind == Kind::Device) used_[region->device] -= region->mappedBytes;
  if (region->file != nullptr && kind == Kind::Device) region->file->header->freed = 1;
  return region;
}

Status Memory::exportHandle(uint64_t address, SharedName* name) {
  const auto found = regions_.find(address);
  if (found == regions_.end() || found->second->kind != Kind::Device) return InvalidValue;
  Region& region = *found->second;
  region.exported = true;
  *name = region.file->name;
  name->offset = region.base - region.mapped;
  name->bytes = region.bytes;
  name->device = region.device;
  return Ok;
}

Status Memory::import(const SharedName& name, int device, uint64_t* address) {
  if (name.bytes == 0 || name.bytes > rangeBytes / 4) return InvalidValue;
  for (auto& [base, region] : regions_) {
    const bool same = region->kind == Kind::Imported && region->file->name.serial == name.serial;
    if (!same) continue;
    region->opens++;
    *address = base;
    return Ok;
  }
  Status status = Ok;
  auto file = SharedFile::open(name, status);
  if (file == nullptr) return status;
  const RegionRef region = map(Kind::Imported, name.bytes, deviceAlignment, file);
  if (region == nullptr) return OutOfMemory;
  if (region->base - region->mapped != name.offset) {
    regions_.erase(region->base);
    return InvalidValue;
  }
  region->device = device;
  region->opens = 1;
  *address = region->base;
  return Ok;
}

Status Memory::closeImport(uint64_t address) {
  const auto found = regions_.find(address);
  if (found == regions_.end() || found->second->kind != Kind::Imported) return InvalidValue;
  if (--found->second->opens == 0) regions_.erase(found);
  return Ok;
}

RegionRef Memory::find(uint64_t address) const {
  auto after = regions_.upper_bound(address);
  if (after == regions_.begin()) return nullptr;
  const RegionRef& region = std::prev(after)->second;
  return address - region->base < region->bytes ? region : nullptr;
}

bool Memory::ours(uint64_t address) const {
  return start_ != 0 && address >= start_ && address < start_ + rangeBytes;
}

size_t Memory::count(Kind kind) const {
  size_t count = 0;
  for (auto& entry : regions_) count += entry.second->kind == kind;
  return count;
}

void Memory::reset() {
  while (!regions_.empty()) {
    const RegionRef region = regions_.begin()->second;
    if (remove(region->kind, region->base) == nullptr) break;
  }
}

uint64_t Region::overrun() const {
  if (mapped == 0 || kind == Kind::Imported) return 0;
  for (uint64_t at = mapped; at < mapped + mappedBytes; at++) {
    if (at == base) at += bytes;
    if (at == mapped + mappedBytes) break;
    if (*reinterpret_cast<unsigned char*>(at) != canaryByte) return at;
  }
  return 0;
}

Region::~Region() {
  if (mapped == 0) return;
  void* pages = reinterpret_cast<void*>(mapped);
  // A process that opened the memory and reads on sees NaN, not the last contents.
  if (exported) std::memset(pages, poisonByte, mappedBytes);
  const int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  mmap(pages, mappedBytes, PROT_NONE, flags, -1, 0);
}

bool copyBytes(uint64_t to, uint64_t from, uint64_t bytes, bool hostMayBeAbsent) {
  if (hostMayBeAbsent) {
    // The kernel copies, and says where a fault would have ended the process.
    iovec local{reinterpret_cast<void*>(to), bytes}, remote{reinterpret_cast<void*>(from), bytes};
    const ssize_t copied = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    if (copied == ssize_t(bytes)) return true;
    if (copied >= 0 || errno == EFAULT) return false;
    // Not allowed here (seccomp): copy as any program would.
  }
  std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
  return true;
}

}  // namespace soft
