// Memory that processes share without a name: a file in memory (memfd) that another process of the
// same user opens as /proc/PID/fd/N. It is gone with the last process that has it, however that ends.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "memory.h"

namespace soft {
namespace {

constexpr char nameMagic[8] = {'L', 'X', 'S', 'O', 'F', 'T', '1', 0};

/// Start of the process in clock ticks since boot, field 22 of /proc/PID/stat. 0: no such process.
uint64_t startTimeOf(int pid) {
  char path[64], text[1024];
  std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  const ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  if (length <= 0) return 0;
  text[length] = 0;
  const char* at = std::strrchr(text, ')');  // the name before it may hold spaces
  if (at == nullptr || at[1] == 0) return 0;
  char state = 0;
  unsigned long long start = 0;
  const int fields = std::sscanf(
      at + 2, "%c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &state,
      &start);
  return fields == 2 && state != 'Z' && state != 'X' ? start : 0;
}

SharedHeader* mapHeader(int file) {
  void* page = mmap(nullptr, pageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  return page == MAP_FAILED ? nullptr : static_cast<SharedHeader*>(page);
}

}  // namespace

std::shared_ptr<SharedFile> SharedFile::create(uint64_t bytes) {
  auto shared = std::make_shared<SharedFile>();
  shared->file = memfd_create("llumnix software device", MFD_CLOEXEC);
  if (shared->file < 0 || ftruncate(shared->file, off_t(pageBytes + bytes)) != 0) return nullptr;
  shared->header = mapHeader(shared->file);
  if (shared->header == nullptr) return nullptr;
  SharedName& name = shared->name;
  std::memcpy(name.magic, nameMagic, sizeof nameMagic);
  if (getrandom(&name.serial, sizeof name.serial, 0) != ssize_t(sizeof name.serial)) return nullptr;
  shared->header->serial = name.serial;
  name.pid = getpid();
  name.startTime = startTimeOf(getpid());
  name.file = shared->file;
  return shared;
}

std::shared_ptr<SharedFile> SharedFile::open(const SharedName& name, Status& status) {
  if (std::memcmp(name.magic, nameMagic, sizeof nameMagic) != 0 || name.pid <= 0) {
    status = InvalidValue;
    return nullptr;
  }
  const uint64_t start = startTimeOf(name.pid);
  if (name.pid == getpid() && start == name.startTime) {
    status = InvalidContext;  // as the real driver: a process does not open its own memory
    return nullptr;
  }
  status = InvalidHandle;
  if (start == 0 || start != name.startTime) return nullptr;
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/fd/%d", name.pid, name.file);
  auto shared = std::make_shared<SharedFile>();
  shared->file = ::open(path, O_RDWR | O_CLOEXEC);
  struct stat facts;
  if (shared->file < 0 || fstat(shared->file, &facts) != 0) return nullptr;
  const uint64_t needed = pageBytes + name.offset + name.bytes;
  if (!S_ISREG(facts.st_mode) || uint64_t(facts.st_size) < needed) return nullptr;
  shared->header = mapHeader(shared->file);
  if (shared->header == nullptr || shared->header->serial != name.serial) return nullptr;
  if (shared->header->freed) return nullptr;
  shared->name = name;
  status = Ok;
  return shared;
}

bool SharedFile::ownerDied() const { return startTimeOf(name.pid) != name.startTime; }

SharedFile::~SharedFile() {
  if (header != nullptr) munmap(header, pageBytes);
  if (file >= 0) close(file);
}

}  // namespace soft
