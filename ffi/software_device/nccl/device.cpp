#include "device.h"
#include <dlfcn.h>
#include <string>

namespace soft {

/// Names of the device's libraries, in this library's folder.
static const char *const NAMES[] = {"libcuda.so.1", "libcudart.so.13", "libcudart.so.12"};

static bool findIn(void *library, DeviceLibrary &found) {
  found.enqueue = (decltype(found.enqueue))dlsym(library, "llumnixSoftwareDeviceEnqueue");
  found.getContext = (decltype(found.getContext))dlsym(library, "cuCtxGetCurrent");
  found.setContext = (decltype(found.setContext))dlsym(library, "cuCtxSetCurrent");
  return found.enqueue != nullptr;
}

static DeviceLibrary load() {
  DeviceLibrary found;
  if (findIn(RTLD_DEFAULT, found)) return found;
  Dl_info self;
  if (!dladdr((void *)deviceLibrary, &self)) return {};
  const std::string path = self.dli_fname;
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  for (const char *name : NAMES) {
    // A library that Deno has opened is found again here: the same file is loaded only once.
    void *library = dlopen((folder + name).c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (library && findIn(library, found)) return found;
  }
  return {};
}

const DeviceLibrary &deviceLibrary() {
  static const DeviceLibrary library = load();
  return library;
}

void *currentContext() {
  void *context = nullptr;
  const auto get = deviceLibrary().getContext;
  return get && get(&context) == 0 ? context : nullptr;
}

void useContext(void *context) {
  const auto set = deviceLibrary().setContext;
  if (set && context) set(context);
}

} // namespace soft
