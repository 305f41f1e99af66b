// All layers of a model built like Llama, in one call: few rows, paged KV, a draft tree a sequence.
//
// A forward of a small model is hundreds of operations that each take less than their call. Here the
// threads start once and meet eight times a layer. Between layers the rows are float32; they are
// rounded to the weights' dtype where a product reads them.

#include <omp.h>

#include "attention.h"
#include "drafts.h"
#include "rows.h"
#include "sampling.h"

extern "C" {

struct Layer {
  const float* input_norm;
  Linear query, key, value;
  const float *query_norm, *key_norm;  // of a head; none where the model has none
  Linear output;
  const float* mlp_norm;
  Linear gate, up, down;
  int64_t window;
};

// embeddings: of the vocabulary; masks: of the adapters; [.., hidden] both. keys, values: [layers,
// slots, kv_heads, head_dim].
struct Trunk {
  int64_t num_layers, hidden, heads, kv_heads, head_dim, block_size, num_slots;
  float epsilon, scaling;
  const Layer* layers;
  const float* final_norm;
  const void *embeddings, *masks;
  void *keys, *values;
};

// token_ids: of all rows; rows that are masks, `num_masks` of them in `mask_rows`, have the embedding
// that `mask_slots` names instead. hidden: [rows, hidden], after the final norm. finite: becomes 0
// where a row of it is not. cosines, sines: [positions, head_dim / 2]. slots: where a
// row's keys and values go. words: [rows, pieces]. columns: most that a sequence sees.
struct Step {
  int64_t rows, num_masks, num_segments, pieces, columns, threads;
  const int64_t *token_ids, *mask_rows, *mask_slots, *positions, *slots, *blocks;
  void* hidden;
  int64_t* finite;
  const Segment* segments;
  const uint64_t* words;
  const float *cosines, *sines;
  void* workspace;
};
}

namespace {

// Buffers of a forward, one behind the other.
template <class T>
struct Workspace {
  using Stored = typename T::Stored;
  float *residual, *projected;
  Stored *normed, *queries, *attended, *activated;
  char* scratch;
  int64_t scratch_bytes, residual_width, projected_width, activated_width, bytes;

  Workspace(const Trunk& trunk, const Step& step) {
    const Layer& layer = trunk.layers[0];
    residual_width = layer.down.width();
    projected_width = layer.query.width() + layer.key.width() + layer.value.width();
    activated_width = layer.gate.width();
    scratch_bytes = Attention<T>::scratch_bytes(step.columns, trunk.head_dim);
    Room room(step.workspace);
    int64_t rows = step.rows, query_width = trunk.heads * trunk.head_dim;
    residual = room.take<float>(rows * residual_width);
    projected = room.take<float>(rows * projected_width);
    normed = room.take<Stored>(rows * trunk.hidden);
    queries = room.take<Stored>(rows * query_width);
    attended = room.take<Stored>(rows * query_width);
    activated = room.take<Stored>(rows * activated_width);
    scratch = room.take<char>(scratch_bytes * step.threads);
    bytes = room.bytes();
  }
};

template <class Out>
void normalise(const float* x, const float* weight, int64_t count, float epsilon, Out&& out) {
  float scale = rms_scale(x, count, epsilon);
  for (int64_t i = 0; i < count; i += kLanes)
    out(i, load<Vec>(x + i) * scale * load<Vec>(weight + i));
}

// Normalises a head where the model does, and turns it by its position (RoFormer, sec. 3.2.2).
template <class T>
void rotate(float* x, const float* norm, const Trunk& trunk, const float* cosines,
            const float* sines, typename T::Stored* out) {
  int64_t half = trunk.head_dim / 2;
  if (norm)
    normalise(x, norm, trunk.head_dim, trunk.epsilon, [&](int64_t i, Vec y) { store(x + i, y); });
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    Vec real = load<Vec>(x + i), imaginary = load<Vec>(x + half + i);
    Vec cosine = load<Vec>(cosines + i), sine = load<Vec>(sines + i);
    T::narrow(out + i, real * cosine - imaginary * sine);
    T::narrow(out + half + i, imaginary * cosine + real * sine);
  }
  for (; i < half; ++i) {
    float real = x[i], imaginary = x[half + i];
    out[i] = T::narrow(real * cosines[i] - imaginary * sines[i]);
    out[half + i] = T::narrow(imaginary * cosines[i] + real * sines[i]);
  }
}

template <class T>
struct Forward {
  using Stored = typename T::Stored;
  const Trunk& trunk;
  const Step& step;
  Workspace<T> space;
  std::vector<Task> tasks;

  Forward(const Trunk& trunk, const Step& step)
      : trunk(trunk), step(step), space(trunk, step),
        tasks(tasks_of(step.segments, step.num_segments, trunk.heads / trunk.kv_heads)) {}

