// The arguments and results of gather_targets, checked and read once for every backend. Host only.
#pragma once

#include <ATen/ops/empty.h>

#include "arguments.h"
#include "targets.h"

namespace atss_ext {

struct Targets {
  at::Tensor labels;         // [B, N] int64
  at::Tensor weights;        // [B, N]
  at::Tensor positive;       // [B, N] bool
  at::Tensor boxes;          // [B, N, 4]
  at::Tensor centerness;     // [B, N]
  at::Tensor num_positives;  // []
};

inline void check_targets(const Batch& batch, const at::Tensor& assigned, const at::Tensor& gt_labels) {
  TORCH_CHECK_VALUE(assigned.scalar_type() == at::kLong && assigned.dim() == 2 &&
                        assigned.size(0) == batch.images() && assigned.size(1) == batch.num_priors(),
                    "assigned must be int64 [", batch.images(), ", ", batch.num_priors(),
                    "] (images, priors), got ", assigned.scalar_type(), " ", assigned.sizes());
  TORCH_CHECK_VALUE(
      gt_labels.scalar_type() == at::kLong && gt_labels.dim() == 1 && gt_labels.size(0) == batch.num_gts(),
      "gt_labels must be int64 [", batch.num_gts(), "], got ", gt_labels.scalar_type(), " ",
      gt_labels.sizes());
  check_same_device(batch.priors, assigned, "assigned");
  check_same_device(batch.priors, gt_labels, "gt_labels");
}

inline Targets empty_targets(const Batch& batch) {
  const int64_t images = batch.images(), count = batch.num_priors();
  const auto floats = batch.priors.options(), integers = batch.offsets.options();
  return {at::empty({images, count}, integers),
          at::empty({images, count}, floats),
          at::empty({images, count}, floats.dtype(at::kBool)),
          at::empty({images, count, 4}, floats),
          at::empty({images, count}, floats),
          at::empty({}, floats)};
}

template <typename T>
TargetRows<T> target_rows(const Targets& out, int64_t image, int64_t count) {
  return {out.labels.mutable_data_ptr<int64_t>() + image * count,
          out.weights.mutable_data_ptr<T>() + image * count,
          out.positive.mutable_data_ptr<bool>() + image * count,
          out.boxes.mutable_data_ptr<T>() + image * count * 4,
          out.centerness.mutable_data_ptr<T>() + image * count};
}

}  // namespace atss_ext
