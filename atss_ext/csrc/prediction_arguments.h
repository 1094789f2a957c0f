// The arguments and results of the assigners that go by predictions, checked and read once for every backend.
// Host only.
#pragma once

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "arguments.h"
#include "prediction_costs.h"

namespace atss_ext {

// Predictions and gts of a batch; all but the scores in the type they are computed in.
struct PredictionBatch {
  at::Tensor priors;    // [N, 4]
  at::Tensor scores;    // [B, N, C], of any type and strides: they are the one large argument
  at::Tensor boxes;     // [B, N, 4]
  at::Tensor gt_boxes;  // [T, 4]
  at::Tensor labels;    // [T] int64
  at::Tensor offsets;   // [B + 1]
  at::Tensor valid;     // [B, N] bool; undefined when all are
  bool are_logits;

  int64_t num_priors() const { return priors.size(0); }
  int64_t num_gts() const { return gt_boxes.size(0); }
  int64_t images() const { return offsets.numel() - 1; }
};

inline void check_labels(const at::Tensor& labels, int64_t gts, int64_t classes) {
  TORCH_CHECK_VALUE(labels.scalar_type() == at::kLong && labels.dim() == 1 && labels.size(0) == gts,
                    "gt_labels must be int64 [", gts, "], got ", labels.scalar_type(), " ", labels.sizes());
  if (!labels.is_cpu()) return;
  const auto values = labels.accessor<int64_t, 1>();
  for (const auto i : c10::irange(gts)) {
    TORCH_CHECK_VALUE(values[i] >= 0 && values[i] < classes, "gt_labels must lie in 0 to ", classes - 1,
                      ", the classes that have scores, got ", values[i]);
  }
}

inline void check_predictions(const Batch& batch, const at::Tensor& scores, const at::Tensor& boxes) {
  const int64_t images = batch.images(), count = batch.num_priors();
  TORCH_CHECK_VALUE(scores.is_floating_point() && scores.dim() == 3 && scores.size(0) == images &&
                        scores.size(1) == count && scores.size(2) > 0,
                    "scores must be floats [", images, ", ", count, ", C] (images, priors, classes), got ",
                    scores.scalar_type(), " ", scores.sizes());
  TORCH_CHECK_VALUE(boxes.is_floating_point() && boxes.dim() == 3 && boxes.size(0) == images &&
                        boxes.size(1) == count && boxes.size(2) == 4,
                    "boxes must be floats [", images, ", ", count, ", 4] (images, priors), got ",
                    boxes.scalar_type(), " ", boxes.sizes());
  check_same_device(batch.priors, scores, "scores");
  check_same_device(batch.priors, boxes, "boxes");
}

inline PredictionBatch check_prediction_batch(const at::Tensor& priors, const at::Tensor& scores,
                                              const at::Tensor& boxes, const at::Tensor& gt_boxes,
                                              const at::Tensor& gt_labels, const at::Tensor& offsets,
                                              const OptionalTensor& valid, int64_t topk, bool are_logits) {
  const Batch batch = check_batch(priors, gt_boxes, offsets);
  check_predictions(batch, scores, boxes);
  check_same_device(batch.priors, gt_labels, "gt_labels");
  check_labels(gt_labels, batch.num_gts(), scores.size(2));
  TORCH_CHECK_VALUE(topk >= 1, "topk must be at least 1, got ", topk);
  TORCH_CHECK_VALUE(batch.num_priors() <= std::numeric_limits<int32_t>::max(), "an image may have ",
                    std::numeric_limits<int32_t>::max(), " priors, got ", batch.num_priors());
  const bool wide = compute_type(scores, boxes) == at::kDouble || batch.priors.scalar_type() == at::kDouble;
  const auto dtype = wide ? at::kDouble : at::kFloat;
  return {batch.priors.to(dtype), scores,        boxes.to(dtype).contiguous(),      batch.gt_boxes.to(dtype),
          gt_labels.contiguous(), batch.offsets, check_mask(valid, batch, "valid"), are_logits};
}

inline CostRule parse_rule(c10::string_view rule) {
  const std::string name(rule.data(), rule.size());
  TORCH_CHECK_VALUE(name == "sim_ota" || name == "soft_label", "rule must be sim_ota or soft_label, got '",
                    name, "'");
  return name == "sim_ota" ? CostRule::kSimOTA : CostRule::kSoftLabel;
}

inline void check_weights(double radius, double iou_weight, double cls_weight) {
  TORCH_CHECK_VALUE(radius >= 0 && iou_weight >= 0 && cls_weight >= 0,
                    "radius and weights must not be negative, got ", radius, ", ", iou_weight, " and ",
                    cls_weight);
}

// Undefined where there are none.
inline at::Tensor check_centers(const PredictionBatch& batch, const OptionalTensor& centers) {
  if (!centers) return {};
  TORCH_CHECK_VALUE(centers->is_floating_point() && centers->dim() == 2 &&
                        centers->size(0) == batch.num_gts() && centers->size(1) == 2,
                    "gt_centers must be floats [", batch.num_gts(), ", 2], got ", centers->scalar_type(), " ",
                    centers->sizes());
  check_same_device(batch.priors, *centers, "gt_centers");
  return centers->to(batch.priors.scalar_type()).contiguous();
}

struct PredictionAssigned {
  at::Tensor assigned;  // [B, N] int64: i + 1, 0 background, -1 not valid
  at::Tensor ious;      // [B, N], of the predicted box
  at::Tensor metrics;   // [B, N]
};

inline PredictionAssigned empty_prediction_assigned(const PredictionBatch& batch) {
  const int64_t images = batch.images(), count = batch.num_priors();
  return {at::zeros({images, count}, batch.offsets.options()),
          at::zeros({images, count}, batch.priors.options()),
          at::zeros({images, count}, batch.priors.options())};
}

}  // namespace atss_ext