  void run() {
#pragma omp parallel num_threads((int)step.threads)
    {
      int thread = omp_get_thread_num(), count = omp_get_num_threads();
      each_row(thread, count, [&](int64_t row) { embed(row, trunk.embeddings, step.token_ids[row]); });
#pragma omp barrier
      for (int64_t i = thread; i < step.num_masks; i += count)
        embed(step.mask_rows[i], trunk.masks, step.mask_slots[i]);
#pragma omp barrier
      for (int64_t index = 0; index < trunk.num_layers; ++index) {
        const Layer& layer = trunk.layers[index];
        norm(layer.input_norm, space.normed, thread, count);
#pragma omp barrier
        project(layer, thread, count);
#pragma omp barrier
        place(layer, index, thread, count);
#pragma omp barrier
        attend(layer, index, thread);
        add(layer.output, space.attended, trunk.heads * trunk.head_dim, thread, count);
#pragma omp barrier
        norm(layer.mlp_norm, space.normed, thread, count);
#pragma omp barrier
        activate(layer, thread, count);
#pragma omp barrier
        add(layer.down, space.activated, space.activated_width, thread, count);
#pragma omp barrier
      }
      norm(trunk.final_norm, (Stored*)step.hidden, thread, count);
      each_row(thread, count, [&](int64_t row) {
        const float* x = space.residual + row * space.residual_width;
        if (!std::isfinite(sum_of_squares(x, trunk.hidden))) *step.finite = 0;
      });
    }
  }

 private:
  template <class Do>
  void each_row(int thread, int count, Do&& action) {
    int64_t end = step.rows * (thread + 1) / count;
    for (int64_t row = step.rows * thread / count; row < end; ++row) action(row);
  }

  void embed(int64_t row, const void* table, int64_t index) {
    widen_row<T>((const Stored*)table + index * trunk.hidden, trunk.hidden,
                 space.residual + row * space.residual_width);
  }

  int64_t slot_width() const { return trunk.kv_heads * trunk.head_dim; }

  void norm(const float* weight, Stored* out, int thread, int count) {
    each_row(thread, count, [&](int64_t row) {
      normalise(space.residual + row * space.residual_width, weight, trunk.hidden, trunk.epsilon,
                [&](int64_t i, Vec x) { T::narrow(out + row * trunk.hidden + i, x); });
    });
  }

  // `multiply` for activations as they are stored, `width` of them a row.
  template <class Take>
  void product(const Linear& linear, const Stored* x, int64_t width, int thread, int count,
               Take&& take) {
    multiply<T>(linear, (const uint32_t*)x, width / T::kPack, step.rows, thread, count, take);
  }

  void project(const Layer& layer, int thread, int count) {
    float* to = space.projected;
    for (const Linear* linear : {&layer.query, &layer.key, &layer.value}) {
      product(*linear, space.normed, trunk.hidden, thread, count,
              [&](int64_t row, int64_t output, const Vec* sums) {
                for (int n = 0; n < 2; ++n)
                  store(to + row * space.projected_width + output + n * kLanes, sums[n]);
              });
      to += linear->width();
    }
  }

  void place(const Layer& layer, int64_t index, int thread, int count) {
    const int64_t dim = trunk.head_dim, half = dim / 2;
    each_row(thread, count, [&](int64_t row) {
      float* query = space.projected + row * space.projected_width;
      float* key = query + layer.query.width();
      float* value = key + layer.key.width();
      const float* cosines = step.cosines + step.positions[row] * half;
      const float* sines = step.sines + step.positions[row] * half;
      Stored* queries = space.queries + row * trunk.heads * dim;
      int64_t slot = (index * trunk.num_slots + step.slots[row]) * slot_width();
      Stored* keys = (Stored*)trunk.keys + slot;
      Stored* values = (Stored*)trunk.values + slot;
      for (int64_t head = 0; head < trunk.heads; ++head)
        rotate<T>(query + head * dim, layer.query_norm, trunk, cosines, sines,
                  queries + head * dim);
      for (int64_t head = 0; head < trunk.kv_heads; ++head)
        rotate<T>(key + head * dim, layer.key_norm, trunk, cosines, sines, keys + head * dim);
      for (int64_t i = 0; i < slot_width(); i += kLanes)
        T::narrow(values + i, load<Vec>(value + i));
    });
  }

  void attend(const Layer& layer, int64_t index, int thread) {
    int64_t first = index * trunk.num_slots * slot_width();
    Attention<T> attention{
        space.queries, (const Stored*)trunk.keys + first, (const Stored*)trunk.values + first,
        space.attended, trunk.heads, trunk.kv_heads, trunk.head_dim, trunk.block_size,
        layer.window, trunk.scaling, step.positions, step.blocks, step.words, step.pieces};
    int64_t count = (int64_t)tasks.size() * trunk.kv_heads;
    Vec* scratch = (Vec*)(space.scratch + thread * space.scratch_bytes);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < count; ++i)
      attention(tasks[i / trunk.kv_heads], i % trunk.kv_heads, scratch);
  }

  void add(const Linear& linear, const Stored* x, int64_t width, int thread, int count) {
    product(linear, x, width, thread, count, [&](int64_t row, int64_t output, const Vec* sums) {
      add_panel(space.residual + row * space.residual_width + output, sums);
    });
  }

  // Gate and up have the same panels, so that a thread finds what it gated.
  void activate(const Layer& layer, int thread, int count) {
    const int64_t width = space.activated_width;
    product(layer.gate, space.normed, trunk.hidden, thread, count,
            [&](int64_t row, int64_t output, const Vec* sums) {
              for (int n = 0; n < 2; ++n)
                T::narrow(space.activated + row * width + output + n * kLanes, silu(sums[n]));
            });
    product(layer.up, space.normed, trunk.hidden, thread, count,
            [&](int64_t row, int64_t output, const Vec* sums) {
              for (int n = 0; n < 2; ++n) {
                Stored* to = space.activated + row * width + output + n * kLanes;
                T::narrow(to, T::widen(to) * sums[n]);
              }
            });
  }
};

