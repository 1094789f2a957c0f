#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <torch/library.h>

#include "../overlap_shapes.h"
#include "launch.h"

namespace atss_ext {
namespace {

// Overlaps a thread computes and stores at once.
constexpr int kPack = 4;

template <typename S>
struct alignas(kPack * sizeof(S) < 16 ? kPack * sizeof(S) : 16) Pack {
  S values[kPack];
};

// Fills kPack neighbouring overlaps, in the order of the output.
template <IoUMode kMode, typename T, typename S>
struct FillPack {
  const T* boxes1;         // [rows of all images, 4]
  const T* boxes2;         // [columns of all images, 4]
  const int64_t* offsets;  // [images + 1] where columns are packed and every image has its own rows
  int64_t images, rows, width, total;
  bool batched;
  S* out;  // [total]

  __device__ int64_t divide(int64_t index, int64_t by) const {
    // A 64-bit division costs more than the overlap itself.
    return total <= INT32_MAX ? static_cast<uint32_t>(index) / static_cast<uint32_t>(by) : index / by;
  }

  __device__ T overlap(int64_t row, int64_t column) const {
    int64_t first = row, second = column;
    if (batched) second += divide(row, rows) * width;
    if (offsets != nullptr) first += image_of(offsets, images, column) * rows;
    return box_overlap<kMode>(load_box(boxes1 + 4 * first), load_box(boxes2 + 4 * second));
  }

  __device__ void operator()(int64_t pack) const {
    const int64_t begin = pack * kPack;
    int64_t row = divide(begin, width), column = begin - row * width;
    const int count = total - begin < kPack ? static_cast<int>(total - begin) : kPack;
    Pack<S> result;
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      if (i < count) result.values[i] = static_cast<S>(overlap(row, column));
      if (++column == width) {
        column = 0;
        ++row;
      }
    }
    if (count == kPack) {
      *reinterpret_cast<Pack<S>*>(out + begin) = result;
    } else {
      for (int i = 0; i < count; ++i) out[begin + i] = result.values[i];
    }
  }
};

template <IoUMode kMode, typename T, typename S>
void fill(const OverlapShape& shape, const at::Tensor& boxes1, const at::Tensor& boxes2,
          const OptionalTensor& offsets, at::Tensor& out) {
  const bool own_rows = offsets.has_value() && shape.row_step > 0;
  const FillPack<kMode, T, S> body = {boxes1.const_data_ptr<T>(),
                                      boxes2.const_data_ptr<T>(),
                                      own_rows ? offsets->const_data_ptr<int64_t>() : nullptr,
                                      shape.images,
                                      shape.rows,
                                      shape.output_stride,
                                      out.numel(),
                                      shape.output.size() == 3,
                                      out.mutable_data_ptr<S>()};
  for_each((out.numel() + kPack - 1) / kPack, body);
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

at::Tensor batched_box_iou_cuda(const at::Tensor& boxes1, const at::Tensor& boxes2,
                                const OptionalTensor& offsets, c10::string_view mode_name) {
  const IoUMode mode = parse_iou_mode(mode_name);
  const OverlapShape shape = check_overlap(boxes1, boxes2, offsets);
  const c10::cuda::CUDAGuard guard(boxes1.device());
  const auto dtype = compute_type(boxes1, boxes2);
  const at::Tensor a = boxes1.to(dtype).contiguous(), b = boxes2.to(dtype).contiguous();
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
