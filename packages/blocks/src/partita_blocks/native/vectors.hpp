// One SIMD vector of floats, in AVX-512 or AVX2: loads, stores, masks, multiply-add.

#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include <algorithm>
#include <vector>

constexpr long LANE = 16;  // channels are padded to a multiple of this

#ifdef __AVX512F__
using V = __m512;
constexpr int WIDTH = 16, ROWS = 14;  // 28 of the 32 registers hold sums
static V load(const void* p) { return _mm512_loadu_ps(p); }
static void store(float* p, V x) { _mm512_storeu_ps(p, x); }
static V fill(float x) { return _mm512_set1_ps(x); }
static V nearest(V x) { return _mm512_roundscale_ps(x, 0); }
static V larger(V x, V y) { return _mm512_max_ps(x, y); }  // y if one is NaN
static V smaller(V x, V y) { return _mm512_min_ps(x, y); }
using Mask = __mmask16;
static Mask first(long count) { return (1 << std::min<long>(count, WIDTH)) - 1; }
static V load(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }  // zeros elsewhere
static void store(float* p, V x, Mask m) { _mm512_mask_storeu_ps(p, m, x); }
#else
using V = __m256;
constexpr int WIDTH = 8, ROWS = 6;  // 12 of the 16 registers hold sums
static V load(const void* p) { return _mm256_loadu_ps((const float*)p); }
static void store(float* p, V x) { _mm256_storeu_ps(p, x); }
static V fill(float x) { return _mm256_set1_ps(x); }
static V nearest(V x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static V larger(V x, V y) { return _mm256_max_ps(x, y); }  // y if one is NaN
static V smaller(V x, V y) { return _mm256_min_ps(x, y); }
using Mask = __m256i;
static Mask first(long count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(std::min<long>(count, WIDTH)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static V load(const float* p, Mask m) { return _mm256_maskload_ps(p, m); }  // zeros elsewhere
static void store(float* p, V x, Mask m) { _mm256_maskstore_ps(p, m, x); }
#endif

typedef int Integers __attribute__((vector_size(sizeof(V))));

// Calls `step` for each vector of `count` elements. Only an incomplete last vector is masked, since masked stores of AVX2
// take tens of cycles on some processors.
struct All {};
static V load(const float* p, All) { return load(p); }
static void store(float* p, V x, All) { store(p, x); }

template <class Step>
static void each(long count, Step step) {
    const long complete = count - count % WIDTH;
    for (long i = 0; i < complete; i += WIDTH) step(i, All{});
    if (complete < count) step(complete, first(count - complete));
}

static float total(V x) {
    float all[WIDTH];
    store(all, x);
    for (int n = WIDTH / 2; n > 0; n /= 2)
        for (int i = 0; i < n; ++i) all[i] += all[i + n];
    return all[0];
}

// Memory of the calling thread, kept between calls: fresh pages cost more than the computation in them.
static float* scratch(long floats) {
    static thread_local std::vector<float> memory;
    if ((long)memory.size() < floats + LANE) memory.resize(floats + LANE);
    return (float*)(((uintptr_t)memory.data() + 63) / 64 * 64);
}

// One step along the summed axis: `word` is one float, or in bf16 two neighbors whose products are summed at once.
static V multiply_add(V sum, const float* word, V weights) { return sum + fill(*word) * weights; }

#ifdef __AVX512BF16__
struct bf16 {
    uint16_t bits;
};
static void store(bf16* p, V x) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(x)); }
static V multiply_add(V sum, const bf16* word, V weights) {
    return _mm512_dpbf16_ps(sum, (__m512bh)fill(*(const float __attribute__((may_alias))*)word), (__m512bh)weights);
}
#endif

template <class T>
constexpr long WORD = sizeof(float) / sizeof(T);
