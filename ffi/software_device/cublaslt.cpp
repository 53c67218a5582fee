// cuBLASLt of the software device: products of float32, bfloat16 and float16 matrices with sums in
// float32, in the order of k. Types and attributes beyond that are refused, as the real library refuses
// what it has no algorithm for.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "copies.h"
#include "device.h"

namespace soft::cublas {
namespace {

enum BlasStatus : int { Success = 0, NoHandle = 1, InvalidArgument = 7, ExecutionFailed = 13, NoAlgorithm = 15 };

struct StatusName {
  int code;
  const char* name;
  const char* text;
};
const StatusName statusNames[] = {
    {Success, "CUBLAS_STATUS_SUCCESS", "success"},
    {NoHandle, "CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
    {InvalidArgument, "CUBLAS_STATUS_INVALID_VALUE", "an unsupported value or parameter was passed to the function"},
    {ExecutionFailed, "CUBLAS_STATUS_EXECUTION_FAILED", "the GPU program failed to execute"},
    {NoAlgorithm, "CUBLAS_STATUS_NOT_SUPPORTED", "the functionality requested is not supported"},
};

/// cudaDataType of library_types.h.
enum ElementType : int { Float32 = 0, Float16 = 2, BFloat16 = 14 };

constexpr int compute32F = 68;
constexpr int epilogueDefault = 1, epilogueBias = 4;
constexpr char algorithmMagic[8] = {'L', 'X', 'S', 'O', 'F', 'T', 'M', 'M'};
/// What a product asks of the workspace, if it may have as much: it writes there, so that two streams
/// with one workspace are seen.
constexpr uint64_t workspaceWish = 64 << 10;
/// Products of one element each that a piece of the work runs.
constexpr uint64_t pieceProducts = 1 << 23;

unsigned bytesOf(int type) { return type == Float32 ? 4 : type == Float16 || type == BFloat16 ? 2 : 0; }

struct Description {
  int computeType = compute32F, scaleType = Float32, pointerMode = 0;
  int transposeA = 0, transposeB = 0, transposeC = 0;
  int epilogue = epilogueDefault;
  uint64_t bias = 0;
  int biasType = -1;
};

/// A matrix by columns.
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t columnStride;
  uint64_t bytes() const { return (uint64_t(columnStride) * (columns - 1) + rows) * bytesOf(type); }
};

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

float load(const unsigned char* at, int type) {
  uint16_t half;
  if (type == Float32) {
    float value;
    std::memcpy(&value, at, 4);
    return value;
  }
  std::memcpy(&half, at, 2);
  if (type == Float16) {
    _Float16 value;
    std::memcpy(&value, &half, 2);
    return float(value);
  }
  const uint32_t bits = uint32_t(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

void store(unsigned char* at, int type, float value) {
  if (type == Float32) {
    std::memcpy(at, &value, 4);
  } else if (type == Float16) {
    const _Float16 half = static_cast<_Float16>(value);
    std::memcpy(at, &half, 2);
  } else {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    // To the nearest, ties to even; a NaN stays one.
    const uint16_t half = std::isnan(value) ? 0x7fff : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    std::memcpy(at, &half, 2);
  }
}

/// D [m, n] = alpha op(A) [m, k] op(B) [k, n] + beta C, and a bias [m] added to each column.
struct Product {
  Description description;
  Layout a, b, c, d;
  uint64_t addressA, addressB, addressC, addressD, workspace, workspaceBytes;
  float alpha, beta;

  uint64_t rows() const { return d.rows; }
  uint64_t columns() const { return d.columns; }
  uint64_t depth() const { return description.transposeA ? a.rows : a.columns; }
  int biasType() const { return description.biasType < 0 ? d.type : description.biasType; }

  bool fits() const {
    const uint64_t rowsA = description.transposeA ? a.columns : a.rows;
    const uint64_t depthB = description.transposeB ? b.columns : b.rows;
    const uint64_t columnsB = description.transposeB ? b.rows : b.columns;
    return rowsA == rows() && depthB == depth() && columnsB == columns() && c.rows == d.rows &&
           c.columns == d.columns && c.type == d.type;
  }
  bool supported() const {
    const bool plain = description.computeType == compute32F && description.scaleType == Float32 &&
                       description.pointerMode == 0 && description.transposeC == 0;
    const bool epilogue = description.epilogue == epilogueDefault ||
                          (description.epilogue == epilogueBias && bytesOf(biasType()) != 0);
    return plain && epilogue && a.type == b.type && bytesOf(a.type) != 0 && bytesOf(d.type) != 0;
  }
  /// All memory that the product touches.
  std::vector<std::pair<uint64_t, uint64_t>> ranges() const {
    std::vector<std::pair<uint64_t, uint64_t>> all = {{addressA, a.bytes()}, {addressB, b.bytes()}, {addressD, d.bytes()}};
    if (beta != 0) all.push_back({addressC, c.bytes()});
    if (description.epilogue == epilogueBias) all.push_back({description.bias, rows() * bytesOf(biasType())});
    if (workspaceBytes > 0) all.push_back({workspace, workspaceBytes});
    return all;
  }
  void computeColumn(uint64_t column, std::vector<float>& ofB) const;
};

/// Element (row, column) of op(matrix).
const unsigned char* element(uint64_t matrix, const Layout& layout, bool transposed, uint64_t row, uint64_t column) {
  if (transposed) std::swap(row, column);
  return reinterpret_cast<unsigned char*>(matrix) + (column * uint64_t(layout.columnStride) + row) * bytesOf(layout.type);
}

void Product::computeColumn(uint64_t column, std::vector<float>& ofB) const {
  ofB.resize(depth());
  for (uint64_t k = 0; k < depth(); k++) {
    ofB[k] = load(element(addressB, b, description.transposeB, k, column), b.type);
  }
  for (uint64_t row = 0; row < rows(); row++) {
    float sum = 0;
    for (uint64_t k = 0; k < depth(); k++) {
      sum += load(element(addressA, a, description.transposeA, row, k), a.type) * ofB[k];
    }
    float value = alpha * sum;
    if (beta != 0) value += beta * load(element(addressC, c, false, row, column), c.type);
    if (description.epilogue == epilogueBias) {
      const auto* bias = reinterpret_cast<unsigned char*>(description.bias);
      value += load(bias + row * bytesOf(biasType()), biasType());
    }
    store(const_cast<unsigned char*>(element(addressD, d, false, row, column)), d.type, value);
  }
}

/// False, and the end of the device's context, if some memory of the product is gone.
bool pinAll(const Product& product, int device, std::vector<RegionRef>& regions) {
  Engine& engine = Engine::get();
  Engine::Lock lock(engine.mutex);
  for (auto& [address, bytes] : product.ranges()) {
    regions.emplace_back();
    if (pin(address, bytes, regions.back()) && regions.back() != nullptr) continue;
    engine.fail(device, IllegalAddress, "a matrix product of memory that is not there (freed?)");
    return false;
  }
  return true;
}

Maker multiply(int device, const Product& product) {
  return [=]() -> Body {
    return [=, column = uint64_t(0)]() mutable {
      std::vector<RegionRef> regions;
      if (!pinAll(product, device, regions)) return Step::Done;
      if (product.workspaceBytes > 0) {
        std::memset(reinterpret_cast<void*>(product.workspace), poisonByte, product.workspaceBytes);
      }
      std::vector<float> ofB;
      for (uint64_t left = pieceProducts; column < product.columns();) {
        product.computeColumn(column++, ofB);
        const uint64_t spent = product.rows() * product.depth();
        if (spent >= left) break;
        left -= spent;
      }
      return column == product.columns() ? Step::Done : Step::More;
    };
  };
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
BlasStatus productOf(uint64_t handle, uint64_t description, uint64_t a, uint64_t b, uint64_t c, uint64_t d, Product& product) {
  Library& all = library();
  if (all.handles.find(handle) == nullptr) return NoHandle;
  const auto described = all.descriptions.find(description);
  if (described == nullptr) return InvalidArgument;
  product.description = *described;
  const std::pair<uint64_t, Layout*> layouts[] = {{a, &product.a}, {b, &product.b}, {c, &product.c}, {d, &product.d}};
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
CUBLAS_API int cublasLtMatmulDescSetAttribute(uint64_t description, int attribute, const void* value, size_t bytes) {
  const auto lock = locked();
  const auto found = library().descriptions.find(description);
  if (found == nullptr || value == nullptr) return InvalidArgument;
  return setDescription(*found, attribute, value, bytes) ? Success : InvalidArgument;
}

CUBLAS_API int cublasLtMatrixLayoutCreate(uint64_t* layout, int type, uint64_t rows, uint64_t columns, int64_t columnStride) {
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
/// Attribute 1 is the most workspace.
CUBLAS_API int cublasLtMatmulPreferenceSetAttribute(uint64_t preference, int attribute, const void* value, size_t bytes) {
  const auto lock = locked();
  const auto found = library().preferences.find(preference);
  if (found == nullptr || value == nullptr || attribute != 1) return InvalidArgument;
  return setAttribute(found->workspaceBytes, value, bytes) ? Success : InvalidArgument;
}

CUBLAS_API int cublasLtMatmulAlgoGetHeuristic(uint64_t handle, uint64_t description, uint64_t a, uint64_t b,
                                              uint64_t c, uint64_t d, uint64_t preference, int wanted,
                                              HeuristicResult* results, int* found) {
  const auto lock = locked();
  const auto preferred = library().preferences.find(preference);
  if (preferred == nullptr || wanted < 1 || results == nullptr || found == nullptr) return InvalidArgument;
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

CUBLAS_API int cublasLtMatmul(uint64_t handle, uint64_t description, const float* alpha, uint64_t addressA,
                              uint64_t a, uint64_t addressB, uint64_t b, const float* beta, uint64_t addressC,
                              uint64_t c, uint64_t addressD, uint64_t d, const Algorithm* algorithm,
                              uint64_t workspace, size_t workspaceBytes, uint64_t stream) {
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
  for (auto& [address, bytes] : product.ranges()) {
    const auto region = call.memory.find(address);
    if (region == nullptr || !region->contains(address, bytes)) return InvalidArgument;
  }
  const soft::StreamRef into = call.stream(stream);
  const soft::Status submitted = call.submit(into, "matrix product", multiply(call.device, product));
  return submitted == soft::Ok ? Success : submitted == soft::InvalidHandle ? InvalidArgument : ExecutionFailed;
}
