// How well a prediction fits a gt, in the terms of TOOD, YOLOX and RTMDet, compiled for host and device.
//
// Costs are summed over classes, but a gt's target differs from "no object" in its own class alone: the sum
// for "no object" is made once a prior, and each gt exchanges one term of it. Sums are double, so that the
// exchange leaves nothing of the term behind.
#pragma once

#include <cmath>
#include <limits>

#include "box_iou.h"

namespace atss_ext {

// Added to the cost of a prior that is not both inside a gt and near its centre (SimOTA).
constexpr double kOutsideCost = 100000.0;
// Keeps log(0) out of the cost of boxes that do not overlap.
constexpr double kLogEps = 1e-7;
// The least logarithm that binary cross entropy counts with (torch).
constexpr double kLeastLog = -100.0;

enum class CostRule { kSimOTA, kSoftLabel };

template <typename T>
ATSS_HD T sigmoid(T x) {
  return T(1) / (T(1) + std::exp(-x));
}

// A score as a probability; what is given as one counts as the nearest of [0, 1].
template <typename T>
ATSS_HD T probability(T score, bool is_logit) {
  return is_logit ? sigmoid(score) : smaller(larger(score, T(0)), T(1));
}

// log(1 + exp(x))
template <typename T>
ATSS_HD T softplus(T x) {
  return larger(x, T(0)) + std::log1p(std::exp(x < T(0) ? x : -x));
}

// TOOD (arXiv 2108.07755) eq. 5.
template <typename T>
ATSS_HD T alignment_metric(T score, T iou, T alpha, T beta) {
  return (alpha == T(1) ? score : std::pow(score, alpha)) * std::pow(iou, beta);
}

// No smaller IoU reaches the metric with a score of at most 1; a little low, as powers are rounded.
template <typename T>
T least_iou(T metric, T beta) {
  if (!(metric > T(0)) || beta < T(0.01)) return T(0);
  return static_cast<T>(std::pow(static_cast<double>(metric), 1.0 / beta) * (1 - 1e-4));
}

// Whether a point lies inside a box, borders excluded.
template <typename T>
ATSS_HD bool strictly_inside(T x, T y, const Box<T>& box) {
  return (x - box.x1 > T(0)) & (y - box.y1 > T(0)) & (box.x2 - x > T(0)) & (box.y2 - y > T(0));
}

// Whether a point lies less than rx and ry from a centre.
template <typename T>
ATSS_HD bool near_center(T x, T y, T rx, T ry, T center_x, T center_y) {
  return (x - (center_x - rx) > T(0)) & (y - (center_y - ry) > T(0)) & (center_x + rx - x > T(0)) &
         (center_y + ry - y > T(0));
}

template <typename T>
ATSS_HD T stride_distance(T x, T y, T stride, T center_x, T center_y) {
  const T dx = x - center_x, dy = y - center_y;
  return std::sqrt(dx * dx + dy * dy) / stride;
}

// A class's cost for "no object" and for its gt: binary cross entropy of a probability (YOLOX).
template <typename T>
ATSS_HD double no_object_entropy(T p) {
  return -larger(std::log1p(-static_cast<double>(p)), kLeastLog);
}

template <typename T>
ATSS_HD double object_entropy(T p) {
  return -larger(std::log(static_cast<double>(p)), kLeastLog);
}

// The same for RTMDet's soft label: entropy of a logit, weighted by the squared distance to the label.
template <typename T>
ATSS_HD double no_object_soft_entropy(T x) {
  const T p = sigmoid(x);
  return static_cast<double>(softplus(x)) * static_cast<double>(p * p);
}

template <typename T>
ATSS_HD double object_soft_entropy(T x, T iou) {
  const T distance = iou - sigmoid(x);
  return static_cast<double>((T(1) - iou) * x + softplus(-x)) * static_cast<double>(distance * distance);
}

// The entropies of many probabilities: one logarithm for 16 factors, whose product cannot underflow.
struct EntropySum {
  double total = 0, product = 1;
  int factors = 0;

  ATSS_HD void add(double p) {
    const double rest = 1 - p;
    if (rest <= 0) {
      total -= kLeastLog;
      return;
    }
    product *= rest;
    if (++factors < 16) return;
    total -= std::log(product);
    product = 1;
    factors = 0;
  }
  ATSS_HD double sum() const { return total - std::log(product); }
};

template <typename T>
ATSS_HD T overlap_cost(T iou) {
  return -std::log(iou + T(kLogEps));
}

// RTMDet (arXiv 2212.07784) section 3.4: the distance is in strides.
template <typename T>
ATSS_HD T soft_center_cost(T distance, T radius) {
  return std::pow(T(10), distance - radius);
}

// The best so far, least value first; of equal values the lower index. The memory is the caller's.
template <typename T>
struct LeastList {
  T* values;
  int32_t* places;
  int capacity;
  int size;

  ATSS_HD LeastList(T* values, int32_t* places, int capacity)
      : values(values), places(places), capacity(capacity), size(0) {}
  ATSS_HD bool full() const { return size == capacity; }
  ATSS_HD T limit() const { return full() ? values[capacity - 1] : std::numeric_limits<T>::infinity(); }
  ATSS_HD bool precedes(T value, int32_t place, int at) const {
    return value < values[at] || (value == values[at] && place < places[at]);
  }
  // NaN is never admitted.
  ATSS_HD void admit(T value, int32_t place) {
    if (value != value || (full() && !precedes(value, place, capacity - 1))) return;
    int at = full() ? capacity - 1 : size++;
    for (; at > 0 && precedes(value, place, at - 1); --at) {
      values[at] = values[at - 1];
      places[at] = places[at - 1];
    }
    values[at] = value;
    places[at] = place;
  }
};

}  // namespace atss_ext
