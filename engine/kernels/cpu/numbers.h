// Vectors of float32, and the two dtypes that weights, activations and KV are stored in.
#pragma once

#include <cstdint>
#include <cstring>

#include <immintrin.h>

#ifdef __AVX512F__
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Bits __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));

template <class To, class From>
inline To as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <class V, class P>
inline V load(const P* from) {
  V to;
  std::memcpy(&to, from, sizeof(to));
  return to;
}

template <class P, class V>
inline void store(P* to, V from) {
  std::memcpy(to, &from, sizeof(from));
}

inline Vec splat(float x) { return x - Vec{}; }

// a * b + sum, rounded once. Said here and not left to the compiler, which fuses some and not others,
// another choice for every number of rows: a row's bits would depend on the rows beside it.
inline Vec fused(Vec a, Vec b, Vec sum) {
#ifdef __AVX512F__
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#else
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#endif
}

// Products read activations and weights in units of 32 bits, which hold kPack neighbours along the
// dimension that is summed over.

struct Float32 {
  using Stored = float;
  static constexpr int kPack = 1;

  static Vec mac(Vec sum, uint32_t unit, Bits weights) {
    return fused(splat(as<float>(unit)), as<Vec>(weights), sum);
  }
  static Vec widen(const Stored* from) { return load<Vec>(from); }
  static float widen(Stored x) { return x; }
  static Stored narrow(float x) { return x; }
  static void narrow(Stored* to, Vec x) { store(to, x); }
};

struct Bfloat16 {
  using Stored = uint16_t;
  static constexpr int kPack = 2;

  static Vec mac(Vec sum, uint32_t unit, Bits weights) {
#ifdef __AVX512BF16__
    return (Vec)_mm512_dpbf16_ps(
        (__m512)sum, (__m512bh)_mm512_set1_epi32((int)unit), (__m512bh)weights);
#else
    sum = fused(splat(as<float>(unit << 16)), as<Vec>(weights << 16), sum);
    return fused(splat(as<float>(unit & 0xffff0000u)), as<Vec>(weights & 0xffff0000u), sum);
#endif
  }
  static Vec widen(const Stored* from) {
    return as<Vec>(__builtin_convertvector(load<Halves>(from), Bits) << 16);
  }
  static float widen(Stored x) { return as<float>((uint32_t)x << 16); }
  // To the nearest, ties to even. What is no number stays none: the engine looks for it.
  static Stored narrow(float x) {
    uint32_t bits = as<uint32_t>(x);
    if (x != x) return (Stored)(bits >> 16 | 0x40);
    return (Stored)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
  static void narrow(Stored* to, Vec x) {
#ifdef __AVX512BF16__
    store(to, _mm512_cvtneps_pbh((__m512)x));
#else
    Bits bits = as<Bits>(x);
    Bits near = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    Bits none = bits >> 16 | 0x40;
    store(to, __builtin_convertvector(x == x ? near : none, Halves));
#endif
  }
};

// e to the x, x <= 88, to about 2 units in the last place; 0 below -87. Cephes' polynomial.
inline Vec exponential(Vec x) {
  const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  Vec shifted = fused(x, splat(1.44269504f), magic);
  Vec whole = shifted - magic;
  Vec rest = fused(whole, splat(2.12194440e-4f), fused(whole, splat(-0.693359375f), x));
  Vec sum = splat(1.9875691500e-4f);
  for (float next : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f,
                     5.0000001201e-1f})
    sum = fused(sum, rest, splat(next));
  sum = fused(sum, rest * rest, rest) + 1.0f;
  Ints power = (as<Ints>(shifted) - as<Ints>(magic)) << 23;
  Vec scaled = as<Vec>(as<Ints>(sum) + power);
  return x < -87.0f ? Vec{} : scaled;
}

inline Vec silu(Vec x) {
  Vec opposite = -x < 88.0f ? -x : splat(88.0f);
  return x / (exponential(opposite) + 1.0f);
}
