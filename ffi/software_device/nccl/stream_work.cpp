#include "stream_work.h"
#include <dlfcn.h>
#include <string>

namespace soft {

/// Names of the software device's libraries, in this library's folder.
static const char *const DEVICES[] = {"libcuda.so.1", "libcudart.so.13", "libcudart.so.12"};

SoftEnqueue findSoftEnqueue() {
  if (void *found = dlsym(RTLD_DEFAULT, "softEnqueue")) return (SoftEnqueue)found;
  Dl_info self;
  if (!dladdr((void *)findSoftEnqueue, &self)) return nullptr;
  const std::string path = self.dli_fname;
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  for (const char *name : DEVICES) {
    // A library that Deno has opened is found again here: the same file is loaded only once.
    void *library = dlopen((folder + name).c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (!library) continue;
    if (void *found = dlsym(library, "softEnqueue")) return (SoftEnqueue)found;
  }
  return nullptr;
}

} // namespace soft
