// Numbers that carry their derivatives, so that every overlap has its gradient without a second formula.
#pragma once

#include "arctangent.h"

namespace atss_ext {

// A value and its derivatives by kInputs variables (forward-mode differentiation).
template <typename T, int kInputs>
struct Dual {
  T value;
  T slope[kInputs];

  ATSS_HD Dual() : Dual(0) {}
  ATSS_HD explicit Dual(double constant) : value(T(constant)) {
    for (int i = 0; i < kInputs; ++i) slope[i] = 0;
  }
  ATSS_HD static Dual variable(T value, int index) {
    Dual result(0);
    result.value = value;
    result.slope[index] = 1;
    return result;
  }
  // outer + its derivative: the chain rule for a function of one number.
  ATSS_HD Dual chain(T outer, T derivative) const {
    Dual result(0);
    result.value = outer;
    for (int i = 0; i < kInputs; ++i) result.slope[i] = derivative * slope[i];
    return result;
  }
};

template <typename T, int kInputs>
ATSS_HD Dual<T, kInputs> operator+(Dual<T, kInputs> a, const Dual<T, kInputs>& b) {
  a.value += b.value;
  for (int i = 0; i < kInputs; ++i) a.slope[i] += b.slope[i];
  return a;
}

template <typename T, int kInputs>
ATSS_HD Dual<T, kInputs> operator-(Dual<T, kInputs> a, const Dual<T, kInputs>& b) {
  a.value -= b.value;
  for (int i = 0; i < kInputs; ++i) a.slope[i] -= b.slope[i];
  return a;
}

template <typename T, int kInputs>
ATSS_HD Dual<T, kInputs> operator*(Dual<T, kInputs> a, const Dual<T, kInputs>& b) {
  for (int i = 0; i < kInputs; ++i) a.slope[i] = a.slope[i] * b.value + a.value * b.slope[i];
  a.value *= b.value;
  return a;
}

template <typename T, int kInputs>
ATSS_HD Dual<T, kInputs> operator/(Dual<T, kInputs> a, const Dual<T, kInputs>& b) {
  a.value /= b.value;
  for (int i = 0; i < kInputs; ++i) a.slope[i] = (a.slope[i] - a.value * b.slope[i]) / b.value;
  return a;
}

template <typename T, int kInputs>
ATSS_HD bool operator<(const Dual<T, kInputs>& a, const Dual<T, kInputs>& b) {
  return a.value < b.value;
}

template <typename T, int kInputs>
ATSS_HD bool operator==(const Dual<T, kInputs>& a, const Dual<T, kInputs>& b) {
  return a.value == b.value;
}

template <typename T, int kInputs>
ATSS_HD Dual<T, kInputs> arctangent(const Dual<T, kInputs>& a) {
  return a.chain(arctangent(a.value), 1 / (1 + a.value * a.value));
}

}  // namespace atss_ext
