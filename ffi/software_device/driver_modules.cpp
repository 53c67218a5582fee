// cu* functions: modules, functions and launches of this project's kernels. A module's PTX or cubin only
// says which kernels it has; they run from a library in which g++ compiled the same source.
#include <dlfcn.h>
#include <elf.h>

#include <cstring>
#include <set>
#include <string>

#include "device.h"
#include "kernels/interface.h"

namespace soft {

/// Bytes of dynamic shared memory that a launch may have, unless the function's attribute says more.
constexpr int usualSharedBytes = 48 << 10;
constexpr int mostSharedBytes = 227 << 10;

/// The functions of kernels/interface.h in one library of kernels.
struct KernelLibrary {
  decltype(&llumnixKernel) find = nullptr;
  decltype(&llumnixLaunchBegin) begin = nullptr;
  decltype(&llumnixLaunchStep) step = nullptr;
  decltype(&llumnixLaunchEnd) end = nullptr;
};

struct Kernel {
  const KernelInfo* info;
  KernelLibrary library;
  int device;  ///< Into whose context it is loaded.
  int dynamicBytes = usualSharedBytes;
};

struct Module {
  int device = 0;
  std::set<std::string> entries;
  KernelLibrary library;
  std::map<std::string, std::shared_ptr<Kernel>> kernels;
};

namespace {

std::string libraryPath() {
  const std::string& which = settings().kernels;
  if (which.find('/') != std::string::npos) return which;
  Dl_info self;
  dladdr(reinterpret_cast<void*>(&Driver::get), &self);
  const std::string path = self.dli_fname;
  const std::string name =
      which == "checked" ? "libllumnix_kernels_checked.so" : "libllumnix_kernels.so";
  return path.substr(0, path.rfind('/') + 1) + name;
}

/// Opens the library that the settings name; stays open for life. False after a line on stderr.
bool openKernels(KernelLibrary& library) {
  void* opened = dlopen(libraryPath().c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    std::fprintf(stderr, "llumnix software device: no kernels: %s\n", dlerror());
    return false;
  }
  auto load = [opened](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(opened, name));
    return function != nullptr;
  };
  return load(library.find, "llumnixKernel") && load(library.begin, "llumnixLaunchBegin") &&
         load(library.step, "llumnixLaunchStep") && load(library.end, "llumnixLaunchEnd");
}

/// Names of the `.entry` functions of a PTX text.
std::set<std::string> entriesOf(const char* ptx) {
  std::set<std::string> names;
  constexpr char directive[] = ".entry ";
  for (const char* at = ptx; (at = std::strstr(at, directive)) != nullptr;) {
    at += sizeof directive - 1;
    names.insert(std::string(at, std::strcspn(at, "( \t\r\n")));
  }
  return names;
}

/// Names of the kernels of a cubin, an ELF file for CUDA: each has a section ".text.NAME".
std::set<std::string> entriesOfCubin(const char* image) {
  constexpr int machineCuda = 190;
  std::set<std::string> names;
  const auto& header = *reinterpret_cast<const Elf64_Ehdr*>(image);
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != machineCuda) return names;
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(image + header.e_shoff);
  const char* texts = image + sections[header.e_shstrndx].sh_offset;
  constexpr char prefix[] = ".text.";
  for (int i = 0; i < header.e_shnum; i++) {
    const char* name = texts + sections[i].sh_name;
    if (std::strncmp(name, prefix, sizeof prefix - 1) == 0) names.insert(name + sizeof prefix - 1);
  }
  return names;
}

Status loadModule(Call& call, uint64_t* module, const char* image) {
  if (module == nullptr || image == nullptr) return InvalidValue;
  if (settings().failLoad != 0) return Status(settings().failLoad);
  auto made = std::make_shared<Module>();
  made->device = call.device;
  if (std::memcmp(image, ELFMAG, SELFMAG) == 0) {
    constexpr int cubinCapability = 90;  // sm_90a: the project has no other machine code
    if (settings().failCubin != 0) return Status(settings().failCubin);
    if (settings().computeCapability != cubinCapability) return NoBinary;
    made->entries = entriesOfCubin(image);
  } else if (std::strstr(image, ".version") != nullptr && std::strstr(image, ".target") != nullptr) {
    made->entries = entriesOf(image);
  } else {
    return InvalidImage;
  }
  if (made->entries.empty()) return InvalidImage;
  if (!openKernels(made->library)) return NotFound;
  *module = call.driver.modules.add(made);
  return Ok;
}

