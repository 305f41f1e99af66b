// Noise that belongs to a position (engine/sampling/sampler.py), and the token chosen with it.
#pragma once

#include <cmath>

#include "numbers.h"

constexpr int kWords = kLanes / 2;
typedef uint64_t Words __attribute__((vector_size(kWords * 8)));
typedef double Doubles __attribute__((vector_size(kWords * 8)));
typedef float Floats __attribute__((vector_size(kWords * 4)));

inline Doubles fused(Doubles a, Doubles b, Doubles sum) {
#ifdef __AVX512F__
  return (Doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)sum);
#else
  return (Doubles)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)sum);
#endif
}

// Natural logarithm of positive normal numbers, to about a unit in the last place: from x = m * 2^e
// with m around 1, e * log(2) + 2 * atanh((m - 1) / (m + 1)).
inline Doubles logarithm(Doubles x) {
  const uint64_t root_half = 0x3fe6a09e667f3bcd;  // sqrt(1/2)
  Words bits = as<Words>(x) - root_half;
  // e as a double, by way of the mantissa of 2^52 + 2^51, whose units are ones.
  Words exponent = (bits >> 52) + ((bits >> 63) * 0xfffffffffffff000u) + 0x4338000000000000u;
  Doubles e = as<Doubles>(exponent) - 6755399441055744.0;
  Doubles m = as<Doubles>((bits & 0xfffffffffffffu) + root_half);
  Doubles s = (m - 1.0) / (m + 1.0), square = s * s, sum = 1.0 / 21 - Doubles{};
  for (int odd = 19; odd > 0; odd -= 2) sum = fused(sum, square, 1.0 / odd - Doubles{});
  return fused(e, 0.693147180559945309417 - Doubles{}, 2.0 * s * sum);
}

// Gumbel noise of tokens, from the state for token 0: SplitMix64 (Steele, Lea, Flood 2014, fig. 17),
// whose increment is added once more for every token.
inline Floats draw(uint64_t start, Words tokens) {
  Words word = start + 0x9e3779b97f4a7c15u * tokens;
  word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9u;
  word = (word ^ word >> 27) * 0x94d049bb133111ebu;
  word ^= word >> 31;
  // 52 bits and a half: never 0 or 1, so that the noise is finite whatever is drawn.
  Doubles uniform = as<Doubles>(word >> 12 | 0x3ff0000000000000u) - 1.0 + 0x1p-53;
  return __builtin_convertvector(-logarithm(-logarithm(uniform)), Floats);
}

inline void draw_all(uint64_t start, const int64_t* tokens, int64_t count, float* noise) {
  for (int64_t i = 0; i < count; i += kWords) {
    int64_t left = count - i < kWords ? count - i : kWords;
    Words some = {};
    std::memcpy(&some, tokens + i, left * 8);
    Floats drawn = draw(start, some);
    std::memcpy(noise + i, &drawn, left * 4);
  }
}

// The token of a row's largest logit, noise added where it is `sampled`; of equals the first.
inline int64_t choose(const float* logits, int64_t vocab, bool sampled, uint64_t start) {
  constexpr int64_t kPiece = 512;
  float noise[kPiece] = {}, most = -INFINITY;
  int64_t best = 0;
  for (int64_t first = 0; first < vocab; first += kPiece) {
    int64_t count = vocab - first < kPiece ? vocab - first : kPiece;
    if (sampled)
      for (int64_t i = 0; i < count; i += kWords) {
        Words tokens;
        for (int lane = 0; lane < kWords; ++lane) tokens[lane] = first + i + lane;
        store(noise + i, draw(start, tokens));
      }
    for (int64_t i = 0; i < count; ++i) {
      float value = logits[first + i] + noise[i];
      if (value > most) most = value, best = first + i;
    }
  }
  return best;
}
