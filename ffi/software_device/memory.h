// Memory of the software device: each allocation lies between guard pages in one reserved range of
// addresses, starts full of NaN, and is unmapped when it is freed.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "status.h"

namespace soft {

constexpr uint64_t pageBytes = 4096;
constexpr int poisonByte = 0xff;

/// First page of the memory file of a device allocation or of an event that processes share.
struct SharedHeader {
  uint64_t serial;  ///< Random: a handle names this very file and no later one.
  std::atomic<uint32_t> freed;
  std::atomic<uint64_t> recorded, done;  ///< Of an event: records submitted, and completed.
};

/// What the 64 bytes of an IPC handle hold.
struct SharedName {
  char magic[8];
  uint64_t serial, startTime;  ///< startTime: of the process, so that a reused PID is noticed.
  int32_t pid, file;
  uint64_t offset, bytes;  ///< Of the allocation in the file, behind its header; 0 for an event.
  int32_t device;
  char rest[12];
};
static_assert(sizeof(SharedName) == 64);

/// A mapped memory file; unmaps and closes it at the end of its life.
struct SharedFile {
  int file = -1;
  SharedHeader* header = nullptr;
  SharedName name = {};
  ~SharedFile();

  /// A new file with a header and `bytes` more. Null if the system has no memory for it.
  static std::shared_ptr<SharedFile> create(uint64_t bytes);
  /// The file that another process exported. `status` says why there is none.
  static std::shared_ptr<SharedFile> open(const SharedName& name, Status& status);
  bool ownerDied() const;
};

enum class Kind { Device, Pinned, Imported, Registered };

/// A range of memory that the device may use. The mapping ends when the last reference does: work
/// that is copying holds one.
struct Region {
  Kind kind;
  int device = 0;
  uint64_t base = 0, bytes = 0;
  uint64_t id = 0;                       ///< Unique in the process, CU_POINTER_ATTRIBUTE_BUFFER_ID.
  uint64_t mapped = 0, mappedBytes = 0;  ///< Pages of the data, guard pages left out.
  std::shared_ptr<SharedFile> file;
  int opens = 0;  ///< Of imported memory: how often it was opened.
  bool exported = false;
  bool stale = false;  ///< Of imported memory: its owner died, and it was poisoned for that.
  ~Region();

  bool contains(uint64_t address, uint64_t size) const {
    return address >= base && size <= bytes && address - base <= bytes - size;
  }
  /// The first byte around the allocation that something overwrote, or 0.
  uint64_t overrun() const;
};
using RegionRef = std::shared_ptr<Region>;

/// The regions of the process. The engine's lock guards it.
class Memory {
 public:
  static Memory& get();

  Status allocateDevice(int device, uint64_t bytes, uint64_t* address);
  Status allocatePinned(uint64_t bytes, uint64_t* address);
  Status registerHost(uint64_t address, uint64_t bytes);
  /// Forgets a region of this kind that starts at `address`. Null if there is none.
  RegionRef remove(Kind kind, uint64_t address);

  Status exportHandle(uint64_t address, SharedName* name);
  Status import(const SharedName& name, int device, uint64_t* address);
  Status closeImport(uint64_t address);

  /// The region that holds the address, or null.
  RegionRef find(uint64_t address) const;
  /// Whether the address is one that this library gave out at some time.
  bool ours(uint64_t address) const;

  uint64_t usedBytes(int device) const { return used_[device]; }
  size_t count(Kind kind) const;
  void reset();

 private:
  RegionRef map(Kind kind, uint64_t bytes, uint64_t alignment, const std::shared_ptr<SharedFile>& file);
  uint64_t reserve(uint64_t bytes);

  uint64_t start_ = 0, next_ = 0;
  uint64_t lastId_ = 0;
  uint64_t used_[16] = {};
  std::map<uint64_t, RegionRef> regions_;  ///< By first address.
};

/// Copies that may touch memory of the host that nobody told the device of: false if it is not there.
bool copyBytes(uint64_t to, uint64_t from, uint64_t bytes, bool hostMayBeAbsent);

}  // namespace soft
