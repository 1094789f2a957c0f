// The k nearest priors of a gt on one pyramid level (ATSS, Algorithm 1, lines 3-6), for host and device.
//
// Of equal distances the lower index wins, whatever the order of visit: every route gives the same list.
#pragma once

#include <cmath>
#include <limits>

#include "box_iou.h"

namespace atss_ext {

// The distance given to priors inside an ignore region: behind every real one, still selectable (mmdet).
constexpr double kIgnoredDistance = 1e8;
template <typename T>
struct Point {
  T x, y;
};

template <typename T>
ATSS_HD Point<T> center_of(const T* box) {
  return {(box[0] + box[2]) / 2, (box[1] + box[3]) / 2};
}

template <typename T>
ATSS_HD T squared_distance(Point<T> a, Point<T> b) {
  const T dx = a.x - b.x, dy = a.y - b.y;
  return dx * dx + dy * dy;
}

// Which priors of one image take part, and which lie in an ignore region. Either may be null.
struct PriorMasks {
  const bool* valid;    // [N]
  const bool* ignored;  // [N]

  // The squared distance a prior is ranked by; infinite for one that takes no part.
  template <typename T>
  ATSS_HD T ranked(T distance, int64_t prior) const {
    if (valid != nullptr && !valid[prior]) return std::numeric_limits<T>::infinity();
    if (ignored != nullptr && ignored[prior]) return T(kIgnoredDistance * kIgnoredDistance);
    return distance;
  }
};

// The nearest priors so far, nearest first. The memory is the caller's.
template <typename T>
struct NearestList {
  T* distances;     // [capacity], squared
  int32_t* priors;  // [capacity], index within the image
  int capacity;
  int size;

  ATSS_HD NearestList(T* distances, int32_t* priors, int capacity)
      : distances(distances), priors(priors), capacity(capacity), size(0) {}
  ATSS_HD bool full() const { return size == capacity; }
  ATSS_HD T farthest() const { return distances[capacity - 1]; }
  // Nothing beyond this distance is admitted.
  ATSS_HD T limit() const { return full() ? farthest() : std::numeric_limits<T>::infinity(); }
  ATSS_HD bool precedes(T distance, int32_t prior, int place) const {
    return distance < distances[place] || (distance == distances[place] && prior < priors[place]);
  }

  // Takes a prior in if it is among the nearest; NaN and infinity never are.
  ATSS_HD void admit(T distance, int32_t prior) {
    if (!(distance <= limit()) || distance == std::numeric_limits<T>::infinity()) return;
    if (full() && !precedes(distance, prior, capacity - 1)) return;
    int place = full() ? capacity - 1 : size++;
    for (; place > 0 && precedes(distance, prior, place - 1); --place) {
      distances[place] = distances[place - 1];
      priors[place] = priors[place - 1];
    }
    distances[place] = distance;
    priors[place] = prior;
  }
};

}  // namespace atss_ext
