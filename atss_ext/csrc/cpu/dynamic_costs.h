// The costs of one image's candidates for its gts (SimOTA, dynamic soft label), one pair at a time.
#pragma once

#include "center_rows.h"

namespace atss_ext {

template <typename T>
struct CostSettings {
  CostRule rule;
  T radius, iou_weight, cls_weight;
};

// Priors of an image inside any gt (SimOTA: or near a centre), with what their costs are made of.
template <typename T, typename S>
struct CostImage {
  const PredictionBatch& batch;
  const CostSettings<T>& settings;
  Scores<S> scores;
  PredictionColumns<T> columns;
  PointColumns<T> points;
  std::vector<double> background;  // a candidate's cost of "no object", summed over classes
  std::vector<double> floors;      // SimOTA: the same but for the class where it is greatest
  std::vector<T> weights;          // SimOTA: what a floor leaves of an IoU, see fill_weights
  double least_floor = 0;
  std::vector<int32_t> flags;  // [N]
  int64_t image = 0;

  CostImage(const PredictionBatch& batch, const CostSettings<T>& settings)
      : batch(batch),
        settings(settings),
        scores(batch.scores),
        columns(batch.num_priors()),
        points(batch.num_priors()),
        background(batch.num_priors()),
        floors(batch.num_priors()),
        weights(batch.num_priors()),
        flags(batch.num_priors()) {}

  bool is_sim_ota() const { return settings.rule == CostRule::kSimOTA; }

  // Finds the candidates of an image.
  void read(int64_t index, const PointColumns<T>& all, const std::vector<CostGt<T>>& gts) {
    image = index;
    const int64_t count = batch.num_priors();
    at::parallel_for(0, count, kRowGrain, [&](int64_t begin, int64_t end) {
      std::fill(flags.begin() + begin, flags.begin() + end, 0);
      for (const CostGt<T>& gt : gts) {
        mark_row(PointPointers<T>(all, begin), end - begin, gt, is_sim_ota(), flags.data() + begin);
      }
    });
    const bool* valid = mask_data(batch.valid);
    columns.priors.clear();
    for (int64_t n = 0; n < count; ++n) {
      if (flags[n] == 0 || (valid != nullptr && !valid[image * count + n])) continue;
      points.copy(columns.count(), all, n);
      columns.priors.push_back(static_cast<int32_t>(n));
    }
    columns.read(batch.boxes.const_data_ptr<T>() + 4 * image * count);
    at::parallel_for(0, columns.count(), kRowGrain / 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sum_classes(i);
    });
    if (is_sim_ota()) fill_weights();
  }

  void sum_classes(int64_t i) {
    const S* row = scores.row(image, columns.priors[i]);
    if (!is_sim_ota()) {
      double total = 0;
      for (int64_t c = 0; c < scores.classes; ++c) {
        total += no_object_soft_entropy(static_cast<T>(row[c * scores.class_]));
      }
      background[i] = total;
      return;
    }
    EntropySum entropy;
    T greatest = 0;
    for (int64_t c = 0; c < scores.classes; ++c) {
      const T p = probability(static_cast<T>(row[c * scores.class_]), batch.are_logits);
      greatest = larger(greatest, p);
      entropy.add(static_cast<double>(p));
    }
    background[i] = entropy.sum();
    floors[i] = background[i] - no_object_entropy(greatest);
  }

  // Whatever the class of a gt, a candidate costs at least its floor and -log IoU. Both are bounded by one
  // product, (IoU + eps) x weight, where weight = exp(-(floor - least) x cls_weight / iou_weight).
  void fill_weights() {
    least_floor = std::numeric_limits<double>::infinity();
    for (int64_t i = 0; i < columns.count(); ++i) least_floor = smaller(least_floor, floors[i]);
    // Without a weight of the IoU products bound nothing and are not to become NaN.
    const double scale = settings.iou_weight > T(0) ? double{settings.cls_weight} / settings.iou_weight : 0;
    for (int64_t i = 0; i < columns.count(); ++i) {
      weights[i] = static_cast<T>(std::exp(-(floors[i] - least_floor) * scale));
    }
  }

  // No candidate outside of a gt's centre with a smaller product costs as little; low by more than costs
  // round.
  T least_product(T cost) const {
    if (!(settings.iou_weight > T(0))) return T(-1);
    const double room = static_cast<double>(cost) - kOutsideCost + 0.03 + 1e-6 * cost;
    const double least = std::exp((settings.cls_weight * least_floor - room) / settings.iou_weight);
    return least > 1e-30 ? static_cast<T>(least * (1 - 1e-4)) : T(-1);
  }

  bool in_both(int64_t i, const CostGt<T>& gt) const {
    return strictly_inside(points.x[i], points.y[i], gt.box) &&
           near_center(points.x[i], points.y[i], points.reach_x[i], points.reach_y[i], gt.x, gt.y);
  }

  // Term by term and in the order of mmdet, so that costs round alike.
  T sim_ota_cost(int64_t i, const CostGt<T>& gt, T iou, bool both) const {
    const T p = probability(scores.template at<T>(image, columns.priors[i], gt.label), batch.are_logits);
    const T cls = static_cast<T>(background[i] - no_object_entropy(p) + object_entropy(p));
    return cls * settings.cls_weight + overlap_cost(iou) * settings.iou_weight +
           (both ? T(0) : T(kOutsideCost));
  }

  T soft_label_cost(int64_t i, const CostGt<T>& gt, T iou, T distance) const {
    const T x = scores.template at<T>(image, columns.priors[i], gt.label);
    const T cls = static_cast<T>(background[i] - no_object_soft_entropy(x) + object_soft_entropy(x, iou));
    return cls + overlap_cost(iou) * settings.iou_weight + soft_center_cost(distance, settings.radius);
  }

  // Of any pair.
  T cost(int64_t i, const CostGt<T>& gt, T iou) const {
    if (is_sim_ota()) return sim_ota_cost(i, gt, iou, in_both(i, gt));
    return soft_label_cost(i, gt, iou,
                           stride_distance(points.x[i], points.y[i], points.reach_x[i], gt.x, gt.y));
  }

  T iou(int64_t i, const CostGt<T>& gt) const {
    return box_overlap<IoUMode::kIoU>(columns.box(i), gt.box, columns.area[i], box_area(gt.box));
  }
};

// No candidate that is farther from a gt, in strides, costs as little; a little high.
template <typename T>
T greatest_distance(T cost, const CostSettings<T>& settings) {
  const double room = 1e-4 * (1 + settings.iou_weight);
  return static_cast<T>(settings.radius + 1e-3 + std::log10(static_cast<double>(cost) * (1 + 1e-4) + room));
}

}  // namespace atss_ext
