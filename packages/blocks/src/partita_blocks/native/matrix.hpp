// Matrix products of packed weights with operands T, float or bf16, summed in float.

#pragma once

#include <utility>

#include "vectors.hpp"

constexpr long PANEL = 2 * WIDTH;  // columns of a matrix that are packed and processed together
static_assert(LANE % WIDTH == 0 && PANEL % LANE == 0);  // a panel has two vectors, the last panel may have one

// c[M][N * WIDTH] = x + bias + a[M][k] b, b packed as k / WORD rows of N vectors.
template <class T, int M, int N>
static void micro(const T* a, long lda, const T* b, const float* bias, const float* x, long ldx, float* c, long ldc,
                  long k) {
    V sum[M][N];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) sum[m][n] = load(x + m * ldx + n * WIDTH) + load(bias + n * WIDTH);
    for (const T* end = a + k; a < end; a += WORD<T>, b += N * WIDTH * WORD<T>) {
        V weights[N];
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) weights[n] = load(b + n * WIDTH * WORD<T>);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
            for (int n = 0; n < N; ++n) sum[m][n] = multiply_add(sum[m][n], a + m * lda, weights[n]);
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) store(c + m * ldc + n * WIDTH, sum[m][n]);
}

template <class T>
using Micro = void (*)(const T*, long, const T*, const float*, const float*, long, float*, long, long);

template <class T, int N, size_t... M>
static Micro<T> micro_of(long rows, std::index_sequence<M...>) {
    static constexpr Micro<T> all[] = {micro<T, M + 1, N>...};
    return all[rows - 1];
}

struct Matrix {
    const void* weight;  // packed: consecutive panels of columns
    const float* bias;
};

// Initial value of a product: rows that are ld apart, plus the bias. Either may be null.
struct Start {
    const float *bias, *rows;
    long ld;
};

// c[rows][columns] = start + a[rows][k] b. Rows of a may overlap, which makes a convolution a matrix product.
template <class T>
static void product(const T* a, long lda, const void* b, Start start, float* c, long ldc, long rows, long columns,
                    long k) {
    constexpr long depth = 512 * WORD<T>;  // keeps the rows of a in the L2 cache between panels
    constexpr std::make_index_sequence<ROWS> heights;
    static const float zeros[PANEL] = {};
    for (long k0 = 0; k0 < k; k0 += depth) {
        for (long n = 0; n < columns; n += PANEL) {
            const long width = std::min(PANEL, columns - n), part = std::min(depth, k - k0);
            const T* const panel = (const T*)b + n * k + k0 * width;
            const float* const bias = start.bias ? start.bias + n : zeros;
            for (long m = 0; m < rows; m += ROWS) {
                const long height = std::min<long>(ROWS, rows - m);
                const float* const x = start.rows ? start.rows + m * start.ld + n : zeros;
                const Micro<T> run = width == PANEL ? micro_of<T, 2>(height, heights) : micro_of<T, 1>(height, heights);
                run(a + m * lda + k0, lda, panel, bias, x, start.rows ? start.ld : 0, c + m * ldc + n, ldc, part);
            }
        }
        start = {nullptr, c, ldc};
    }
}
