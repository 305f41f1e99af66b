// Products of few rows with a packed weight.
//
// A weight lies in panels of kPanel outputs; a panel is read from its start to its end, once for
// every kRows rows, whose sums stay in registers. Each output is summed in the order of its inputs,
// however many rows there are: a row's result does not depend on the rows beside it.
#pragma once

#include "numbers.h"

constexpr int kPanel = 2 * kLanes;
#ifdef __AVX512F__
constexpr int kRows = 12;
#else
constexpr int kRows = 6;
#endif

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Units of 32 bits that hold so many inputs.
template <class T>
int64_t units(int64_t inputs) {
  return ceil_div(inputs, T::kPack);
}

template <class T>
int64_t packed_bytes(int64_t inputs, int64_t outputs) {
  return ceil_div(outputs, kPanel) * units<T>(inputs) * kPanel * 4;
}

// weight: [outputs, inputs], as torch keeps it. Missing inputs and outputs are zero.
template <class T>
void pack(const typename T::Stored* weight, int64_t inputs, int64_t outputs,
          typename T::Stored* packed) {
  for (int64_t first = 0; first < outputs; first += kPanel)
    for (int64_t unit = 0; unit < units<T>(inputs); ++unit)
      for (int64_t output = first; output < first + kPanel; ++output)
        for (int64_t input = unit * T::kPack; input < (unit + 1) * T::kPack; ++input)
          *packed++ = input < inputs && output < outputs ? weight[output * inputs + input] : 0;
}

// Calls `take(Count<M>)` with the constant M = count, 1 to kRows.
template <int M>
struct Count {
  static constexpr int value = M;
};

template <int M = kRows, class Take>
inline void with_count(int count, Take&& take) {
  if constexpr (M > 0) {
    if (count == M) return take(Count<M>{});
    with_count<M - 1>(count, take);
  }
}

// Cuts `rows` into runs of nearly equal length, at most kRows: `take(first, length)`.
template <class Take>
inline void in_runs(int64_t rows, Take&& take) {
  int64_t runs = ceil_div(rows, kRows);
  for (int64_t run = 0; run < runs; ++run) {
    int64_t first = rows * run / runs;
    take(first, (int)(rows * (run + 1) / runs - first));
  }
}

// Products of `rows` rows, at most kRows, with N vectors of outputs: sums [rows, N]. x: units,
// `stride` of them from row to row. panel: N vectors a unit. fetch: bring the next one near.
template <class T, int N, bool fetch = false>
void dot(const uint32_t* x, int64_t stride, int rows, const Bits* panel, int64_t count, Vec* sums) {
  with_count(rows, [&](auto constant) {
    constexpr int M = decltype(constant)::value;
    Vec mine[M][N] = {};  // in registers: every loop over them is unrolled
    for (int64_t unit = 0; unit < count; ++unit) {
      Bits weights[N];
      if constexpr (fetch)
        for (int n = 0; n < N; ++n) __builtin_prefetch(panel + (count + unit) * N + n);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) weights[n] = panel[unit * N + n];
#pragma GCC unroll 12
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n)
          mine[m][n] = T::mac(mine[m][n], x[m * stride + unit], weights[n]);
    }
    std::memcpy(sums, mine, sizeof(mine));
  });
}

// weight: packed. bias: float32, as long as the panels, or none.
struct Linear {
  const Bits* weight;
  const float* bias;
  int64_t inputs, outputs;

  int64_t panels() const { return ceil_div(outputs, kPanel); }
  // Outputs with those that only fill the last panel.
  int64_t width() const { return panels() * kPanel; }
};

constexpr int64_t kBlock = 10 * kRows;  // rows that a panel is read for while it is near

// One thread's panels of `linear` for units `x`: `take(row, output, sums)` for every row and panel,
// the panel's two vectors in `sums`.
template <class T, class Take>
void multiply(const Linear& linear, const uint32_t* x, int64_t stride, int64_t rows, int thread,
              int threads, Take&& take) {
  int64_t count = units<T>(linear.inputs);
  int64_t begin = linear.panels() * thread / threads;
  int64_t end = linear.panels() * (thread + 1) / threads;
  for (int64_t block = 0; block < rows; block += kBlock) {
    int64_t left = rows - block < kBlock ? rows - block : kBlock;
    for (int64_t panel = begin; panel < end; ++panel) {
      const Bits* weight = linear.weight + panel * count * 2;
      const float* bias = linear.bias ? linear.bias + panel * kPanel : nullptr;
      int run = 0;
      in_runs(left, [&](int64_t first, int length) {
        Vec sums[kRows * 2];
        const uint32_t* rows_of_run = x + (block + first) * stride;
        // The first run waits for the panel; the second has time to fetch the next.
        if (++run == 2)
          dot<T, 2, true>(rows_of_run, stride, length, weight, count, sums);
        else
          dot<T, 2>(rows_of_run, stride, length, weight, count, sums);
        for (int row = 0; row < length; ++row) {
          if (bias)
            for (int n = 0; n < 2; ++n) sums[row * 2 + n] += load<Vec>(bias + n * kLanes);
          take(block + first + row, panel * kPanel, sums + row * 2);
        }
      });
    }
  }
}
