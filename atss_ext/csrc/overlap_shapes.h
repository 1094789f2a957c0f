// What the overlap ops accept and how their results are laid out. Host only.
#pragma once

#include <c10/util/SmallVector.h>

#include "arguments.h"

namespace atss_ext {

// The type of the result: that of the inputs, or the wider of the two.
inline at::ScalarType overlap_type(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  return c10::promoteTypes(boxes1.scalar_type(), boxes2.scalar_type());
}

// Rows are boxes1, columns are boxes2. Images share the rows when boxes1 is [N, 4]. Packed columns of all
// images stand side by side: [N, T].
struct OverlapShape {
  int64_t images, rows;
  int64_t row_step;       // boxes from an image's first row to the next image's; 0 where images share them
  int64_t columns_each;   // columns of an image unless packed
  int64_t output_stride;  // from row to row
  c10::SmallVector<int64_t, 3> output;

  int64_t first_row(int64_t image) const { return image * row_step; }
  int64_t first_column(int64_t image, const int64_t* offsets) const {
    return offsets ? offsets[image] : image * columns_each;
  }
  int64_t columns(int64_t image, const int64_t* offsets) const {
    return offsets ? offsets[image + 1] - offsets[image] : columns_each;
  }
  int64_t first_output(int64_t image, int64_t first_column) const {
    return output.size() == 3 ? image * rows * columns_each : first_column;
  }
};

inline OverlapShape check_overlap(const at::Tensor& boxes1, const at::Tensor& boxes2,
                                  const OptionalTensor& offsets) {
  check_boxes(boxes1, "boxes1");
  check_boxes(boxes2, "boxes2");
  check_same_device(boxes1, boxes2, "boxes2");
  if (offsets) {
    TORCH_CHECK_VALUE(boxes2.dim() == 2, "with offsets, boxes2 must be [T, 4], got ", boxes2.sizes());
    check_offsets(*offsets, boxes2, "offsets");
    const int64_t images = offsets->numel() - 1, total = boxes2.size(0);
    TORCH_CHECK_VALUE(boxes1.dim() == 2 || (boxes1.dim() == 3 && boxes1.size(0) == images),
                      "with offsets of ", images, " images, boxes1 must be [N, 4] or [", images,
                      ", N, 4], got ", boxes1.sizes());
    const int64_t rows = boxes1.size(-2);
    return {images, rows, boxes1.dim() == 3 ? rows : 0, 0, total, {rows, total}};
  }
  if (boxes1.dim() == 2 && boxes2.dim() == 2) {
    return {1, boxes1.size(0), 0, boxes2.size(0), boxes2.size(0), {boxes1.size(0), boxes2.size(0)}};
  }
  TORCH_CHECK_VALUE(boxes1.dim() == 3 && boxes2.dim() == 3 && boxes1.size(0) == boxes2.size(0),
                    "boxes must be [N, 4] and [M, 4], or [B, N, 4] and [B, M, 4], got ", boxes1.sizes(),
                    " and ", boxes2.sizes());
  const int64_t images = boxes1.size(0), rows = boxes1.size(1), columns = boxes2.size(1);
  return {images, rows, rows, columns, columns, {images, rows, columns}};
}

inline void check_aligned(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  check_boxes(boxes1, "boxes1");
  check_boxes(boxes2, "boxes2");
  check_same_device(boxes1, boxes2, "boxes2");
  TORCH_CHECK_VALUE(boxes2.sizes() == boxes1.sizes(), "boxes2 must be ", boxes1.sizes(), " like boxes1, got ",
                    boxes2.sizes());
}

inline void check_aligned_backward(const at::Tensor& grad, const at::Tensor& boxes1,
                                   const at::Tensor& boxes2) {
  check_aligned(boxes1, boxes2);
  TORCH_CHECK_VALUE(grad.sizes() == boxes1.sizes().slice(0, boxes1.dim() - 1), "grad must be ",
                    boxes1.sizes().slice(0, boxes1.dim() - 1), ", got ", grad.sizes());
}

}  // namespace atss_ext
