#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "dynamic_costs.h"

namespace atss_ext {
namespace {

// The memory of one thread.
template <typename T>
struct Search {
  std::vector<T> ious, keys, products, values;
  std::vector<int32_t> places;
  int capacity;

  Search(int64_t count, int capacity)
      : ious(count),
        keys(count),
        products(count),
        values(3 * capacity),
        places(3 * capacity),
        capacity(capacity) {}
  LeastList<T> list(int which, int size) {
    return {values.data() + which * capacity, places.data() + which * capacity, size};
  }
};

// How many priors a gt takes: the sum of its greatest IoUs, rounded down, at least one.
template <typename T>
int dynamic_k(const LeastList<T>& greatest) {
  T sum = 0;
  for (int i = 0; i < greatest.size; ++i) sum += -greatest.values[i];
  if (!(sum < static_cast<T>(greatest.capacity))) return greatest.capacity;
  return larger(static_cast<int>(sum), 1);
}

// Candidates inside the gt and near its centre first; others only where these are too few or cost as much.
template <typename T, typename S>
void search_sim_ota(const CostImage<T, S>& image, const CostGt<T>& gt, Search<T>& search,
                    LeastList<T>& best) {
  const int64_t count = image.columns.count();
  const T *ious = search.ious.data(), *both = search.keys.data();
  both_row(PointPointers<T>(image.points, 0), count, gt, search.keys.data());
  visit_above(
      both, count, [] { return T(0.5); },
      [&](int64_t i) { best.admit(image.sim_ota_cost(i, gt, ious[i], true), static_cast<int32_t>(i)); });
  if (best.full() && best.limit() < T(0.9 * kOutsideCost)) return;
  const auto admit = [&](int64_t i, LeastList<T>& list) {
    if (both[i] < T(0.5)) list.admit(image.sim_ota_cost(i, gt, ious[i], false), static_cast<int32_t>(i));
  };
  LeastList<T> trial = search.list(1, best.capacity);
  for (int i = 0; i < best.size; ++i) trial.admit(best.values[i], best.places[i]);
  T* products = search.products.data();
  for (int64_t i = 0; i < count; ++i) products[i] = (ious[i] + T(kLogEps)) * image.weights[i];
  LeastList<T> seeds = search.list(0, search.capacity);
  find_greatest(products, count, seeds);
  for (int i = 0; i < seeds.size; ++i) admit(seeds.places[i], trial);
  const T least = trial.full() ? image.least_product(trial.limit()) : T(-1);
  visit_above(products, count, [=] { return least; }, [&](int64_t i) { admit(i, best); });
}

// The nearest candidates bound what the cost of distance may be.
template <typename T, typename S>
void search_soft_label(const CostImage<T, S>& image, const CostGt<T>& gt, Search<T>& search,
                       LeastList<T>& nearest, LeastList<T>& best) {
  const int64_t count = image.columns.count();
  T* nearness = search.keys.data();
  nearness_row(PointPointers<T>(image.points, 0), count, gt, nearness);
  find_greatest(nearness, count, nearest);
  const auto admit = [&](int64_t i) {
    best.admit(image.soft_label_cost(i, gt, search.ious[i], -nearness[i]), static_cast<int32_t>(i));
  };
  for (int i = 0; i < nearest.size; ++i) admit(nearest.places[i]);
  const T least = -greatest_distance(best.limit(), image.settings);
  best.size = 0;
  visit_above(nearness, count, [=] { return least; }, admit);
}

// The candidates of least cost for one gt.
template <typename T, typename S>
LeastList<T> choose(const CostImage<T, S>& image, const CostGt<T>& gt, Search<T>& search) {
  const int64_t count = image.columns.count();
  overlap_row(pointers(image.columns), count, gt.box, search.ious.data());
  LeastList<T> greatest = search.list(0, search.capacity);
  find_greatest(search.ious.data(), count, greatest);
  LeastList<T> best = search.list(2, dynamic_k(greatest));
  if (image.is_sim_ota()) {
    search_sim_ota(image, gt, search, best);
  } else {
    LeastList<T> nearest = search.list(1, search.capacity);
    search_soft_label(image, gt, search, nearest, best);
  }
  return best;
}

// A candidate that several gts chose goes to the one for which it costs least, whether that chose it or not;
// of equal costs to the lower gt.
template <typename T, typename S>
int32_t cheapest(const CostImage<T, S>& image, const std::vector<CostGt<T>>& gts, int64_t i) {
  int32_t owner = 0;
  T least = std::numeric_limits<T>::infinity();
  for (size_t g = 0; g < gts.size(); ++g) {
    const T cost = image.cost(i, gts[g], image.iou(i, gts[g]));
    if (!(cost < least)) continue;
    least = cost;
    owner = static_cast<int32_t>(g);
  }
  return owner;
}

// Writes the result of an image; chosen holds k candidates a gt, -1 where there are fewer.
template <typename T, typename S>
void settle(const CostImage<T, S>& image, const std::vector<CostGt<T>>& gts,
            const std::vector<int32_t>& chosen, int64_t k, int64_t* assigned, T* ious) {
  constexpr int32_t kNobody = -1, kSeveral = -2;
  std::vector<int32_t> owners(image.columns.count(), kNobody), places;
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (chosen[i] < 0) continue;
    int32_t& owner = owners[chosen[i]];
    if (owner == kNobody) places.push_back(chosen[i]);
    owner = owner == kNobody ? static_cast<int32_t>(static_cast<int64_t>(i) / k) : kSeveral;
  }
  at::parallel_for(0, static_cast<int64_t>(places.size()), 16, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int32_t i = places[p], prior = image.columns.priors[i];
      const int32_t owner = owners[i] == kSeveral ? cheapest(image, gts, i) : owners[i];
      assigned[prior] = owner + 1;
      ious[prior] = image.iou(i, gts[owner]);
    }
  });
}

