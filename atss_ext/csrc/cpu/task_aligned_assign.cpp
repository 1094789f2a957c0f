#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <tuple>

#include "../assignment.h"
#include "prediction_rows.h"

namespace atss_ext {
namespace {

template <typename T>
struct Exponents {
  T alpha, beta;
};

// What a gt claims of one image: [M, k] each, of which the first counts are in use.
template <typename T>
struct Claims {
  std::vector<int32_t> priors, counts;
  std::vector<T> ious, metrics;
  int64_t columns;

  Claims(int64_t gts, int64_t columns)
      : priors(gts * columns), counts(gts), ious(gts * columns), metrics(gts * columns), columns(columns) {}
  void add(int64_t gt, int32_t prior, T iou, T metric) {
    const int64_t i = gt * columns + counts[gt]++;
    priors[i] = prior;
    ious[i] = iou;
    metrics[i] = metric;
  }
};

// The memory of one thread.
template <typename T>
struct Search {
  std::vector<T> ious, values;
  std::vector<int32_t> places;
  int capacity;

  Search(int64_t count, int64_t topk)
      : ious(count), values(3 * topk), places(3 * topk), capacity(static_cast<int>(topk)) {}
  LeastList<T> best() { return {values.data(), places.data(), capacity}; }
  LeastList<T> seeds() { return {values.data() + capacity, places.data() + capacity, 2 * capacity}; }
};

// The priors that rank first by the metric, which is negative in the list. A score is at most 1, so that the
// metric of the boxes with the greatest IoUs bounds the IoU from below: few other scores are read.
template <typename T, typename Metric>
LeastList<T> best_aligned(Search<T>& search, int64_t count, T beta, const Metric& metric) {
  LeastList<T> seeds = search.seeds(), best = search.best();
  find_greatest(search.ious.data(), count, seeds);
  for (int i = 0; i < seeds.size; ++i) {
    const T value = metric(seeds.places[i]);
    if (value > T(0)) best.admit(-value, seeds.places[i]);
  }
  T least = best.full() ? least_iou(-best.limit(), beta) : T(0), raised = best.limit();
  best.size = 0;
  visit_above(
      search.ious.data(), count, [&] { return least; },
      [&](int64_t i) {
        const T value = metric(i);
        if (value > T(0)) best.admit(-value, static_cast<int32_t>(i));
        if (!(best.limit() < raised)) return;
        raised = best.limit();
        least = least_iou(-raised, beta);
      });
  return best;
}

template <typename T, typename S>
void claim(const PredictionBatch& batch, const PredictionColumns<T>& columns, const Scores<S>& scores,
           int64_t image, int64_t gt, const Exponents<T>& exponents, Search<T>& search, int64_t row,
           Claims<T>& claims) {
  const Box<T> box = load_box(batch.gt_boxes.const_data_ptr<T>() + 4 * gt);
  const T* priors = batch.priors.const_data_ptr<T>();
  const int64_t label = batch.labels.const_data_ptr<int64_t>()[gt];
  overlap_row(pointers(columns), columns.count(), box, search.ious.data());
  const auto metric = [&](int64_t i) {
    const T score = scores.template at<T>(image, columns.priors[i], label);
    return alignment_metric(probability(score, batch.are_logits), search.ious[i], exponents.alpha,
                            exponents.beta);
  };
  const LeastList<T> best = best_aligned(search, columns.count(), exponents.beta, metric);
  for (int i = 0; i < best.size; ++i) {
    const int32_t place = best.places[i], prior = columns.priors[place];
    if (center_inside(center_of(priors + 4 * static_cast<int64_t>(prior)), box)) {
      claims.add(row, prior, search.ious[place], -best.values[i]);
    }
  }
}

// Gives every claimed prior to the claim with the highest IoU, then to the lower gt.
template <typename T>
void settle(const Claims<T>& claims, int64_t gts, int64_t* assigned, T* ious, T* metrics) {
  for (int64_t gt = 0; gt < gts; ++gt) {
    for (int64_t i = gt * claims.columns; i < gt * claims.columns + claims.counts[gt]; ++i) {
      const int32_t prior = claims.priors[i];
      if (assigned[prior] > 0 && !(claims.ious[i] > ious[prior])) continue;
      assigned[prior] = gt + 1;
      ious[prior] = claims.ious[i];
      metrics[prior] = claims.metrics[i];
    }
  }
}

template <typename T>
void list_valid(const PredictionBatch& batch, int64_t image, PredictionColumns<T>& columns) {
  const bool* valid = mask_data(batch.valid);
  const int64_t count = batch.num_priors();
  columns.priors.clear();
  for (int64_t n = 0; n < count; ++n) {
    if (valid == nullptr || valid[image * count + n]) columns.priors.push_back(static_cast<int32_t>(n));
  }
  columns.read(batch.boxes.const_data_ptr<T>() + 4 * image * count);
}

template <typename T, typename S>
void assign(const PredictionBatch& batch, int64_t topk, const Exponents<T>& exponents,
            PredictionAssigned& out) {
  const Scores<S> scores(batch.scores);
  const int64_t* offsets = batch.offsets.const_data_ptr<int64_t>();
  const int64_t count = batch.num_priors(), k = smaller(topk, count);
  PredictionColumns<T> columns(count);
  for (int64_t image = 0; image < batch.images(); ++image) {
    const int64_t first = offsets[image], gts = offsets[image + 1] - first, row = image * count;
    if (gts == 0) continue;
    list_valid(batch, image, columns);
    Claims<T> claims(gts, k);
    at::parallel_for(0, gts, kGtGrain, [&](int64_t begin, int64_t end) {
      Search<T> search(columns.count(), k);
      for (int64_t gt = begin; gt < end; ++gt) {
        claim(batch, columns, scores, image, first + gt, exponents, search, gt, claims);
      }
    });
    settle(claims, gts, out.assigned.mutable_data_ptr<int64_t>() + row, out.ious.mutable_data_ptr<T>() + row,
           out.metrics.mutable_data_ptr<T>() + row);
  }
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> task_aligned_assign_cpu(
    const at::Tensor& priors, const at::Tensor& scores, const at::Tensor& boxes, const at::Tensor& gt_boxes,
    const at::Tensor& gt_labels, const at::Tensor& offsets, const OptionalTensor& valid, int64_t topk,
    double alpha, double beta, bool are_logits) {
  const PredictionBatch batch =
      check_prediction_batch(priors, scores, boxes, gt_boxes, gt_labels, offsets, valid, topk, are_logits);
  TORCH_CHECK_VALUE(alpha >= 0 && beta > 0, "alpha must be at least 0 and beta above 0, got ", alpha, " and ",
                    beta);
  PredictionAssigned out = empty_prediction_assigned(batch);
  fill_invalid(batch, out.assigned);
  if (batch.num_priors() == 0) return {out.assigned, out.ious, out.metrics};
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, batch.scores.scalar_type(), "task_aligned_assign", [&] {
        if (batch.priors.scalar_type() == at::kDouble) {
          assign<double, scalar_t>(batch, topk, {alpha, beta}, out);
        } else {
          assign<float, scalar_t>(batch, topk, {static_cast<float>(alpha), static_cast<float>(beta)}, out);
        }
      });
  return {out.assigned, out.ious, out.metrics};
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CPU, m) { m.impl("task_aligned_assign", &task_aligned_assign_cpu); }

}  // namespace atss_ext