/// The handle of a function is its address; it is good as long as its module.
Kernel* kernelOf(Call& call, uint64_t function) {
  for (auto& module : call.driver.modules.all()) {
    for (auto& [name, kernel] : module.second->kernels) {
      if (uint64_t(kernel.get()) == function) return kernel.get();
    }
  }
  return nullptr;
}

bool validShape(const LaunchShape& shape, const Kernel& kernel) {
  const auto& [grid, block, dynamicBytes, programmatic, seed] = shape;
  const bool some = grid[0] && grid[1] && grid[2] && block[0] && block[1] && block[2];
  const bool gridFits = grid[0] <= 0x7fffffffu && grid[1] <= 65535 && grid[2] <= 65535;
  const bool blockFits = block[0] <= 1024 && block[1] <= 1024 && block[2] <= 64 &&
                         uint64_t(block[0]) * block[1] * block[2] <= 1024;
  // A bound of this device only: it holds a list of the blocks.
  const bool listFits = uint64_t(grid[0]) * grid[1] * grid[2] <= uint64_t(1) << 24;
  return some && gridFits && blockFits && listFits && int(dynamicBytes) <= kernel.dynamicBytes;
}

/// Reads the parameters: from a buffer (`extra`: 1, buffer, 2, &size, 0) or one by one.
Status readParameters(const KernelInfo& info, void** each, void** extra,
                      std::vector<unsigned char>& bytes) {
  bytes.assign(info.parameterBytes, 0);
  if (each != nullptr) {
    for (uint64_t i = 0; i < info.parameterCount; i++) {
      std::memcpy(&bytes[info.parameters[i].offset], each[i], info.parameters[i].bytes);
    }
    return Ok;
  }
  if (extra == nullptr) return info.parameterCount == 0 ? Ok : InvalidValue;
  if (uint64_t(extra[0]) != 1 || uint64_t(extra[2]) != 2 || extra[4] != nullptr) return InvalidValue;
  if (*static_cast<size_t*>(extra[3]) != info.parameterBytes) return InvalidValue;
  std::memcpy(bytes.data(), extra[1], info.parameterBytes);
  return Ok;
}

Maker launch(int device, const Kernel& kernel, LaunchShape shape,
             std::vector<unsigned char> parameters) {
  const KernelLibrary library = kernel.library;
  const KernelInfo* info = kernel.info;
  return [=]() -> Body {
    if (settings().skipKernel == info->name) return [] { return Step::Done; };
    if (settings().failKernel == info->name && takesFault()) {
      return [=] {
        Engine& engine = Engine::get();
        Engine::Lock lock(engine.mutex);
        engine.fail(device, Status(settings().failCode), std::string("fail-kernel is ") + info->name);
        return Step::Done;
      };
    }
    LaunchShape seeded = shape;
    seeded.seed = settings().order == Order::Eager ? 0 : 1 + Engine::get().choose(1u << 30);
    const std::shared_ptr<KernelLaunch> started(library.begin(info, &seeded, parameters.data()),
                                                library.end);
    return [=] {
      char complaint[300];
      const int outcome = library.step(started.get(), complaint, sizeof complaint);
      if (outcome <= 1) return outcome == 0 ? Step::Done : Step::More;
      Engine& engine = Engine::get();
      Engine::Lock lock(engine.mutex);
      engine.fail(device, outcome == 2 ? IllegalAddress : LaunchFailed, complaint);
      return Step::Done;
    };
  };
}

Status launchKernel(uint64_t function, const LaunchShape& shape, uint64_t stream, void** each,
                    void** extra) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const Kernel* kernel = kernelOf(call, function);
  const StreamRef into = call.stream(stream);
  if (kernel == nullptr || into == nullptr) return InvalidHandle;
  // Copies may be of other devices, but not launches.
  if (kernel->device != call.device || into->device != call.device) return InvalidHandle;
  if (!validShape(shape, *kernel)) return InvalidValue;
  std::vector<unsigned char> parameters;
  const Status read = readParameters(*kernel->info, each, extra, parameters);
  if (read != Ok) return read;
  return call.submit(into, kernel->info->name,
                     launch(call.device, *kernel, shape, std::move(parameters)));
}

}  // namespace
}  // namespace soft

using namespace soft;

