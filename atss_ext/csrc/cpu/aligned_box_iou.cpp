#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include "../box_iou.h"

namespace atss_ext {
namespace {

constexpr int64_t kGrain = 8192;

template <typename T>
void fill_ious(const T* boxes1,  // [N, 4]
               const T* boxes2,  // [N, 4]
               T* ious,          // [N]
               int64_t count) {
  at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T *a = boxes1 + 4 * i, *b = boxes2 + 4 * i;
      ious[i] = box_iou<T>({a[0], a[1], a[2], a[3]}, {b[0], b[1], b[2], b[3]});
    }
  });
}

at::Tensor aligned_box_iou_cpu(const at::Tensor& boxes1, const at::Tensor& boxes2) {
  TORCH_CHECK(boxes1.dim() == 2 && boxes1.size(1) == 4, "boxes1 must be [N, 4], got ", boxes1.sizes());
  TORCH_CHECK(boxes2.sizes() == boxes1.sizes(), "boxes2 must be ", boxes1.sizes(), " like boxes1, got ",
              boxes2.sizes());
  TORCH_CHECK(boxes1.scalar_type() == boxes2.scalar_type(), "boxes1 is ", boxes1.scalar_type(),
              " and boxes2 ", boxes2.scalar_type(), ": convert one of them");
  const auto dtype = boxes1.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor a = boxes1.to(dtype).contiguous(), b = boxes2.to(dtype).contiguous();
  at::Tensor ious = at::empty({a.size(0)}, a.options());
  if (dtype == at::kDouble) {
    fill_ious(a.const_data_ptr<double>(), b.const_data_ptr<double>(), ious.mutable_data_ptr<double>(),
              a.size(0));
  } else {
    fill_ious(a.const_data_ptr<float>(), b.const_data_ptr<float>(), ious.mutable_data_ptr<float>(),
              a.size(0));
  }
  return ious.to(boxes1.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CPU, m) { m.impl("aligned_box_iou", &aligned_box_iou_cpu); }

}  // namespace atss_ext
