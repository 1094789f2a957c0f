#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "../assign_arguments.h"
#include "../assignment.h"
#include "prior_centers.h"

namespace atss_ext {
namespace {

// Priors that are worth waking a thread for.
constexpr int64_t kPriorGrain = 1 << 14;

// Candidates and claims of every gt: [T, C] each, of which the first counts are in use.
template <typename T>
struct Workspace {
  std::vector<int32_t> priors, claims;  // a claim is the place of a candidate that is positive
  std::vector<T> ious;
  std::vector<int32_t> candidate_counts, claim_counts;  // [T]
  int64_t columns;

  Workspace(int64_t gts, int64_t columns)
      : priors(gts * columns),
        claims(gts * columns),
        ious(gts * columns),
        candidate_counts(gts),
        claim_counts(gts),
        columns(columns) {}

  Candidates<T> of(int64_t gt) {
    return {priors.data() + gt * columns, ious.data() + gt * columns, candidate_counts[gt]};
  }
};

// Whether more than threshold of a prior lies in one ignore region: [B, N]. Images without gts have no
// ignored priors: all of theirs are background (mmdet).
template <typename T>
at::Tensor ignored_priors(const Batch& batch, const IgnoreRegions& regions) {
  const int64_t images = batch.images(), count = batch.num_priors();
  at::Tensor ignored = at::zeros({images, count}, batch.priors.options().dtype(at::kBool));
  const T *priors = batch.priors.const_data_ptr<T>(), *boxes = regions.boxes.const_data_ptr<T>();
  const int64_t *offsets = batch.offsets.const_data_ptr<int64_t>(),
                *ends = regions.offsets.const_data_ptr<int64_t>();
  const T threshold = static_cast<T>(regions.iof_thr);
  bool* out = ignored.mutable_data_ptr<bool>();
  for (int64_t image = 0; image < images; ++image) {
    if (offsets[image] == offsets[image + 1]) continue;
    at::parallel_for(0, count, kPriorGrain, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        out[image * count + n] = in_ignore_region(load_box(priors + 4 * n), boxes + 4 * ends[image],
                                                  ends[image + 1] - ends[image], threshold);
      }
    });
  }
  return ignored;
}

// Candidates, IoUs, threshold and claims of one gt.
template <typename T, typename Route>
void choose(const Batch& batch, const Columns& columns, const Route& route, const BatchMasks& masks,
            int64_t gt, T* squared, Workspace<T>& work, T* threshold) {
  const T* priors = batch.priors.const_data_ptr<T>();
  const Box<T> box = load_box(batch.gt_boxes.const_data_ptr<T>() + 4 * gt);
  const int64_t image = image_of(batch.offsets.const_data_ptr<int64_t>(), batch.images(), gt);
  Candidates<T> found = work.of(gt);
  found.count =
      find_candidates(columns, route, box, masks.of(image, batch.num_priors()), squared, found.priors);
  fill_ious(priors, box, found);
  *threshold = adaptive_threshold(found.ious, found.count);
  int32_t claims = 0;
  for (int i = 0; i < found.count; ++i) {
    if (is_positive(priors, box, found, i, *threshold)) work.claims[gt * work.columns + claims++] = i;
  }
  work.candidate_counts[gt] = found.count;
  work.claim_counts[gt] = claims;
}

