#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

#include "../assign_arguments.h"
#include "../assignment.h"
#include "search.cuh"

namespace atss_ext {
namespace {

// Everything a kernel reads of the batch.
template <typename T>
struct BatchView {
  const T* priors;         // [N, 4]
  const T* gt_boxes;       // [T, 4]
  const int64_t* offsets;  // [B + 1]
  int64_t images, num_priors, num_gts;

  explicit BatchView(const Batch& batch)
      : priors(batch.priors.const_data_ptr<T>()),
        gt_boxes(batch.gt_boxes.const_data_ptr<T>()),
        offsets(batch.offsets.const_data_ptr<int64_t>()),
        images(batch.images()),
        num_priors(batch.num_priors()),
        num_gts(batch.num_gts()) {}

  __device__ Range gts_of(int64_t image) const { return range_of(offsets, image, num_gts); }

  // The IoU of a prior with a gt, the same bits wherever it is computed.
  __device__ T iou(int64_t prior, int64_t gt) const {
    return box_overlap<IoUMode::kIoU>(load_box(priors + 4 * prior), load_box(gt_boxes + 4 * gt));
  }
};

template <typename T>
struct MarkIgnored {
  BatchView<T> batch;
  const T* regions;     // [S, 4]
  const int64_t* ends;  // [B + 1]
  int64_t num_regions;  // S
  T threshold;
  bool* ignored;  // [B, N]

  __device__ void operator()(int64_t i) const {
    const int64_t image = i / batch.num_priors, prior = i % batch.num_priors;
    const Range gts = batch.gts_of(image), own = range_of(ends, image, num_regions);
    ignored[i] =
        gts.begin < gts.end && in_ignore_region(load_box(batch.priors + 4 * prior), regions + 4 * own.begin,
                                                own.end - own.begin, threshold);
  }
};

// Threshold and claims of one gt. A slot holds its claimant's packed index + 1. The higher IoU takes it, of
// equal ones the lower gt: an order, so that the last holder does not depend on who came when.
template <typename T>
struct Choose {
  BatchView<T> batch;
  Columns columns;
  Found<T> found;               // squared distances on entry; IoUs, moved together, on exit
  T* thresholds;                // [T]
  unsigned long long* holders;  // [B, N], 0 for nobody

  // Moves the candidates of all levels together, nearest level by level; returns how many there are.
  __device__ int compact(int64_t gt) const {
    int32_t* priors = found.priors + gt * columns.total;
    int count = 0, from = 0;
    for (int level = 0; level < columns.levels; ++level) {
      const int32_t size = found.sizes[gt * columns.levels + level];
      for (int32_t c = 0; c < size; ++c) priors[count++] = priors[from + c];
      from += columns.capacity[level];
    }
    found.sizes[gt * columns.levels] = count;
    return count;
  }

  __device__ void claim(int64_t gt, int64_t prior, T iou, unsigned long long* slot) const {
    unsigned long long seen = *slot;
    for (;;) {
      if (seen != 0) {
        const int64_t holder = static_cast<int64_t>(seen) - 1;
        const T held = batch.iou(prior, holder);
        if (held > iou || (held == iou && holder <= gt)) return;
      }
      const unsigned long long before = atomicCAS(slot, seen, static_cast<unsigned long long>(gt) + 1);
      if (before == seen) return;
      seen = before;
    }
  }

  __device__ void operator()(int64_t gt) const {
    const Box<T> box = load_box(batch.gt_boxes + 4 * gt);
    const int64_t row = image_of(batch.offsets, batch.images, gt) * batch.num_priors;
    const Candidates<T> own = {found.priors + gt * columns.total, found.squared + gt * columns.total,
                               compact(gt)};
    fill_ious(batch.priors, box, own);
    const T threshold = adaptive_threshold(own.ious, own.count);
    thresholds[gt] = threshold;
    for (int i = 0; i < own.count; ++i) {
      if (is_positive(batch.priors, box, own, i, threshold)) {
        claim(gt, own.priors[i], own.ious[i], holders + row + own.priors[i]);
      }
    }
  }
};

// From packed holders to i + 1, 0 or -1 of the image, with IoUs and counts.
template <typename T>
struct Settle {
  BatchView<T> batch;
  BatchMasks masks;
  int64_t* assigned;                  // [B, N], holders on entry
  T* ious;                            // [B, N]
  unsigned long long* num_positives;  // [T]

