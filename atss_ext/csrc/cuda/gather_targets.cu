#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>

#include "../routes.h"
#include "../target_arguments.h"
#include "../targets.h"
#include "launch.h"

namespace atss_ext {
namespace {

template <typename T>
struct WriteTarget {
  const T* priors;           // [N, 4]
  const int64_t* assigned;   // [B, N]
  const T* gt_boxes;         // [T, 4]
  const int64_t* gt_labels;  // [T]
  const int64_t* offsets;    // [B + 1]
  int64_t num_gts, count, num_classes;
  T pos_weight;
  TargetRows<T> out;  // of the first image
  int* positives;     // [B]

  __device__ void operator()(int64_t i) const {
    const int64_t image = i / count, prior = i % count, row = image * count;
    const Range own = range_of(offsets, image, num_gts);
    const ImageGts<T> gts = {gt_boxes + 4 * own.begin, gt_labels + own.begin, own.end - own.begin};
    const TargetRows<T> rows = {out.labels + row, out.weights + row, out.positive + row, out.boxes + 4 * row,
                                out.centerness + row};
    if (write_target(priors, prior, assigned[i], gts, num_classes, pos_weight, rows)) {
      atomicAdd(positives + image, 1);
    }
  }
};

// Positives summed over images, at least one an image; the images one after the other.
template <typename T>
struct SumPositives {
  const int* positives;  // [B]
  int64_t images;
  T* total;

  __device__ void operator()(int64_t) const {
    int64_t sum = 0;
    for (int64_t image = 0; image < images; ++image) sum += larger(positives[image], 1);
    *total = static_cast<T>(sum);
  }
};

template <typename T>
void fill_targets(const Batch& batch, const at::Tensor& assigned, const at::Tensor& labels,
                  int64_t num_classes, double pos_weight, Targets& out) {
  at::Tensor positives = at::zeros({batch.images()}, batch.priors.options().dtype(at::kInt));
  for_each(assigned.numel(),
           WriteTarget<T>{batch.priors.const_data_ptr<T>(), assigned.const_data_ptr<int64_t>(),
                          batch.gt_boxes.const_data_ptr<T>(), labels.const_data_ptr<int64_t>(),
                          batch.offsets.const_data_ptr<int64_t>(), batch.num_gts(), batch.num_priors(),
                          num_classes, static_cast<T>(pos_weight), target_rows<T>(out, 0, batch.num_priors()),
                          positives.mutable_data_ptr<int>()});
  for_each(1, SumPositives<T>{positives.const_data_ptr<int>(), batch.images(),
                              out.num_positives.mutable_data_ptr<T>()});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> gather_targets_cuda(
    const at::Tensor& priors, const at::Tensor& assigned, const at::Tensor& gt_boxes,
    const at::Tensor& gt_labels, const at::Tensor& offsets, int64_t num_classes, double pos_weight) {
  const Batch batch = check_batch(priors, gt_boxes, offsets);
  const c10::cuda::CUDAGuard guard(batch.priors.device());
  check_targets(batch, assigned, gt_labels);
  Targets out = empty_targets(batch);
  const at::Tensor owners = assigned.contiguous(), labels = gt_labels.contiguous();
  if (batch.priors.scalar_type() == at::kDouble) {
    fill_targets<double>(batch, owners, labels, num_classes, pos_weight, out);
  } else {
    fill_targets<float>(batch, owners, labels, num_classes, pos_weight, out);
  }
  return {out.labels, out.weights, out.positive, out.boxes, out.centerness, out.num_positives};
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CUDA, m) { m.impl("gather_targets", &gather_targets_cuda); }

}  // namespace atss_ext