template <typename T>
std::vector<CostGt<T>> list_gts(const PredictionBatch& batch, const at::Tensor& centers, int64_t image) {
  const int64_t* offsets = batch.offsets.const_data_ptr<int64_t>();
  const T* given = centers.defined() ? centers.const_data_ptr<T>() : nullptr;
  std::vector<CostGt<T>> gts;
  for (int64_t gt = offsets[image]; gt < offsets[image + 1]; ++gt) {
    const Box<T> box = load_box(batch.gt_boxes.const_data_ptr<T>() + 4 * gt);
    const T x = given != nullptr ? given[2 * gt] : (box.x1 + box.x2) / 2;
    const T y = given != nullptr ? given[2 * gt + 1] : (box.y1 + box.y2) / 2;
    gts.push_back({box, x, y, batch.labels.const_data_ptr<int64_t>()[gt]});
  }
  return gts;
}

template <typename T>
PointColumns<T> list_points(const PredictionBatch& batch, const CostSettings<T>& settings) {
  const T* priors = batch.priors.const_data_ptr<T>();
  const T reach = settings.rule == CostRule::kSimOTA ? settings.radius : T(1);
  PointColumns<T> points(batch.num_priors());
  for (int64_t n = 0; n < batch.num_priors(); ++n) {
    points.x[n] = priors[4 * n];
    points.y[n] = priors[4 * n + 1];
    points.reach_x[n] = reach * priors[4 * n + 2];
    points.reach_y[n] = reach * priors[4 * n + 3];
  }
  return points;
}

template <typename T, typename S>
void assign(const PredictionBatch& batch, const at::Tensor& centers, const CostSettings<T>& settings,
            int64_t topk, PredictionAssigned& out) {
  const PointColumns<T> points = list_points(batch, settings);
  CostImage<T, S> image(batch, settings);
  for (int64_t b = 0; b < batch.images(); ++b) {
    const std::vector<CostGt<T>> gts = list_gts<T>(batch, centers, b);
    if (gts.empty()) continue;
    image.read(b, points, gts);
    const int64_t count = image.columns.count(), k = smaller(topk, count);
    if (count == 0) continue;
    std::vector<int32_t> chosen(gts.size() * k, -1);
    at::parallel_for(0, static_cast<int64_t>(gts.size()), kGtGrain, [&](int64_t begin, int64_t end) {
      Search<T> search(count, static_cast<int>(k));
      for (int64_t g = begin; g < end; ++g) {
        const LeastList<T> best = choose(image, gts[g], search);
        std::copy(best.places, best.places + best.size, chosen.begin() + g * k);
      }
    });
    settle(image, gts, chosen, k, out.assigned.mutable_data_ptr<int64_t>() + b * batch.num_priors(),
           out.ious.mutable_data_ptr<T>() + b * batch.num_priors());
  }
}

std::tuple<at::Tensor, at::Tensor> dynamic_k_assign_cpu(
    const at::Tensor& points, const at::Tensor& scores, const at::Tensor& boxes, const at::Tensor& gt_boxes,
    const at::Tensor& gt_labels, const OptionalTensor& gt_centers, const at::Tensor& offsets,
    const OptionalTensor& valid, c10::string_view rule, int64_t topk, double radius, double iou_weight,
    double cls_weight, bool are_logits) {
  const PredictionBatch batch =
      check_prediction_batch(points, scores, boxes, gt_boxes, gt_labels, offsets, valid, topk, are_logits);
  const at::Tensor centers = check_centers(batch, gt_centers);
  check_weights(radius, iou_weight, cls_weight);
  const CostRule kind = parse_rule(rule);
  TORCH_CHECK_VALUE(kind == CostRule::kSimOTA || are_logits, "soft_label needs logits, not probabilities");
  PredictionAssigned out = empty_prediction_assigned(batch);
  fill_invalid(batch, out.assigned);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, batch.scores.scalar_type(), "dynamic_k_assign", [&] {
        if (batch.priors.scalar_type() == at::kDouble) {
          assign<double, scalar_t>(batch, centers, {kind, radius, iou_weight, cls_weight}, topk, out);
        } else {
          const CostSettings<float> settings = {kind, static_cast<float>(radius),
                                                static_cast<float>(iou_weight),
                                                static_cast<float>(cls_weight)};
          assign<float, scalar_t>(batch, centers, settings, topk, out);
        }
      });
  return {out.assigned, out.ious};
}

}  // namespace

TORCH_LIBRARY_IMPL(atss_ext, CPU, m) { m.impl("dynamic_k_assign", &dynamic_k_assign_cpu); }

}  // namespace atss_ext
