// Attention of a draft tree over paged keys and values.
//
// A task is one KV head and some of a sequence's rows, the query heads of that KV head folded into
// them: a folded row is a lane of a vector. Keys are read where they lie and multiplied with all
// lanes at once. A row's columns are summed one after the other, in the order past, step, prompts;
// what it does not see adds zero. So its result depends neither on the rows beside it nor on
// whether a column lies in the cache or in the step buffer.
#pragma once

#include <cmath>
#include <vector>

#include "linear.h"

// As `engine.attention.tables` has it, int64 each.
struct Segment {
  int64_t start, num_rows, num_causal, num_past, first_block, scratch_slot, prompt_slot,
      num_prompts, first_mask;
};

// Slots that follow each other, of columns of one kind.
struct Run {
  enum Kind { kPast, kStep, kPrompts } kind;
  int64_t slot, count;
};

constexpr int64_t kAhead = 24;  // columns that are multiplied while one comes from memory
constexpr int64_t kLine = 64;   // bytes that come at once

struct Task {
  const Segment* segment;
  int64_t first, lanes;  // folded rows: row * share + head
};

// queries, out: rows of `heads * head_dim`. keys, values: a layer's, slots of
// `kv_heads * head_dim`. words: of each row, `pieces` of 64 columns. window: 0 for none.
template <class T>
struct Attention {
  const typename T::Stored *queries, *keys, *values;
  typename T::Stored* out;
  int64_t heads, kv_heads, head_dim, block_size, window;
  float scaling;
  const int64_t *positions, *blocks;
  const uint64_t* words;
  int64_t pieces;

  // scratch: scratch_bytes(columns, head_dim).
  void operator()(const Task& task, int64_t kv_head, Vec* scratch) const {
    const int64_t share = heads / kv_heads, count = units<T>(head_dim);
    const int64_t row_width = heads * head_dim, slot_width = kv_heads * head_dim;
    const Segment& segment = *task.segment;
    const std::vector<Run> runs = runs_of(task);
    Bits* packed = (Bits*)scratch;
    Vec* scores = scratch + count;
    int32_t row_of[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      bool real = lane < task.lanes;
      int64_t folded = task.first + (real ? lane : 0);
      row_of[lane] = (int32_t)(folded / share);
      int64_t row = segment.start + folded / share, head = kv_head * share + folded % share;
      const uint32_t* query = (const uint32_t*)(queries + row * row_width + head * head_dim);
      for (int64_t unit = 0; unit < count; ++unit)
        ((uint32_t*)packed)[unit * kLanes + lane] = real ? query[unit] : 0;
    }

    int64_t columns = 0;
    Ahead ahead{runs};
    fetch(ahead, kv_head, kAhead);
    for (const Run& run : runs) {
      const auto* first_key = keys + run.slot * slot_width + kv_head * head_dim;
      Vec* mine = scores + columns;
      in_runs(run.count, [&](int64_t first, int length) {
        const int64_t stride = slot_width / T::kPack;
        Vec* sums = mine + first;
        fetch(ahead, kv_head, length);
        dot<T, 1>((const uint32_t*)first_key + first * stride, stride, length, packed, count, sums);
        for (int i = 0; i < length; ++i) sums[i] *= scaling;
      });
      hide(run, columns, segment, load<Ints>(row_of), row_of, mine);
      columns += run.count;
    }

    Vec top = splat(-INFINITY), total = Vec{};
    for (int64_t column = 0; column < columns; ++column)
      top = top > scores[column] ? top : scores[column];
    for (int64_t column = 0; column < columns; ++column) {
      scores[column] = exponential(scores[column] - top);
      total += scores[column];
    }
    for (int64_t dim = 0; dim < head_dim;) {
      if (dim + 2 * kLanes <= head_dim) {
        gather<2>(task, kv_head, dim, runs, scores, total);
        dim += 2 * kLanes;
      } else {
        gather<1>(task, kv_head, dim, runs, scores, total);
        dim += kLanes;
      }
    }
  }

  static int64_t scratch_bytes(int64_t columns, int64_t head_dim) {
    return (columns + head_dim) * (int64_t)sizeof(Vec);
  }

 private:
  // The next columns, those of the current ones still being multiplied.
  struct Ahead {
    const std::vector<Run>& runs;
    size_t run = 0;
    int64_t column = 0;
  };

  // Brings so many columns' keys and values near: they lie far apart, where nothing guesses them.
  void fetch(Ahead& ahead, int64_t kv_head, int64_t count) const {
    const int64_t slot_width = kv_heads * head_dim;
    while (count > 0 && ahead.run < ahead.runs.size()) {
      const Run& run = ahead.runs[ahead.run];
      int64_t left = run.count - ahead.column, now = left < count ? left : count;
      int64_t first = (run.slot + ahead.column) * slot_width + kv_head * head_dim;
      for (int64_t i = 0; i < now; ++i)
        for (int64_t dim = 0; dim < head_dim; dim += kLine / sizeof(*keys)) {
          __builtin_prefetch(keys + first + i * slot_width + dim);
          __builtin_prefetch(values + first + i * slot_width + dim);
        }
      count -= now;
      ahead.column += now;
      if (now == left) ++ahead.run, ahead.column = 0;
    }
  }

