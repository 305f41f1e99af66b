// A level of draft trees: the successor head (adapters/successor.py), the draft vocabulary's logits,
// and every parent's likeliest children.
#pragma once

#include <omp.h>

#include <cmath>

#include "linear.h"
#include "rows.h"
#include "sampling.h"

extern "C" {

// head: of the model's dtype, as many outputs as draft tokens. rank: of the successor head, 0 where
// there is none; hidden, state, out: its matrices in float32. bias: [masks, rank]. table: what it
// reads of every token, [vocab, rank] of the model's dtype. tokens: that the outputs stand for.
struct DraftHead {
  Linear head, hidden, state, out;
  int64_t rank;
  const float* bias;
  const void* table;
  const int64_t* tokens;
};

// Of `rows` parents: their mask's row in `hidden` and its number in its group, their token, and the
// row of their own parent's state in `states`, which is none at the roots. scales: of the noise on
// their logits, drawn from `starts`; 0 for none. best, shares: [rows, width], the likeliest outputs
// and their probabilities.
struct Level {
  int64_t rows, width, threads;
  const int64_t *index, *masks, *path, *before;
  const void* hidden;
  const float* states;
  float* next_states;
  const uint64_t* starts;
  const float* scales;
  float temperature;
  int64_t* best;
  float* shares;
  void* workspace;
};
}

template <class T>
struct Ranking {
  using Stored = typename T::Stored;
  const DraftHead& draft;
  const Level& level;
  const int64_t hidden = draft.head.inputs, width = draft.head.width();
  float *logits, *normed, *inner;
  Stored* led;
  int64_t bytes;

  Ranking(const DraftHead& draft, const Level& level) : draft(draft), level(level) {
    Room room(level.workspace);
    logits = room.take<float>(level.rows * width);
    normed = room.take<float>(level.rows * hidden);
    inner = room.take<float>(level.rows * draft.hidden.width());
    led = room.take<Stored>(level.rows * hidden);
    bytes = room.bytes();
  }

  void run() {
#pragma omp parallel num_threads((int)level.threads)
    {
      const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
      const int64_t first = level.rows * thread / threads;
      const int64_t count = level.rows * (thread + 1) / threads - first;
      if (draft.rank) advance(first, count);
      lead(first, count);
#pragma omp barrier
      multiply<T>(draft.head, (const uint32_t*)led, hidden / T::kPack, level.rows, thread, threads,
                  [&](int64_t row, int64_t output, const Vec* sums) {
                    float* to = logits + row * width + output;
                    for (int n = 0; n < 2; ++n)
                      store(to + n * kLanes, sums[n] / splat(level.temperature));
                  });
#pragma omp barrier
      for (int64_t row = first; row < first + count; ++row) choose(row);
    }
  }

 private:
  const Stored* mask_of(int64_t row) const {
    return (const Stored*)level.hidden + level.index[row] * hidden;
  }

  // The new state: silu(what it reads of the mask, of the token, of the parent's state).
  void advance(int64_t first, int64_t count) {
    const int64_t rank = draft.rank, inner_width = draft.hidden.width();
    float* sums = inner + first * inner_width;
    for (int64_t row = first; row < first + count; ++row) {
      float* to = normed + row * hidden;
      widen_row<T>(mask_of(row), hidden, to);
      float scale = rms_scale(to, hidden, 1e-6f);
      for (int64_t i = 0; i < hidden; i += kLanes) store(to + i, load<Vec>(to + i) * scale);
    }
    float32_product(draft.hidden, normed + first * hidden, hidden, count, sums, inner_width);
    for (int64_t row = first; row < first + count; ++row) {
      const float* bias = draft.bias + level.masks[level.index[row]] * rank;
      const Stored* token = (const Stored*)draft.table + level.path[row] * rank;
      float* to = inner + row * inner_width;
      for (int64_t i = 0; i < rank; ++i) to[i] += bias[i] + T::widen(token[i]);
      if (level.states) {
        const float* state = level.states + level.before[row] * rank;
        multiply<Float32>(draft.state, (const uint32_t*)state, rank, 1, 0, 1,
                          [&](int64_t, int64_t output, const Vec* more) {
                            add_panel(to + output, more);
                          });
      }
      for (int64_t i = 0; i < inner_width; i += kLanes) store(to + i, silu(load<Vec>(to + i)));
      std::memcpy(level.next_states + row * rank, to, rank * sizeof(float));
    }
  }

  // What the head reads: the mask's hidden state, with what the new state adds.
  void lead(int64_t first, int64_t count) {
    const int64_t rank = draft.rank;
    if (rank)
      float32_product(draft.out, level.next_states + first * rank, rank, count,
                      normed + first * hidden, hidden);
    for (int64_t row = first; row < first + count; ++row) {
      const Stored* from = mask_of(row);
      for (int64_t i = 0; i < hidden; i += kLanes) {
        Vec x = T::widen(from + i);
        T::narrow(led + row * hidden + i, rank ? x + load<Vec>(normed + row * hidden + i) : x);
      }
    }
  }

  static void float32_product(const Linear& linear, const float* x, int64_t stride, int64_t rows,
                              float* out, int64_t out_stride) {
    multiply<Float32>(linear, (const uint32_t*)x, stride, rows, 0, 1,
                      [&](int64_t row, int64_t output, const Vec* sums) {
                        for (int n = 0; n < 2; ++n)
                          if (output + n * kLanes < out_stride)
                            store(out + row * out_stride + output + n * kLanes, sums[n]);
                      });
  }

  void perturb(float* mine, uint64_t start, float scale) {
    constexpr int64_t kPiece = 512;
    float noise[kPiece];
    for (int64_t first = 0; first < draft.head.outputs; first += kPiece) {
      int64_t left = draft.head.outputs - first, count = left < kPiece ? left : kPiece;
      draw_all(start, draft.tokens + first, count, noise);
      for (int64_t i = 0; i < count; ++i) mine[first + i] += scale * noise[i];
    }
  }

  void choose(int64_t row) {
    const int64_t outputs = draft.head.outputs;
    float* mine = logits + row * width;
    if (level.scales[row] > 0) perturb(mine, level.starts[row], level.scales[row]);
    for (int64_t i = outputs; i < width; ++i) mine[i] = -INFINITY;
    int64_t* best = level.best + row * level.width;
    float* shares = level.shares + row * level.width;
    for (int64_t rank = 0; rank < level.width; ++rank) best[rank] = 0, shares[rank] = -INFINITY;
    const int64_t last = level.width - 1;
    for (int64_t i = 0; i < outputs; ++i) {
      if (!(mine[i] > shares[last])) continue;
      int64_t rank = last;
      for (; rank > 0 && mine[i] > shares[rank - 1]; --rank)
        shares[rank] = shares[rank - 1], best[rank] = best[rank - 1];
      shares[rank] = mine[i], best[rank] = i;
    }
    const float top = shares[0];
    Vec sums = Vec{};
    for (int64_t i = 0; i < width; i += kLanes) sums += exponential(load<Vec>(mine + i) - top);
    const float total = lane_sum(sums);
    for (int64_t rank = 0; rank < level.width; ++rank)
      shares[rank] = std::exp(shares[rank] - top) / total;
  }
};
