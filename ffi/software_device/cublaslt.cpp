// cuBLASLt of the software device: products of float32, bfloat16 and float16 matrices with sums in
// float32, in the order of k. Types and attributes beyond that are refused, as the real library refuses
// what it has no algorithm for.
#include <algorithm>
#include <cstring>

#include "cublaslt_product.h"
#include "device.h"

namespace soft::cublas {
namespace {

enum BlasStatus : int {
  Success = 0,
  NoHandle = 1,
  InvalidArgument = 7,
  ExecutionFailed = 13,
  NoAlgorithm = 15
};

struct StatusName {
  int code;
  const char* name;
  const char* text;
};
const StatusName statusNames[] = {
    {Success, "CUBLAS_STATUS_SUCCESS", "success"},
    {NoHandle, "CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
    {InvalidArgument, "CUBLAS_STATUS_INVALID_VALUE",
     "an unsupported value or parameter was passed to the function"},
    {ExecutionFailed, "CUBLAS_STATUS_EXECUTION_FAILED", "the GPU program failed to execute"},
    {NoAlgorithm, "CUBLAS_STATUS_NOT_SUPPORTED", "the functionality requested is not supported"},
};

constexpr char algorithmMagic[8] = {'L', 'X', 'S', 'O', 'F', 'T', 'M', 'M'};
/// What a product asks of the workspace, if it may have as much: it writes there, so that two streams
/// with one workspace are seen.
constexpr uint64_t workspaceWish = 64 << 10;

struct Preference {
  uint64_t workspaceBytes = 0;
};

struct Library {
  Handles<int> handles;
  Handles<Description> descriptions;
  Handles<Layout> layouts;
  Handles<Preference> preferences;
};
Library& library() {
  static Library& one = *new Library;
  return one;
}

/// What an algorithm is good for: another product is refused, as by the real library.
uint64_t shapeOf(const Product& product) {
  uint64_t hash = 14695981039346656037ull;
  for (const Layout* one : {&product.a, &product.b, &product.c, &product.d}) {
    for (uint64_t value : {uint64_t(one->type), one->rows, one->columns, uint64_t(one->columnStride)}) {
      hash = (hash ^ value) * 1099511628211ull;
    }
  }
  return hash ^ uint64_t(product.description.transposeA) << 1 ^ uint64_t(product.description.transposeB);
}

/// Product of these handles; InvalidArgument if one is unknown.
BlasStatus productOf(uint64_t handle, uint64_t description, uint64_t a, uint64_t b, uint64_t c,
                     uint64_t d, Product& product) {
  Library& all = library();
  if (all.handles.find(handle) == nullptr) return NoHandle;
  const auto described = all.descriptions.find(description);
  if (described == nullptr) return InvalidArgument;
  product.description = *described;
  const std::pair<uint64_t, Layout*> layouts[] = {
      {a, &product.a}, {b, &product.b}, {c, &product.c}, {d, &product.d}};
  for (auto& [number, layout] : layouts) {
    const auto found = all.layouts.find(number);
    if (found == nullptr) return InvalidArgument;
    *layout = *found;
  }
  if (!product.fits()) return InvalidArgument;
  return product.supported() ? Success : NoAlgorithm;
}

struct Algorithm {
  char magic[8];
  uint64_t shape, workspaceBytes;
  char rest[40];
};

/// cublasLtMatmulHeuristicResult_t.
struct HeuristicResult {
  Algorithm algorithm;
  uint64_t workspaceBytes;
  int state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(HeuristicResult) == 96);

template <class T>
bool setAttribute(T& target, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) return false;
  std::memcpy(&target, value, bytes);
  return true;
}

/// Whether an attribute of cublasLtMatmulDescAttributes_t is known and its value has the right size.
bool setDescription(Description& target, int attribute, const void* value, size_t bytes) {
  switch (attribute) {
    case 0: return setAttribute(target.computeType, value, bytes);
    case 1: return setAttribute(target.scaleType, value, bytes);
    case 2: return setAttribute(target.pointerMode, value, bytes);
    case 3: return setAttribute(target.transposeA, value, bytes);
    case 4: return setAttribute(target.transposeB, value, bytes);
    case 5: return setAttribute(target.transposeC, value, bytes);
    case 7: return setAttribute(target.epilogue, value, bytes);
    case 8: return setAttribute(target.bias, value, bytes);
    case 26: return setAttribute(target.biasType, value, bytes);
    default: return false;
  }
}

const StatusName* statusName(int code) {
  for (auto& one : statusNames) {
    if (one.code == code) return &one;
  }
  return nullptr;
}

Engine::Lock locked() { return Engine::Lock(Engine::get().mutex); }

}  // namespace
}  // namespace soft::cublas

using namespace soft::cublas;

#define CUBLAS_API extern "C" __attribute__((visibility("default")))

CUBLAS_API size_t cublasLtGetVersion() { return 130000; }
CUBLAS_API const char* cublasLtGetStatusName(int code) {
  const StatusName* known = statusName(code);
  return known == nullptr ? "unknown status" : known->name;
}
CUBLAS_API const char* cublasLtGetStatusString(int code) {
  const StatusName* known = statusName(code);
  return known == nullptr ? "unknown status" : known->text;
}

CUBLAS_API int cublasLtCreate(uint64_t* handle) {
  soft::Call call;
  if (call.refused()) return NoHandle;
  *handle = library().handles.add(std::make_shared<int>(call.device));
  return Success;
}
CUBLAS_API int cublasLtDestroy(uint64_t handle) {
  const auto lock = locked();
  return library().handles.remove(handle) == nullptr ? NoHandle : Success;
}

