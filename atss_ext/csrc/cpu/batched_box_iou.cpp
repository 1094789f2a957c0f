#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "../arguments.h"
#include "../overlap_shapes.h"

namespace atss_ext {
namespace {

// Overlaps a thread computes before another one is worth waking.
constexpr int64_t kGrain = 1 << 15;

// Boxes as five columns, so that one vector register holds a coordinate of many.
template <typename T>
struct BoxColumns {
  const T *x1, *y1, *x2, *y2, *area;
};

// Box a comes by value: a reference might alias the output, and nothing would be vectorised.
template <IoUMode kMode, typename T>
ATSS_HD void fill_row(const Box<T> a, const BoxColumns<T> b, int64_t count, T* out) {
  const T area = box_area(a);
  for (int64_t i = 0; i < count; ++i) {
    out[i] = box_overlap<kMode, T>(a, {b.x1[i], b.y1[i], b.x2[i], b.y2[i]}, area, b.area[i]);
  }
}

// One row of overlaps: box a with count boxes b.
template <typename T>
ATSS_HD void fill_row(IoUMode mode, const Box<T>& a, const BoxColumns<T>& b, int64_t count, T* out) {
  switch (mode) {
    case IoUMode::kIoU:
      return fill_row<IoUMode::kIoU>(a, b, count, out);
    case IoUMode::kIoF:
      return fill_row<IoUMode::kIoF>(a, b, count, out);
    case IoUMode::kGIoU:
      return fill_row<IoUMode::kGIoU>(a, b, count, out);
    case IoUMode::kDIoU:
      return fill_row<IoUMode::kDIoU>(a, b, count, out);
    case IoUMode::kCIoU:
      return fill_row<IoUMode::kCIoU>(a, b, count, out);
  }
}

ATSS_VECTOR_CLONES void overlap_row(IoUMode mode, const Box<float>& a, const BoxColumns<float>& b,
                                    int64_t count, float* out) {
  fill_row(mode, a, b, count, out);
}

ATSS_VECTOR_CLONES void overlap_row(IoUMode mode, const Box<double>& a, const BoxColumns<double>& b,
                                    int64_t count, double* out) {
  fill_row(mode, a, b, count, out);
}

template <typename T>
at::Tensor split_columns(const at::Tensor& boxes) {  // [count, 4] -> [5, count]
  const int64_t count = boxes.size(0);
  at::Tensor columns = at::empty({5, count}, boxes.options());
  const T* box = boxes.const_data_ptr<T>();
  T* out = columns.mutable_data_ptr<T>();
  for (int64_t i = 0; i < count; ++i) {
    for (int c = 0; c < 4; ++c) out[c * count + i] = box[4 * i + c];
    out[4 * count + i] = box_area(load_box(box + 4 * i));
  }
  return columns;
}

template <typename T>
void fill_overlaps(const OverlapShape& shape, const at::Tensor& boxes1, const at::Tensor& boxes2,
                   const OptionalTensor& offsets, IoUMode mode, at::Tensor& out) {
  const at::Tensor columns = split_columns<T>(boxes2.view({-1, 4}));
  const int64_t total = columns.size(1);
  const T *rows = boxes1.const_data_ptr<T>(), *column = columns.const_data_ptr<T>();
  const int64_t* ends = offsets ? offsets->const_data_ptr<int64_t>() : nullptr;
  T* result = out.mutable_data_ptr<T>();
  for (int64_t image = 0; image < shape.images; ++image) {
    const int64_t begin = shape.first_column(image, ends), count = shape.columns(image, ends);
    const BoxColumns<T> b = {column + begin, column + total + begin, column + 2 * total + begin,
                             column + 3 * total + begin, column + 4 * total + begin};
    T* target = result + shape.first_output(image, begin);
    const T* source = rows + shape.first_row(image) * 4;
    at::parallel_for(0, shape.rows, kGrain / (count + 1) + 1, [&](int64_t from, int64_t to) {
      for (int64_t n = from; n < to; ++n) {
        overlap_row(mode, load_box(source + 4 * n), b, count, target + n * shape.output_stride);
      }
    });
  }
}

at::Tensor batched_box_iou_cpu(const at::Tensor& boxes1, const at::Tensor& boxes2,
                               const OptionalTensor& offsets, c10::string_view mode_name) {
  const IoUMode mode = parse_iou_mode(mode_name);
  const OverlapShape shape = check_overlap(boxes1, boxes2, offsets);
  const auto dtype = compute_type(boxes1, boxes2);
  const at::Tensor a = boxes1.to(dtype).contiguous(), b = boxes2.to(dtype).contiguous();
  const OptionalTensor ends = offsets ? OptionalTensor(offsets->contiguous()) : OptionalTensor();
  at::Tensor out = at::empty(shape.output, a.options());
  if (dtype == at::kDouble) {
    fill_overlaps<double>(shape, a, b, ends, mode, out);
  } else {
    fill_overlaps<float>(shape, a, b, ends, mode, out);
  }
  return out.to(overlap_type(boxes1, boxes2));
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CPU, m) { m.impl("batched_box_iou", &batched_box_iou_cpu); }

}  // namespace atss_ext
