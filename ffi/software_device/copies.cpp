#include "copies.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace soft {
namespace {

/// So much is copied between two looks at the engine's lock.
constexpr uint64_t pieceBytes = uint64_t(8) << 20;

/// The memory of an exporter that died is gone on a real device.
void poisonIfStale(Region& region) {
  if (region.kind != Kind::Imported || region.stale || !region.file->ownerDied()) return;
  region.stale = true;
  std::memset(reinterpret_cast<void*>(region.mapped), poisonByte, region.mappedBytes);
}

std::string describe(const char* what, uint64_t address, uint64_t bytes) {
  char text[120];
  std::snprintf(text, sizeof text, "a copy %s %#llx (%llu bytes), where no memory is (freed?)", what,
                static_cast<unsigned long long>(address), static_cast<unsigned long long>(bytes));
  return text;
}

void copyPiece(int device, const Copy& copy) {
  Engine& engine = Engine::get();
  RegionRef to, from;
  Engine::Lock lock(engine.mutex);
  if (!pin(copy.to, copy.bytes, to)) {
    return engine.fail(device, IllegalAddress, describe("to", copy.to, copy.bytes));
  }
  if (!pin(copy.from, copy.bytes, from)) {
    return engine.fail(device, IllegalAddress, describe("from", copy.from, copy.bytes));
  }
  lock.unlock();
  for (auto& region : {to, from}) {
    if (region != nullptr) poisonIfStale(*region);
  }
  const bool hostMayBeAbsent = to == nullptr || from == nullptr;
  if (copyBytes(copy.to, copy.from, copy.bytes, hostMayBeAbsent)) return;
  lock.lock();
  const uint64_t absent = to == nullptr ? copy.to : copy.from;
  engine.fail(device, IllegalAddress, describe("touching", absent, copy.bytes));
}

}  // namespace

bool pin(uint64_t address, uint64_t bytes, RegionRef& region) {
  const Memory& memory = Memory::get();
  region = memory.find(address);
  return region != nullptr ? region->contains(address, bytes) : !memory.ours(address);
}

Status checkRange(const Memory& memory, uint64_t address, uint64_t bytes) {
  if (address == 0 || address + bytes < address) return InvalidValue;
  const RegionRef region = memory.find(address);
  if (region != nullptr) return region->contains(address, bytes) ? Ok : InvalidValue;
  return memory.ours(address) ? InvalidValue : Ok;
}

Status checkCopy(const Memory& memory, const Copy& copy) {
  if (copy.bytes == 0) return Ok;
  const Status to = checkRange(memory, copy.to, copy.bytes);
  return to != Ok ? to : checkRange(memory, copy.from, copy.bytes);
}

Maker copies(int device, std::vector<Copy> all) {
  std::erase_if(all, [](const Copy& copy) { return copy.bytes == 0; });
  return [device, all = std::move(all)]() -> Body {
    return [device, all, next = size_t(0), offset = uint64_t(0)]() mutable {
      uint64_t left = pieceBytes;
      while (next < all.size() && left > 0) {
        const Copy& copy = all[next];
        const uint64_t bytes = std::min(left, copy.bytes - offset);
        copyPiece(device, {copy.to + offset, copy.from + offset, bytes});
        left -= bytes;
        offset += bytes;
        if (offset == copy.bytes) {
          next++;
          offset = 0;
        }
      }
      return next == all.size() ? Step::Done : Step::More;
    };
  };
}

Maker fill(int device, uint64_t to, uint32_t value, unsigned elementBytes, uint64_t count) {
  return [=]() -> Body {
    return [=] {
      Engine& engine = Engine::get();
      RegionRef end;
      Engine::Lock lock(engine.mutex);
      if (!pin(to, count * elementBytes, end)) {
        engine.fail(device, IllegalAddress, describe("(fill) to", to, count * elementBytes));
        return Step::Done;
      }
      lock.unlock();
      auto* bytes = reinterpret_cast<unsigned char*>(to);
      if (elementBytes == 1) {
        std::memset(bytes, int(value & 0xff), count);
      } else {
        for (uint64_t i = 0; i < count; i++) std::memcpy(bytes + i * elementBytes, &value, elementBytes);
      }
      return Step::Done;
    };
  };
}

}  // namespace soft