CUBLAS_API int cublasLtMatmulDescCreate(uint64_t* description, int computeType, int scaleType) {
  const auto lock = locked();
  auto made = std::make_shared<Description>();
  made->computeType = computeType;
  made->scaleType = scaleType;
  *description = library().descriptions.add(made);
  return Success;
}
CUBLAS_API int cublasLtMatmulDescDestroy(uint64_t description) {
  const auto lock = locked();
  return library().descriptions.remove(description) == nullptr ? InvalidArgument : Success;
}
CUBLAS_API int cublasLtMatmulDescSetAttribute(uint64_t description, int attribute, const void* value,
                                              size_t bytes) {
  const auto lock = locked();
  const auto found = library().descriptions.find(description);
  if (found == nullptr || value == nullptr) return InvalidArgument;
  return setDescription(*found, attribute, value, bytes) ? Success : InvalidArgument;
}

CUBLAS_API int cublasLtMatrixLayoutCreate(uint64_t* layout, int type, uint64_t rows, uint64_t columns,
                                          int64_t columnStride) {
  const auto lock = locked();
  constexpr uint64_t most = uint64_t(1) << 31;
  if (rows == 0 || columns == 0 || rows > most || columns > most) return InvalidArgument;
  if (columnStride < int64_t(rows) || columnStride > int64_t(most)) return InvalidArgument;
  *layout = library().layouts.add(std::make_shared<Layout>(Layout{type, rows, columns, columnStride}));
  return Success;
}
CUBLAS_API int cublasLtMatrixLayoutDestroy(uint64_t layout) {
  const auto lock = locked();
  return library().layouts.remove(layout) == nullptr ? InvalidArgument : Success;
}

CUBLAS_API int cublasLtMatmulPreferenceCreate(uint64_t* preference) {
  const auto lock = locked();
  *preference = library().preferences.add(std::make_shared<Preference>());
  return Success;
}
CUBLAS_API int cublasLtMatmulPreferenceDestroy(uint64_t preference) {
  const auto lock = locked();
  return library().preferences.remove(preference) == nullptr ? InvalidArgument : Success;
}
/// Attribute 1 is the most workspace, 3 the ways to split sums, of which there is none, 5 to 8 alignments.
CUBLAS_API int cublasLtMatmulPreferenceSetAttribute(uint64_t preference, int attribute,
                                                    const void* value, size_t bytes) {
  const auto lock = locked();
  const auto found = library().preferences.find(preference);
  if (found == nullptr || value == nullptr) return InvalidArgument;
  uint32_t unused;
  const bool isKnown = attribute == 1 || attribute == 3 || (attribute >= 5 && attribute <= 8);
  const bool isSet = attribute == 1 ? setAttribute(found->workspaceBytes, value, bytes)
                                    : setAttribute(unused, value, bytes);
  return isKnown && isSet ? Success : InvalidArgument;
}

CUBLAS_API int cublasLtMatmulAlgoGetHeuristic(uint64_t handle, uint64_t description, uint64_t a,
                                              uint64_t b, uint64_t c, uint64_t d, uint64_t preference,
                                              int wanted, HeuristicResult* results, int* found) {
  const auto lock = locked();
  const auto preferred = library().preferences.find(preference);
  if (preferred == nullptr || wanted < 1 || results == nullptr || found == nullptr)
    return InvalidArgument;
  *found = 0;
  Product product{};
  const BlasStatus status = productOf(handle, description, a, b, c, d, product);
  if (status != Success) return status;
  HeuristicResult result{};
  std::memcpy(result.algorithm.magic, algorithmMagic, sizeof algorithmMagic);
  result.algorithm.shape = shapeOf(product);
  result.workspaceBytes = std::min(preferred->workspaceBytes, workspaceWish);
  result.algorithm.workspaceBytes = result.workspaceBytes;
  results[0] = result;
  *found = 1;
  return Success;
}

CUBLAS_API int cublasLtMatmul(uint64_t handle, uint64_t description, const float* alpha,
                              uint64_t addressA, uint64_t a, uint64_t addressB, uint64_t b,
                              const float* beta, uint64_t addressC, uint64_t c, uint64_t addressD,
                              uint64_t d, const Algorithm* algorithm, uint64_t workspace,
                              size_t workspaceBytes, uint64_t stream) {
  soft::Call call(soft::Call::CaptureSafe);
  if (call.refused()) return call.status == soft::InvalidContext ? NoHandle : ExecutionFailed;
  Product product{};
  const BlasStatus status = productOf(handle, description, a, b, c, d, product);
  if (status != Success) return status;
  if (alpha == nullptr || beta == nullptr) return InvalidArgument;
  product.addressA = addressA;
  product.addressB = addressB;
  product.addressC = addressC;
  product.addressD = addressD;
  product.alpha = *alpha;
  product.beta = *beta;
  if (algorithm != nullptr) {
    const bool own = std::memcmp(algorithm->magic, algorithmMagic, sizeof algorithmMagic) == 0;
    if (!own || algorithm->shape != shapeOf(product)) return NoAlgorithm;
    if (workspaceBytes < algorithm->workspaceBytes) return InvalidArgument;
    product.workspace = workspace;
    product.workspaceBytes = algorithm->workspaceBytes;
  }
  product.skew = soft::settings().skewProducts;
  for (auto& [address, bytes] : product.ranges()) {
    const auto region = call.memory.find(address);
    if (region == nullptr || !region->contains(address, bytes)) return InvalidArgument;
  }
  const soft::StreamRef into = call.stream(stream);
  const soft::Status submitted = call.submit(into, "matrix product", multiply(call.device, product));
  return submitted == soft::Ok              ? Success
         : submitted == soft::InvalidHandle ? InvalidArgument
                                            : ExecutionFailed;
}