  __device__ void operator()(int64_t i) const {
    const int64_t gt = assigned[i] - 1, image = i / batch.num_priors;
    ious[i] = gt < 0 ? T(0) : batch.iou(i % batch.num_priors, gt);
    if (gt >= 0) {
      assigned[i] = gt - batch.offsets[image] + 1;
      atomicAdd(num_positives + gt, 1ULL);
    } else if (masks.hides(i)) {
      assigned[i] = -1;
    }
  }
};

// The gts of an image one after the other, as their order decides.
template <typename T>
struct EnsurePositives {
  BatchView<T> batch;
  Columns columns;
  Found<T> found;
  int64_t* assigned;       // [B, N]
  T* ious;                 // [B, N]
  int64_t* num_positives;  // [T]

  __device__ void operator()(int64_t image) const {
    const Range gts = batch.gts_of(image);
    const int64_t first = gts.begin, row = image * batch.num_priors;
    const Holders<T> holders = {assigned + row, ious + row, num_positives + first};
    for (int64_t gt = first; gt < gts.end; ++gt) {
      const Candidates<T> own = {found.priors + gt * columns.total, found.squared + gt * columns.total,
                                 found.sizes[gt * columns.levels]};
      ensure_positive(batch.priors, load_box(batch.gt_boxes + 4 * gt), own, gt - first, holders);
    }
  }
};

template <typename T>
void assign(const Batch& batch, const AssignArguments& arguments, Assigned& out) {
  const BatchView<T> view(batch);
  const int64_t slots = batch.images() * batch.num_priors();
  int64_t* assigned = out.assigned.mutable_data_ptr<int64_t>();
  int64_t* counts = out.num_positives.mutable_data_ptr<int64_t>();
  T* ious = out.ious.mutable_data_ptr<T>();
  at::Tensor ignored;
  BatchMasks masks = {mask_data(arguments.valid), nullptr};
  if (arguments.regions.any()) {
    ignored = at::empty({batch.images(), batch.num_priors()}, batch.priors.options().dtype(at::kBool));
    for_each(slots, MarkIgnored<T>{view, arguments.regions.boxes.const_data_ptr<T>(),
                                   arguments.regions.offsets.const_data_ptr<int64_t>(),
                                   arguments.regions.boxes.size(0), static_cast<T>(arguments.regions.iof_thr),
                                   ignored.mutable_data_ptr<bool>()});
    masks.ignored = mask_data(ignored);
  }
  const SearchMemory memory(batch, arguments.columns);
  const Found<T> found = memory.found<T>();
  search<T>(batch, arguments.levels, arguments.columns, masks, found);
  for_each<kThreadsOfGts>(batch.num_gts(),
                          Choose<T>{view, arguments.columns, found, out.thresholds.mutable_data_ptr<T>(),
                                    reinterpret_cast<unsigned long long*>(assigned)});
  for_each(slots, Settle<T>{view, masks, assigned, ious, reinterpret_cast<unsigned long long*>(counts)});
  if (arguments.ensure_positive) {
    for_each<kThreadsOfGts>(batch.images(),
                            EnsurePositives<T>{view, arguments.columns, found, assigned, ious, counts});
  }
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> atss_assign_cuda(
    const at::Tensor& priors, at::IntArrayRef level_sizes, const at::Tensor& gt_boxes,
    const at::Tensor& offsets, int64_t k, const OptionalTensor& valid, const OptionalTensor& ignore_boxes,
    const OptionalTensor& ignore_offsets, double ignore_iof_thr, bool ensure_positive,
    at::IntArrayRef grid_shapes, at::ArrayRef<double> grid_geometry) {
  const Batch batch = check_batch(priors, gt_boxes, offsets);
  const c10::cuda::CUDAGuard guard(batch.priors.device());
  const AssignArguments arguments =
      check_assign(batch, {level_sizes, grid_shapes, grid_geometry}, k, valid, ignore_boxes, ignore_offsets,
                   ignore_iof_thr, ensure_positive);
  Assigned out = empty_assigned(batch);
  if (batch.priors.scalar_type() == at::kDouble) {
    assign<double>(batch, arguments, out);
  } else {
    assign<float>(batch, arguments, out);
  }
  return {out.assigned, out.ious, out.thresholds, out.num_positives};
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CUDA, m) { m.impl("atss_assign", &atss_assign_cuda); }

}  // namespace atss_ext