CUDA_API cuModuleLoadDataEx(uint64_t* module, const char* image, unsigned, const int*, void**) {
  Call call;
  return call.refused() ? call.status : loadModule(call, module, image);
}
CUDA_API cuModuleLoadData(uint64_t* module, const char* image) {
  return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}

CUDA_API cuModuleUnload(uint64_t module) {
  Call call;
  if (call.refused()) return call.status;
  return call.driver.modules.remove(module) == nullptr ? InvalidHandle : Ok;
}

CUDA_API cuModuleGetFunction(uint64_t* function, uint64_t handle, const char* name) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const auto module = call.driver.modules.find(handle);
  if (module == nullptr) return InvalidHandle;
  const KernelInfo* info = module->library.find(name);
  if (info == nullptr || module->entries.count(name) == 0) return NotFound;
  auto& kernel = module->kernels[name];
  if (kernel == nullptr) kernel = std::make_shared<Kernel>(Kernel{info, module->library, module->device});
  *function = uint64_t(kernel.get());
  return Ok;
}

CUDA_API cuFuncGetParamInfo(uint64_t function, size_t index, size_t* offset, size_t* bytes) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const Kernel* kernel = kernelOf(call, function);
  if (kernel == nullptr) return InvalidHandle;
  if (index >= kernel->info->parameterCount) return InvalidValue;
  *offset = kernel->info->parameters[index].offset;
  if (bytes != nullptr) *bytes = kernel->info->parameters[index].bytes;
  return Ok;
}

CUDA_API cuFuncSetAttribute(uint64_t function, int attribute, int value) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  Kernel* kernel = kernelOf(call, function);
  if (kernel == nullptr) return InvalidHandle;
  if (attribute == 9) return value >= -1 && value <= 100 ? Ok : InvalidValue;  // a carve-out is a wish
  if (attribute != 8 || value < 0 || value > mostSharedBytes) return InvalidValue;
  kernel->dynamicBytes = value;
  return Ok;
}

/// Registers and static shared memory are the compiler's for a GPU; here they are 0.
CUDA_API cuFuncGetAttribute(int* value, int attribute, uint64_t function) {
  Call call(Call::CaptureSafe);
  if (call.refused()) return call.status;
  const Kernel* kernel = kernelOf(call, function);
  if (kernel == nullptr) return InvalidHandle;
  if (attribute < 0 || attribute > 15) return InvalidValue;
  *value = attribute == 0 ? 1024 : attribute == 8 ? kernel->dynamicBytes : 0;
  return Ok;
}

CUDA_API cuLaunchKernel(uint64_t function, unsigned gridX, unsigned gridY, unsigned gridZ,
                        unsigned blockX, unsigned blockY, unsigned blockZ, unsigned dynamicBytes,
                        uint64_t stream, void** each, void** extra) {
  return launchKernel(function, {{gridX, gridY, gridZ}, {blockX, blockY, blockZ}, dynamicBytes, 0, 0},
                      stream, each, extra);
}

/// CUlaunchConfig. Its attributes change nothing here, but that the race checker holds a programmatic
/// launch to its rules.
struct LaunchConfig {
  unsigned grid[3], block[3], dynamicBytes;
  uint64_t stream, attributes;
  unsigned attributeCount;
};
static_assert(sizeof(LaunchConfig) == 56);

struct LaunchAttribute {
  int id;
  int padding;
  int value[16];
};
static_assert(sizeof(LaunchAttribute) == 72);
constexpr int programmaticStreamSerialization = 6;

static unsigned isProgrammatic(const LaunchConfig& config) {
  const auto* attributes = reinterpret_cast<const LaunchAttribute*>(config.attributes);
  for (unsigned i = 0; i < config.attributeCount; i++) {
    const auto& [id, padding, value] = attributes[i];
    if (id == programmaticStreamSerialization && value[0] != 0) return 1;
  }
  return 0;
}

CUDA_API cuLaunchKernelEx(const LaunchConfig* config, uint64_t function, void** each, void** extra) {
  if (config == nullptr) return InvalidValue;
  const auto& [grid, block, dynamicBytes, stream, attributes, attributeCount] = *config;
  return launchKernel(function,
                      {{grid[0], grid[1], grid[2]},
                       {block[0], block[1], block[2]},
                       dynamicBytes,
                       isProgrammatic(*config),
                       0},
                      stream, each, extra);
}
