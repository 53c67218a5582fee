#include "cublaslt_product.h"

#include <cmath>
#include <cstring>

#include "copies.h"

namespace soft::cublas {
namespace {

/// Products of one element each that a piece of the work runs.
constexpr uint64_t pieceProducts = 1 << 23;

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
    const uint16_t half =
        std::isnan(value) ? 0x7fff : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    std::memcpy(at, &half, 2);
  }
}

/// Element (row, column) of op(matrix).
const unsigned char* element(uint64_t matrix, const Layout& layout, bool transposed, uint64_t row,
                             uint64_t column) {
  if (transposed) std::swap(row, column);
  return reinterpret_cast<unsigned char*>(matrix) +
         (column * uint64_t(layout.columnStride) + row) * bytesOf(layout.type);
}

}  // namespace

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
    if (skew == 1 && column >= columns() / 2) sum *= 1.0625f;
    if (skew == 2) sum *= 1 + 0x1p-14f;
    float value = alpha * sum;
    if (beta != 0) value += beta * load(element(addressC, c, false, row, column), c.type);
    if (description.epilogue == epilogueBias) {
      const auto* bias = reinterpret_cast<unsigned char*>(description.bias);
      value += load(bias + row * bytesOf(biasType()), biasType());
    }
    store(const_cast<unsigned char*>(element(addressD, d, false, row, column)), d.type, value);
  }
}

namespace {

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

}  // namespace

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

}  // namespace soft::cublas
