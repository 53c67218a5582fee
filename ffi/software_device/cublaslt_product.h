// Products of matrices, as cuBLASLt describes them.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "device.h"

namespace soft::cublas {

/// cudaDataType of library_types.h.
enum ElementType : int { Float32 = 0, Float16 = 2, BFloat16 = 14 };

constexpr int compute32F = 68;
constexpr int epilogueDefault = 1, epilogueBias = 4;
/// 0 for types that are not supported.
inline unsigned bytesOf(int type) {
  return type == Float32 ? 4 : type == Float16 || type == BFloat16 ? 2 : 0;
}

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

/// D [m, n] = alpha op(A) [m, k] op(B) [k, n] + beta C, and a bias [m] added to each column.
struct Product {
  Description description;
  Layout a, b, c, d;
  uint64_t addressA, addressB, addressC, addressD, workspace, workspaceBytes;
  float alpha, beta;
  int skew;  ///< See `Settings::skewProducts`.

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
    std::vector<std::pair<uint64_t, uint64_t>> all = {
        {addressA, a.bytes()}, {addressB, b.bytes()}, {addressD, d.bytes()}};
    if (beta != 0) all.push_back({addressC, c.bytes()});
    if (description.epilogue == epilogueBias)
      all.push_back({description.bias, rows() * bytesOf(biasType())});
    if (workspaceBytes > 0) all.push_back({workspace, workspaceBytes});
    return all;
  }
  void computeColumn(uint64_t column, std::vector<float>& ofB) const;
};

/// The work of a product, column by column; a fault ends the device's context.
Maker multiply(int device, const Product& product);

}  // namespace soft::cublas
