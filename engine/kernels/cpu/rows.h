// Rows of float32, and the memory they lie in while a call works.
#pragma once

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
