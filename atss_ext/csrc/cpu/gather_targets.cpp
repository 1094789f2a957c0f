#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "../target_arguments.h"
#include "../targets.h"

namespace atss_ext {
namespace {

constexpr int64_t kGrain = 1 << 13;

template <typename T>
void fill_targets(const Batch& batch, const at::Tensor& assigned, const at::Tensor& labels,
                  int64_t num_classes, double pos_weight, Targets& out) {
  const int64_t images = batch.images(), count = batch.num_priors();
  const T *priors = batch.priors.const_data_ptr<T>(), *boxes = batch.gt_boxes.const_data_ptr<T>();
  const int64_t* offsets = batch.offsets.const_data_ptr<int64_t>();
  const int64_t* owners = assigned.const_data_ptr<int64_t>();
  const int64_t* gt_labels = labels.const_data_ptr<int64_t>();
  std::vector<int64_t> positives(images);
  for (int64_t image = 0; image < images; ++image) {
    const int64_t first = offsets[image];
    const ImageGts<T> gts = {boxes + 4 * first, gt_labels + first, offsets[image + 1] - first};
    const TargetRows<T> rows = target_rows<T>(out, image, count);
    at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        write_target(priors, n, owners[image * count + n], gts, num_classes, static_cast<T>(pos_weight),
                     rows);
      }
    });
    for (int64_t n = 0; n < count; ++n) positives[image] += rows.positive[n];
  }
  int64_t total = 0;
  for (const int64_t positive : positives) total += larger<int64_t>(positive, 1);
  *out.num_positives.mutable_data_ptr<T>() = static_cast<T>(total);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> gather_targets_cpu(
    const at::Tensor& priors, const at::Tensor& assigned, const at::Tensor& gt_boxes,
    const at::Tensor& gt_labels, const at::Tensor& offsets, int64_t num_classes, double pos_weight) {
  const Batch batch = check_batch(priors, gt_boxes, offsets);
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

TORCH_LIBRARY_IMPL(atss_ext, CPU, m) { m.impl("gather_targets", &gather_targets_cpu); }

}  // namespace atss_ext
