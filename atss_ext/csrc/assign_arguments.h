// The arguments and results of atss_assign, checked and read once for every backend. Host only.
#pragma once

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "arguments.h"

namespace atss_ext {

// Regions whose priors are neither positive nor negative, packed over the batch.
struct IgnoreRegions {
  at::Tensor boxes;    // [S, 4]; undefined where there are none
  at::Tensor offsets;  // [B + 1]
  double iof_thr = 0;

  bool any() const { return boxes.defined(); }
};

struct AssignArguments {
  Levels levels;
  Columns columns;
  at::Tensor valid;  // [B, N] bool; undefined when all are
  IgnoreRegions regions;
  bool ensure_positive;
};

struct Assigned {
  at::Tensor assigned;       // [B, N] int64: i + 1, 0 background, -1 ignored or not valid
  at::Tensor ious;           // [B, N]
  at::Tensor thresholds;     // [T]
  at::Tensor num_positives;  // [T] int64
};

// Nobody holds a prior yet; IoUs and thresholds are to be written.
inline Assigned empty_assigned(const Batch& batch) {
  const auto floats = batch.priors.options(), integers = batch.offsets.options();
  return {at::zeros({batch.images(), batch.num_priors()}, integers),
          at::empty({batch.images(), batch.num_priors()}, floats), at::empty({batch.num_gts()}, floats),
          at::zeros({batch.num_gts()}, integers)};
}

inline IgnoreRegions check_regions(const Batch& batch, const OptionalTensor& boxes,
                                   const OptionalTensor& offsets, double iof_thr) {
  if (!boxes || iof_thr <= 0 || boxes->size(0) == 0) return {};
  check_boxes(*boxes, "ignore_boxes");
  TORCH_CHECK_VALUE(boxes->dim() == 2, "ignore_boxes must be [S, 4], got ", boxes->sizes());
  TORCH_CHECK_VALUE(offsets.has_value(), "ignore_boxes need ignore_offsets, int64 [images + 1]");
  check_same_device(batch.priors, *boxes, "ignore_boxes");
  check_offsets(*offsets, *boxes, "ignore_offsets");
  TORCH_CHECK_VALUE(offsets->numel() == batch.offsets.numel(), "ignore_offsets must have ",
                    batch.offsets.numel(), " entries like offsets, got ", offsets->numel());
  return {boxes->to(batch.priors.scalar_type()).contiguous(), offsets->contiguous(), iof_thr};
}

inline AssignArguments check_assign(const Batch& batch, const Levels& levels, int64_t k,
                                    const OptionalTensor& valid, const OptionalTensor& ignore_boxes,
                                    const OptionalTensor& ignore_offsets, double ignore_iof_thr,
                                    bool ensure_positive) {
  levels.check(batch.num_priors());
  return {levels, levels.columns(k), check_mask(valid, batch, "valid"),
          check_regions(batch, ignore_boxes, ignore_offsets, ignore_iof_thr), ensure_positive};
}

}  // namespace atss_ext
