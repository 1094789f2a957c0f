#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <tuple>

#include "../aligned_overlap.h"
#include "../overlap_shapes.h"
#include "launch.h"

namespace atss_ext {
namespace {

template <typename T>
struct FillOverlap {
  IoUMode mode;
  const T* boxes1;  // [count, 4]
  const T* boxes2;  // [count, 4]
  T* out;           // [count]

  __device__ void operator()(int64_t i) const {
    out[i] = overlap_of(mode, load_box(boxes1 + 4 * i), load_box(boxes2 + 4 * i));
  }
};

template <typename T>
struct FillGradient {
  IoUMode mode;
  const T* grad;    // [count]
  const T* boxes1;  // [count, 4]
  const T* boxes2;  // [count, 4]
  T* grad1;         // [count, 4]
  T* grad2;         // [count, 4]

  __device__ void operator()(int64_t i) const {
    overlap_gradient(mode, boxes1 + 4 * i, boxes2 + 4 * i, grad[i], grad1 + 4 * i, grad2 + 4 * i);
  }
};

template <typename T>
void fill_overlaps(IoUMode mode, const at::Tensor& boxes1, const at::Tensor& boxes2, at::Tensor& out) {
  for_each(out.numel(), FillOverlap<T>{mode, boxes1.const_data_ptr<T>(), boxes2.const_data_ptr<T>(),
                                       out.mutable_data_ptr<T>()});
}

at::Tensor aligned_box_iou_cuda(const at::Tensor& boxes1, const at::Tensor& boxes2,
                                c10::string_view mode_name) {
  const IoUMode mode = parse_iou_mode(mode_name);
  check_aligned(boxes1, boxes2);
  const c10::cuda::CUDAGuard guard(boxes1.device());
  const auto dtype = compute_type(boxes1, boxes2);
  const at::Tensor a = boxes1.to(dtype).contiguous(), b = boxes2.to(dtype).contiguous();
  at::Tensor out = at::empty(a.sizes().slice(0, a.dim() - 1), a.options());
  if (dtype == at::kDouble) {
    fill_overlaps<double>(mode, a, b, out);
  } else {
    fill_overlaps<float>(mode, a, b, out);
  }
  return out.to(overlap_type(boxes1, boxes2));
}

template <typename T>
void fill_gradients(IoUMode mode, const at::Tensor& grad, const at::Tensor& boxes1, const at::Tensor& boxes2,
                    at::Tensor& grad1, at::Tensor& grad2) {
  for_each(grad.numel(), FillGradient<T>{mode, grad.const_data_ptr<T>(), boxes1.const_data_ptr<T>(),
                                         boxes2.const_data_ptr<T>(), grad1.mutable_data_ptr<T>(),
                                         grad2.mutable_data_ptr<T>()});
}

std::tuple<at::Tensor, at::Tensor> aligned_box_iou_backward_cuda(const at::Tensor& grad,
                                                                 const at::Tensor& boxes1,
                                                                 const at::Tensor& boxes2,
                                                                 c10::string_view mode_name) {
  const IoUMode mode = parse_iou_mode(mode_name);
  check_aligned_backward(grad, boxes1, boxes2);
  const c10::cuda::CUDAGuard guard(boxes1.device());
  const auto dtype = compute_type(boxes1, boxes2);
  const at::Tensor a = boxes1.to(dtype).contiguous(), b = boxes2.to(dtype).contiguous();
  const at::Tensor g = grad.to(dtype).contiguous();
  at::Tensor grad1 = at::empty_like(a), grad2 = at::empty_like(b);
  if (dtype == at::kDouble) {
    fill_gradients<double>(mode, g, a, b, grad1, grad2);
  } else {
    fill_gradients<float>(mode, g, a, b, grad1, grad2);
  }
  return {grad1.to(boxes1.scalar_type()), grad2.to(boxes2.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CUDA, m) {
  m.impl("aligned_box_iou", &aligned_box_iou_cuda);
  m.impl("aligned_box_iou_backward", &aligned_box_iou_backward_cuda);
}

}  // namespace atss_ext