// Gives every claimed prior of an image to the claim with the highest IoU, then to the lower gt.
template <typename T>
void settle(const Batch& batch, int64_t image, bool ensure, Workspace<T>& work, Assigned& out) {
  const int64_t* offsets = batch.offsets.const_data_ptr<int64_t>();
  const T *priors = batch.priors.const_data_ptr<T>(), *boxes = batch.gt_boxes.const_data_ptr<T>();
  const int64_t first = offsets[image], row = image * batch.num_priors();
  const Holders<T> holders = {out.assigned.mutable_data_ptr<int64_t>() + row,
                              out.ious.mutable_data_ptr<T>() + row,
                              out.num_positives.mutable_data_ptr<int64_t>() + first};
  for (int64_t gt = first; gt < offsets[image + 1]; ++gt) {
    const Candidates<T> found = work.of(gt);
    for (int32_t c = 0; c < work.claim_counts[gt]; ++c) {
      const int32_t i = work.claims[gt * work.columns + c], prior = found.priors[i];
      if (holders.assigned[prior] <= 0 || found.ious[i] > holders.ious[prior]) {
        holders.take(prior, gt - first, found.ious[i]);
      }
    }
  }
  if (!ensure) return;
  for (int64_t gt = first; gt < offsets[image + 1]; ++gt) {
    ensure_positive(priors, load_box(boxes + 4 * gt), work.of(gt), gt - first, holders);
  }
}

// Background everywhere, -1 where a prior takes no part or is ignored.
void fill_background(const Batch& batch, const BatchMasks& masks, at::Tensor& assigned) {
  if (masks.valid == nullptr && masks.ignored == nullptr) return;
  int64_t* out = assigned.mutable_data_ptr<int64_t>();
  at::parallel_for(0, assigned.numel(), kPriorGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (masks.hides(i)) out[i] = -1;
    }
  });
}

template <typename T, typename Route>
void assign(const Batch& batch, const Columns& columns, const Route& route, const BatchMasks& masks,
            bool ensure, Assigned& out) {
  Workspace<T> work(batch.num_gts(), columns.total);
  T* thresholds = out.thresholds.mutable_data_ptr<T>();
  at::parallel_for(0, batch.num_gts(), Route::kGrain, [&](int64_t begin, int64_t end) {
    std::vector<T> squared(columns.total);
    for (int64_t gt = begin; gt < end; ++gt) {
      choose(batch, columns, route, masks, gt, squared.data(), work, thresholds + gt);
    }
  });
  at::parallel_for(0, batch.images(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) settle(batch, image, ensure, work, out);
  });
}

template <typename T>
void assign(const Batch& batch, const AssignArguments& arguments, Assigned& out) {
  at::Tensor ignored;
  BatchMasks masks = {mask_data(arguments.valid), nullptr};
  if (arguments.regions.any()) {
    ignored = ignored_priors<T>(batch, arguments.regions);
    masks.ignored = mask_data(ignored);
  }
  fill_background(batch, masks, out.assigned);
  if (arguments.levels.is_grid()) {
    assign<T>(batch, arguments.columns, grid_route<T>(batch.priors, arguments.levels), masks,
              arguments.ensure_positive, out);
  } else {
    const PriorCenters<T> centers(batch.priors, arguments.levels);
    assign<T>(batch, arguments.columns, centers.route, masks, arguments.ensure_positive, out);
  }
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> atss_assign_cpu(
    const at::Tensor& priors, at::IntArrayRef level_sizes, const at::Tensor& gt_boxes,
    const at::Tensor& offsets, int64_t k, const OptionalTensor& valid, const OptionalTensor& ignore_boxes,
    const OptionalTensor& ignore_offsets, double ignore_iof_thr, bool ensure_positive,
    at::IntArrayRef grid_shapes, at::ArrayRef<double> grid_geometry) {
  const Batch batch = check_batch(priors, gt_boxes, offsets);
  const AssignArguments arguments =
      check_assign(batch, {level_sizes, grid_shapes, grid_geometry}, k, valid, ignore_boxes, ignore_offsets,
                   ignore_iof_thr, ensure_positive);
  Assigned out = empty_assigned(batch);
  out.ious.zero_();
  if (batch.priors.scalar_type() == at::kDouble) {
    assign<double>(batch, arguments, out);
  } else {
    assign<float>(batch, arguments, out);
  }
  return {out.assigned, out.ious, out.thresholds, out.num_positives};
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CPU, m) { m.impl("atss_assign", &atss_assign_cpu); }

}  // namespace atss_ext
