#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <tuple>

#include "../aligned_overlap.h"
#include "../overlap_shapes.h"

namespace atss_ext {
namespace {

constexpr int64_t kGrain = 8192;

template <typename T>
void fill_overlaps(IoUMode mode,
                   const T* boxes1,  // [count, 4]
                   const T* boxes2,  // [count, 4]
                   T* out,           // [count]
                   int64_t count) {
  at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      out[i] = overlap_of(mode, load_box(boxes1 + 4 * i), load_box(boxes2 + 4 * i));
    }
  });
}

at::Tensor aligned_box_iou_cpu(const at::Tensor& boxes1, const at::Tensor& boxes2,
                               c10::string_view mode_name) {
  const IoUMode mode = parse_iou_mode(mode_name);
  check_aligned(boxes1, boxes2);
  const auto dtype = compute_type(boxes1, boxes2);
  const at::Tensor a = boxes1.to(dtype).contiguous(), b = boxes2.to(dtype).contiguous();
  at::Tensor out = at::empty(a.sizes().slice(0, a.dim() - 1), a.options());
  if (dtype == at::kDouble) {
    fill_overlaps(mode, a.const_data_ptr<double>(), b.const_data_ptr<double>(),
                  out.mutable_data_ptr<double>(), out.numel());
  } else {
    fill_overlaps(mode, a.const_data_ptr<float>(), b.const_data_ptr<float>(), out.mutable_data_ptr<float>(),
                  out.numel());
  }
  return out.to(overlap_type(boxes1, boxes2));
}

template <typename T>
void fill_gradients(IoUMode mode, const at::Tensor& grad, const at::Tensor& boxes1, const at::Tensor& boxes2,
                    at::Tensor& grad1, at::Tensor& grad2) {
  const T *g = grad.const_data_ptr<T>(), *a = boxes1.const_data_ptr<T>(), *b = boxes2.const_data_ptr<T>();
  T *ga = grad1.mutable_data_ptr<T>(), *gb = grad2.mutable_data_ptr<T>();
  at::parallel_for(0, grad.numel(), kGrain / 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      overlap_gradient(mode, a + 4 * i, b + 4 * i, g[i], ga + 4 * i, gb + 4 * i);
    }
  });
}

std::tuple<at::Tensor, at::Tensor> aligned_box_iou_backward_cpu(const at::Tensor& grad,
                                                                const at::Tensor& boxes1,
                                                                const at::Tensor& boxes2,
                                                                c10::string_view mode_name) {
  const IoUMode mode = parse_iou_mode(mode_name);
  check_aligned_backward(grad, boxes1, boxes2);
  const auto dtype = compute_type(boxes1, boxes2);
  const at::Tensor a = boxes1.to(dtype).contiguous(), b = boxes2.to(dtype).contiguous();
  at::Tensor grad1 = at::empty_like(a), grad2 = at::empty_like(b);
  if (dtype == at::kDouble) {
    fill_gradients<double>(mode, grad.to(dtype).contiguous(), a, b, grad1, grad2);
  } else {
    fill_gradients<float>(mode, grad.to(dtype).contiguous(), a, b, grad1, grad2);
  }
  return {grad1.to(boxes1.scalar_type()), grad2.to(boxes2.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CPU, m) {
  m.impl("aligned_box_iou", &aligned_box_iou_cpu);
  m.impl("aligned_box_iou_backward", &aligned_box_iou_backward_cpu);
}

}  // namespace atss_ext