// x: [rows, inputs] of T. out: [rows, outputs] of U.
template <class T, class U>
void linear_of(const Linear& linear, const void* x, int64_t rows, void* out, int threads) {
#pragma omp parallel num_threads(threads)
  multiply<T>(linear, (const uint32_t*)x, linear.inputs / T::kPack, rows, omp_get_thread_num(),
              omp_get_num_threads(), [&](int64_t row, int64_t output, const Vec* sums) {
                auto* to = (typename U::Stored*)out + row * linear.outputs + output;
                for (int n = 0; n < 2; ++n) {
                  int64_t left = linear.outputs - output - n * kLanes;
                  if (left >= kLanes)
                    U::narrow(to + n * kLanes, sums[n]);
                  else
                    for (int64_t i = 0; i < left; ++i)
                      to[n * kLanes + i] = U::narrow(sums[n][i]);
                }
              });
}

// Rows of `bytes` bytes from some slots of every layer to others.
void copy_slots(char* values, int64_t layers, int64_t slots, int64_t bytes, int64_t count,
                const int64_t* from, const int64_t* to) {
  for (int64_t layer = 0; layer < layers; ++layer)
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(values + (layer * slots + to[i]) * bytes,
                  values + (layer * slots + from[i]) * bytes, bytes);
}

}  // namespace

// `half` everywhere: whether numbers are bfloat16 rather than float32.
extern "C" {

int64_t bita_packed_bytes(bool half, int64_t inputs, int64_t outputs) {
  return half ? packed_bytes<Bfloat16>(inputs, outputs) : packed_bytes<Float32>(inputs, outputs);
}

int64_t bita_panel() { return kPanel; }

void bita_pack(bool half, const void* weight, int64_t inputs, int64_t outputs, void* packed) {
  if (half)
    pack<Bfloat16>((const uint16_t*)weight, inputs, outputs, (uint16_t*)packed);
  else
    pack<Float32>((const float*)weight, inputs, outputs, (float*)packed);
}

// wide: whether to give float32.
void bita_linear(bool half, bool wide, const Linear* linear, const void* x, int64_t rows,
                 void* out, int threads) {
  if (!half)
    linear_of<Float32, Float32>(*linear, x, rows, out, threads);
  else if (wide)
    linear_of<Bfloat16, Float32>(*linear, x, rows, out, threads);
  else
    linear_of<Bfloat16, Bfloat16>(*linear, x, rows, out, threads);
}

int64_t bita_workspace_bytes(bool half, const Trunk* trunk, const Step* step) {
  return half ? Workspace<Bfloat16>(*trunk, *step).bytes : Workspace<Float32>(*trunk, *step).bytes;
}

void bita_forward(bool half, const Trunk* trunk, const Step* step) {
  if (half)
    Forward<Bfloat16>(*trunk, *step).run();
  else
    Forward<Float32>(*trunk, *step).run();
}

// Copies a step's keys and values from slots of the step buffer to slots of the cache.
void bita_commit(bool half, const Trunk* trunk, int64_t count, const int64_t* from,
                 const int64_t* to) {
  int64_t bytes = trunk->kv_heads * trunk->head_dim * (half ? 2 : 4);
  for (void* values : {trunk->keys, trunk->values})
    copy_slots((char*)values, trunk->num_layers, trunk->num_slots, bytes, count, from, to);
}

int64_t bita_level_bytes(bool half, const DraftHead* head, const Level* level) {
  return half ? Ranking<Bfloat16>(*head, *level).bytes : Ranking<Float32>(*head, *level).bytes;
}

void bita_rank(bool half, const DraftHead* head, const Level* level) {
  if (half)
    Ranking<Bfloat16>(*head, *level).run();
  else
    Ranking<Float32>(*head, *level).run();
}

// noise: [keys, count], of `tokens` from the states in `starts`.
void bita_noise(int64_t keys, const uint64_t* starts, int64_t count, const int64_t* tokens,
                float* noise, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t key = 0; key < keys; ++key)
    draw_all(starts[key], tokens, count, noise + key * count);
}

// A token for every row of logits, [rows, vocab]; `sampled` says which rows have noise.
void bita_choose(int64_t rows, int64_t vocab, const float* logits, const bool* sampled,
                 const uint64_t* starts, int64_t* tokens, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t row = 0; row < rows; ++row)
    tokens[row] = choose(logits + row * vocab, vocab, sampled[row], starts[row]);
}
}
