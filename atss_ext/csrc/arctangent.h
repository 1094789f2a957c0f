// The arc tangent from basic arithmetic alone: the libraries of host and device round differently, this is
// the same bits on both.
#pragma once

#include "portable.h"

namespace atss_ext {

// Rational approximation of Cephes (S. Moshier, atan.c), good to double precision.
ATSS_HD double arctangent(double x) {
  constexpr double kHalfPi = 1.57079632679489661923, kQuarterPi = 0.785398163397448309616;
  const double size = x < 0 ? -x : x;
  double start = 0, t = size;
  if (size > 2.41421356237309504880) {  // tan(3 pi / 8)
    start = kHalfPi;
    t = -1 / size;
  } else if (size > 0.66) {
    start = kQuarterPi;
    t = (size - 1) / (size + 1);
  }
  const double z = t * t;
  double p = -8.750608600031904122785e-1;
  p = p * z - 1.615753718733365076637e1;
  p = p * z - 7.500855792314704667340e1;
  p = p * z - 1.228866684490136173410e2;
  p = p * z - 6.485021904942025371773e1;
  double q = z + 2.485846490142306297962e1;
  q = q * z + 1.650270098316988542046e2;
  q = q * z + 4.328810604912902668951e2;
  q = q * z + 4.853903996359136964868e2;
  q = q * z + 1.945506571482613964425e2;
  const double result = start + (t + t * (z * p / q));
  return x < 0 ? -result : result;
}

ATSS_HD float arctangent(float x) { return static_cast<float>(arctangent(static_cast<double>(x))); }

}  // namespace atss_ext