  std::vector<Run> runs_of(const Task& task) const {
    const Segment& segment = *task.segment;
    std::vector<Run> runs;
    for (int64_t column = 0; column < segment.num_past; column += block_size) {
      int64_t slot = blocks[segment.first_block + column / block_size] * block_size;
      int64_t left = segment.num_past - column, count = left < block_size ? left : block_size;
      if (!runs.empty() && runs.back().slot + runs.back().count == slot)
        runs.back().count += count;
      else
        runs.push_back({Run::kPast, slot, count});
    }
    // Causal rows see nothing behind themselves.
    int64_t last = (task.first + task.lanes - 1) / (heads / kv_heads);
    int64_t fresh = last < segment.num_causal ? last + 1 : segment.num_rows;
    runs.push_back({Run::kStep, segment.scratch_slot, fresh});
    if (last >= segment.first_mask && segment.num_prompts)
      runs.push_back({Run::kPrompts, segment.prompt_slot, segment.num_prompts});
    return runs;
  }

  // Scores of columns a lane does not see become -inf. rows, row_of: of the lanes.
  void hide(const Run& run, int64_t columns, const Segment& segment, Ints rows,
            const int32_t* row_of, Vec* scores) const {
    const Vec hidden = splat(-INFINITY);
    if (run.kind == Run::kPrompts) {
      for (int64_t column = 0; column < run.count; ++column)
        scores[column] = rows >= (int32_t)segment.first_mask ? scores[column] : hidden;
      return;
    }
    if (window) {
      Ints first;  // position a lane sees
      for (int lane = 0; lane < kLanes; ++lane)
        first[lane] = (int32_t)(positions[segment.start + row_of[lane]] - window + 1);
      for (int64_t column = 0; column < run.count; ++column) {
        int64_t position =
            run.kind == Run::kPast ? columns + column : positions[segment.start + column];
        scores[column] = first <= (int32_t)position ? scores[column] : hidden;
      }
    }
    if (run.kind == Run::kPast) return;
    int64_t causal = segment.num_causal < run.count ? segment.num_causal : run.count;
    for (int64_t column = 0; column < causal; ++column)
      scores[column] = rows >= (int32_t)column ? scores[column] : hidden;
    for (int64_t first = causal; first < run.count; first += 32) {
      Bits word;  // of the 32 columns from here on
      int64_t bit = first - causal, end = first + 32 < run.count ? first + 32 : run.count;
      for (int lane = 0; lane < kLanes; ++lane)
        word[lane] = (uint32_t)(words[(segment.start + row_of[lane]) * pieces + bit / 64] >>
                                (bit % 64));
      for (int64_t column = first; column < end; ++column) {
        Bits seen = word >> (uint32_t)(column - first) & 1;
        scores[column] = seen != 0 ? scores[column] : hidden;
      }
    }
  }

  // D vectors of the heads' outputs from `dim` on: values, weighted.
  template <int D>
  void gather(const Task& task, int64_t kv_head, int64_t dim, const std::vector<Run>& runs,
              const Vec* weights, Vec total) const {
    const int64_t share = heads / kv_heads, slot_width = kv_heads * head_dim;
    in_runs(task.lanes, [&](int64_t first, int length) {
      Vec sums[kRows * D];
      with_count(length, [&](auto constant) {
        constexpr int M = decltype(constant)::value;
        Vec mine[M][D] = {};
        const float* weight = (const float*)weights + first;
        for (const Run& run : runs) {
          const auto* value = values + run.slot * slot_width + kv_head * head_dim + dim;
          for (int64_t column = 0; column < run.count; ++column) {
            Vec part[D];
#pragma GCC unroll 2
            for (int d = 0; d < D; ++d) part[d] = T::widen(value + d * kLanes);
#pragma GCC unroll 12
            for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
              for (int d = 0; d < D; ++d)
                mine[m][d] = fused(splat(weight[m]), part[d], mine[m][d]);
            value += slot_width;
            weight += kLanes;
          }
        }
        std::memcpy(sums, mine, sizeof(mine));
      });
      for (int lane = 0; lane < length; ++lane) {
        int64_t folded = task.first + first + lane;
        int64_t row = task.segment->start + folded / share;
        int64_t head = kv_head * share + folded % share;
        for (int d = 0; d < D; ++d)
          T::narrow(out + (row * heads + head) * head_dim + dim + d * kLanes,
                    sums[lane * D + d] / splat(total[first + lane]));
      }
    });
  }
};

// Cuts every sequence's folded rows into tasks of nearly equal length, at most a vector's lanes.
inline std::vector<Task> tasks_of(const Segment* segments, int64_t count, int64_t share) {
  std::vector<Task> tasks;
  for (int64_t i = 0; i < count; ++i) {
    int64_t folded = segments[i].num_rows * share, cuts = ceil_div(folded, kLanes);
    for (int64_t cut = 0; cut < cuts; ++cut) {
      int64_t first = folded * cut / cuts;
      tasks.push_back({&segments[i], first, folded * (cut + 1) / cuts - first});
    }
  }
  return tasks;
}
