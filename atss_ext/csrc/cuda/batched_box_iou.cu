#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <torch/library.h>

#include "../overlap_shapes.h"
#include "launch.h"

namespace atss_ext {
namespace {

// A thread keeps kColumns boxes and walks kRows rows, so that boxes are read once for many overlaps.
constexpr int kColumns = 4;
constexpr int kRows = 4;

template <typename S>
struct alignas(kColumns * sizeof(S) < 16 ? kColumns * sizeof(S) : 16) Pack {
  S values[kColumns];
};

// Reads a box in 16-byte words; boxes of a tensor start at multiples of that (aligned below).
template <typename T>
__device__ Box<T> load_whole(const T* boxes, int64_t i) {
  const Pack<T> pack = reinterpret_cast<const Pack<T>*>(boxes)[i];
  return {pack.values[0], pack.values[1], pack.values[2], pack.values[3]};
}

template <IoUMode kMode, typename T, typename S>
struct FillTile {
  const T* boxes1;         // [rows of all images, 4]
  const T* boxes2;         // [columns of all images, 4]
  const int64_t* offsets;  // [images + 1] where columns are packed and every image has its own rows
  int64_t images, rows, width, tiles, packs;
  S* out;  // [rows of all images, width]
  bool aligned;

  // A row's results; in one store where rows start at whole packs.
  __device__ void store(const Pack<S>& pack, int64_t row, int64_t column, int count) const {
    S* target = out + row * width + column;
    if (aligned && count == kColumns) {
      *reinterpret_cast<Pack<S>*>(target) = pack;
    } else {
      for (int c = 0; c < count; ++c) target[c] = pack.values[c];
    }
  }

  // i counts packs of columns, then tiles of rows, then images.
  __device__ void operator()(int64_t i) const {
    const int64_t column = i % packs * kColumns, tile = i / packs % tiles, image = i / packs / tiles;
    const int count = width - column < kColumns ? static_cast<int>(width - column) : kColumns;
    Box<T> columns[kColumns];
    T areas[kColumns];
    int64_t shift[kColumns];  // from a row to the row of the column's own image
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int64_t own = column + (c < count ? c : 0);
      columns[c] = load_whole(boxes2, image * width + own);
      areas[c] = box_area(columns[c]);
      shift[c] = offsets == nullptr ? 0 : image_of(offsets, images, own) * rows;
    }
    const int64_t first = tile * kRows, last = first + kRows < rows ? first + kRows : rows;
    for (int64_t row = first; row < last; ++row) {
      Pack<S> pack;
      const Box<T> shared = load_whole(boxes1, image * rows + row);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const Box<T> box = offsets == nullptr ? shared : load_whole(boxes1, row + shift[c]);
        pack.values[c] = static_cast<S>(box_overlap<kMode>(box, columns[c], box_area(box), areas[c]));
      }
      store(pack, image * rows + row, column, count);
    }
  }
};

template <IoUMode kMode, typename T, typename S>
void fill(const OverlapShape& shape, const at::Tensor& boxes1, const at::Tensor& boxes2,
          const OptionalTensor& offsets, at::Tensor& out) {
  const bool batched = shape.output.size() == 3, own_rows = offsets.has_value() && shape.row_step > 0;
  const int64_t width = shape.output_stride;
  const int64_t packs = (width + kColumns - 1) / kColumns, tiles = (shape.rows + kRows - 1) / kRows;
  const FillTile<kMode, T, S> body = {boxes1.const_data_ptr<T>(),
                                      boxes2.const_data_ptr<T>(),
                                      own_rows ? offsets->const_data_ptr<int64_t>() : nullptr,
                                      shape.images,
                                      shape.rows,
                                      width,
                                      tiles,
                                      packs,
                                      out.mutable_data_ptr<S>(),
                                      width % kColumns == 0};
  for_each(packs * tiles * (batched ? shape.images : 1), body);
}

template <typename T, typename S>
void fill(IoUMode mode, const OverlapShape& shape, const at::Tensor& boxes1, const at::Tensor& boxes2,
          const OptionalTensor& offsets, at::Tensor& out) {
  switch (mode) {
    case IoUMode::kIoU:
      return fill<IoUMode::kIoU, T, S>(shape, boxes1, boxes2, offsets, out);
    case IoUMode::kIoF:
      return fill<IoUMode::kIoF, T, S>(shape, boxes1, boxes2, offsets, out);
    case IoUMode::kGIoU:
      return fill<IoUMode::kGIoU, T, S>(shape, boxes1, boxes2, offsets, out);
    case IoUMode::kDIoU:
      return fill<IoUMode::kDIoU, T, S>(shape, boxes1, boxes2, offsets, out);
    case IoUMode::kCIoU:
      return fill<IoUMode::kCIoU, T, S>(shape, boxes1, boxes2, offsets, out);
  }
}

// Contiguous boxes whose memory starts at a multiple of 16 bytes; a view may start anywhere.
at::Tensor aligned_boxes(const at::Tensor& boxes, at::ScalarType dtype) {
  const at::Tensor whole = boxes.to(dtype).contiguous();
  return reinterpret_cast<uintptr_t>(whole.const_data_ptr()) % 16 == 0 ? whole : whole.clone();
}

at::Tensor batched_box_iou_cuda(const at::Tensor& boxes1, const at::Tensor& boxes2,
                                const OptionalTensor& offsets, c10::string_view mode_name) {
  const IoUMode mode = parse_iou_mode(mode_name);
  const OverlapShape shape = check_overlap(boxes1, boxes2, offsets);
  const c10::cuda::CUDAGuard guard(boxes1.device());
  const auto dtype = compute_type(boxes1, boxes2);
  const at::Tensor a = aligned_boxes(boxes1, dtype), b = aligned_boxes(boxes2, dtype);
  const OptionalTensor ends = offsets ? OptionalTensor(offsets->contiguous()) : OptionalTensor();
  const auto type = overlap_type(boxes1, boxes2);
  at::Tensor out = at::empty(shape.output, a.options().dtype(type));
  switch (type) {
    case at::kDouble:
      fill<double, double>(mode, shape, a, b, ends, out);
      break;
    case at::kHalf:
      fill<float, c10::Half>(mode, shape, a, b, ends, out);
      break;
    case at::kBFloat16:
      fill<float, c10::BFloat16>(mode, shape, a, b, ends, out);
      break;
    default:
      fill<float, float>(mode, shape, a, b, ends, out);
  }
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CUDA, m) { m.impl("batched_box_iou", &batched_box_iou_cuda); }

}  // namespace atss_ext
