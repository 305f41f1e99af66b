// Rows of float32, and the memory they lie in while a call works.
#pragma once

#include <cmath>

#include "linear.h"

// Buffers one behind the other, each on a line of its own. Without memory it only counts.
class Room {
 public:
  explicit Room(void* memory) : start_((char*)memory), next_(start_) {}

  template <class E>
  E* take(int64_t count) {
    E* mine = (E*)next_;
    next_ += ceil_div(count * (int64_t)sizeof(E), 64) * 64;
    return mine;
  }
  int64_t bytes() const { return next_ - start_; }

 private:
  char *start_, *next_;
};

inline float lane_sum(Vec x) {
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += x[lane];
  return sum;
}

inline float sum_of_squares(const float* x, int64_t count) {
  Vec sums = Vec{};
  for (int64_t i = 0; i < count; i += kLanes) {
    Vec part = load<Vec>(x + i);
    sums += part * part;
  }
  return lane_sum(sums);
}

// What makes the root mean square of a row one.
inline float rms_scale(const float* x, int64_t count, float epsilon) {
  return 1.0f / std::sqrt(sum_of_squares(x, count) / (float)count + epsilon);
}

template <class T>
void widen_row(const typename T::Stored* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += kLanes) store(to + i, T::widen(from + i));
}

// Adds a panel's two vectors to what is there.
inline void add_panel(float* to, const Vec* sums) {
  for (int n = 0; n < 2; ++n) store(to + n * kLanes, load<Vec>(to + n * kLanes) + sums[n]);
}
