// Kernels built by `build.py`: SnakeLite and its gradients, planar, called by `_snake_lite_cpu.py`; for inference, stem
// and stages of early-downsampling separable encoders, called by `_packed.py`, whose structures are those here.
//
// In the latter, activations are channels-last, (batch, time, channels), channels padded with zeros to a multiple of LANE. What is
// between two convolutions lives in a tile of time that one thread takes from input to output, so that it stays in the
// cache; the frames around a tile that a dilated convolution sees are computed again by the neighbour.
//
// Matrix products take operands T, float or bf16, and sum in float. The order of a sum depends on neither tiles nor
// threads: any batch, length and number of threads give the same bits.

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

// ---------------------------------------------------------------- one vector

constexpr long LANE = 16;  // channels are padded to a multiple of it

#ifdef __AVX512F__
using V = __m512;
constexpr int WIDTH = 16, ROWS = 14;  // of the 32 registers, 28 hold sums
static V load(const void* p) { return _mm512_loadu_ps(p); }
static void store(float* p, V x) { _mm512_storeu_ps(p, x); }
static V fill(float x) { return _mm512_set1_ps(x); }
static V nearest(V x) { return _mm512_roundscale_ps(x, 0); }
using Mask = __mmask16;
static Mask first(long count) { return (1 << std::min<long>(count, WIDTH)) - 1; }
static V load(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }  // zeros elsewhere
static void store(float* p, V x, Mask m) { _mm512_mask_storeu_ps(p, m, x); }
#else
using V = __m256;
constexpr int WIDTH = 8, ROWS = 6;  // of the 16 registers, 12 hold sums
static V load(const void* p) { return _mm256_loadu_ps((const float*)p); }
static void store(float* p, V x) { _mm256_storeu_ps(p, x); }
static V fill(float x) { return _mm256_set1_ps(x); }
static V nearest(V x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
using Mask = __m256i;
static Mask first(long count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(std::min<long>(count, WIDTH)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static V load(const float* p, Mask m) { return _mm256_maskload_ps(p, m); }  // zeros elsewhere
static void store(float* p, V x, Mask m) { _mm256_maskstore_ps(p, m, x); }
#endif

// Steps through `count` elements by vectors; only the last one, if it is not whole, goes through a mask: masked stores of
// AVX2 take tens of cycles on some processors.
struct All {};
static V load(const float* p, All) { return load(p); }
static void store(float* p, V x, All) { store(p, x); }

template <class Step>
static void each(long count, Step step) {
    const long whole = count - count % WIDTH;
    for (long i = 0; i < whole; i += WIDTH) step(i, All{});
    if (whole < count) step(whole, first(count - whole));
}

constexpr long PANEL = 2 * WIDTH;  // columns of a matrix that are packed, and worked on, together
static_assert(LANE % WIDTH == 0 && PANEL % LANE == 0);  // a panel has two vectors, the last one may have one

// One step along the summed axis: `word` is one float, or with bf16 two neighbours whose products are summed at once.
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

// ---------------------------------------------------------------- matrix product

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
    const void* weight;  // packed: panels of columns, one behind the other
    const float* bias;
};

// What a product is added to: rows ld apart, and in each the bias. Either may be null.
struct Start {
    const float *bias, *rows;
    long ld;
};

// c[rows][columns] = start + a[rows][k] b. Rows of a may overlap: that is how a convolution is a product.
template <class T>
static void product(const T* a, long lda, const void* b, Start start, float* c, long ldc, long rows, long columns,
                    long k) {
    constexpr long depth = 512 * WORD<T>;  // so that the rows of a stay in the L2 cache from panel to panel
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

// ---------------------------------------------------------------- SnakeLite

// sin^2(pi f) = u (C1 + u (C2 + u (C3 + u C4))) with u = f^2, up to f^8.
constexpr double PI = 3.14159265358979324, PI2 = PI * PI;
constexpr double C1 = PI2, C2 = -PI2 * PI2 / 3, C3 = 2 * PI2 * PI2 * PI2 / 45, C4 = -PI2 * PI2 * PI2 * PI2 / 315;

static V polynomial(V u, double c1, double c2, double c3, double c4) {
    return fill(c1) + u * (fill(c2) + u * (fill(c3) + u * fill(c4)));
}
static V wrap(V turns) { return turns - nearest(turns); }
static V sine_squared(V u) { return u * polynomial(u, C1, C2, C3, C4); }

// Its derivative by pi f, without a factor f.
static V slope(V u) { return polynomial(u, 2 / PI * C1, 4 / PI * C2, 6 / PI * C3, 8 / PI * C4); }

constexpr float ONE_BY_PI = 1 / PI;
constexpr long BLOCK = 8192;  // elements of a row that a thread takes at a time, and that are summed in float

static void snake_lite(float beta, const float* x, float* y, long count) {
    const V scale = fill(beta * ONE_BY_PI), inverse = fill(1 / beta);
    each(count, [=](long i, auto there) {
        const V value = load(x + i, there), f = wrap(value * scale);
        store(y + i, value + sine_squared(f * f) * inverse, there);
    });
}

// The gradient by x; returns that by beta summed over the block, times beta.
static float snake_lite_backward(float beta, const float* x, const float* grad, float* by_x, long count) {
    const V scale = fill(beta * ONE_BY_PI), inverse = fill(1 / beta);
    V sum = fill(0);
    each(count, [=, &sum](long i, auto there) {
        const V value = load(x + i, there), g = load(grad + i, there);
        const V f = wrap(value * scale), u = f * f, change = f * slope(u);
        store(by_x + i, g + g * change, there);
        sum += g * (change * value - sine_squared(u) * inverse);
    });
    float all[WIDTH];
    store(all, sum);
    return std::accumulate(all, all + WIDTH, 0.0f);
}

// ---------------------------------------------------------------- what is between products

struct Snake {
    const float *scale, *inverse;  // beta / pi and 1 / beta
};

// SnakeLite of one frame, to the type that the next product takes.
template <class T>
static void snake(const Snake& s, const float* x, T* y, long channels) {
    for (long i = 0; i < channels; i += WIDTH) {
        const V value = load(x + i), f = wrap(value * load(s.scale + i));
        store(y + i, value + sine_squared(f * f) * load(s.inverse + i));
    }
}

constexpr int TAPS = 7;  // of the depthwise convolution, and of the stem

// Depthwise convolution; x begins with the first frame that the first output sees.
template <class T>
static void depthwise(const float* x, long ldx, const Matrix& taps, long dilation, T* y, long ldy, long rows,
                      long channels) {
    for (long i = 0; i < channels; i += WIDTH) {
        V weights[TAPS];
        for (int t = 0; t < TAPS; ++t) weights[t] = load((const float*)taps.weight + t * channels + i);
        const V offset = load(taps.bias + i);
        for (long m = 0; m < rows; ++m) {
            V sum = offset;
            for (int t = 0; t < TAPS; ++t) sum += weights[t] * load(x + (m + t * dilation) * ldx + i);
            store(y + m * ldy + i, sum);
        }
    }
}

// Memory of the calling thread that it keeps from call to call: fresh pages cost more than what is computed in them.
static float* scratch(long floats) {
    static thread_local std::vector<float> memory;
    if ((long)memory.size() < floats + LANE) memory.resize(floats + LANE);
    return (float*)(((uintptr_t)memory.data() + 63) / 64 * 64);
}

// Frames of a tile: at most `most`, fewer where there is work for more threads, a multiple of what a product takes.
static long tile_of(long most, long frames, long batch, long threads) {
    const long share = (frames * batch + threads - 1) / threads;
    return (std::clamp<long>(share, 1, most) + ROWS - 1) / ROWS * ROWS;
}

// Were rows of T a multiple of 4 KiB apart, all rows of a product would fall into one set of the L1 cache.
template <class T>
constexpr long SKEW = LANE * WORD<T>;

// ---------------------------------------------------------------- the two fused layers

struct Down {  // SnakeLite, convolution of kernel 2 stride; before the first, the stem
    long stride, in, out, audio;  // audio: channels of the audio that the stem takes, 0 where there is no stem
    Matrix stem;                  // always float
    Snake activation;
    Matrix convolution;  // the first half of the kernel, then the second, each (stride * in, out)
};

struct Unit {  // x + pointwise(SnakeLite(pointwise(depthwise(SnakeLite(x)))))
    long channels, dilation;
    Snake first;
    Matrix taps;  // always float, (TAPS, channels)
    Matrix pointwise;
    Snake second;
    Matrix last;
};

// Stem of `rows` frames of x, (audio, length) planar, from `begin` on; frames outside are zero-padded audio's.
static void stem(const Down& d, const float* x, long length, long begin, long rows, float* gathered, float* y) {
    for (long i = 0; i < rows + TAPS - 1; ++i) {
        const long at = begin + i - TAPS / 2;
        for (long c = 0; c < d.audio; ++c) gathered[i * d.audio + c] = 0 <= at && at < length ? x[c * length + at] : 0;
    }
    product(gathered, d.audio, d.stem.weight, {d.stem.bias, nullptr, 0}, y, d.in, rows, d.in, TAPS * d.audio);
}

template <class T>
static void run_down(const Down& d, const float* x, float* y, long batch, long frames, int threads) {
    constexpr long block = 4 * ROWS;  // frames of the stem at a time, which stay in the L1 cache
    const long length = frames * d.stride, half = d.stride * d.in, padding = (d.stride + 1) / 2;
    const long step = half + SKEW<T>, tile = tile_of(8 * ROWS, frames, batch, threads);
    const long gathered = (block + TAPS) * d.audio / LANE * LANE + LANE, stemmed = d.audio ? block * d.in : 0;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
    for (long item = 0; item < batch; ++item)
        for (long begin = 0; begin < frames; begin += tile) {
            const long rows = std::min(tile, frames - begin);
            float* const memory = scratch(gathered + stemmed + (tile + 1) * step / WORD<T>);
            float* const fresh = memory + gathered;
            T* const active = (T*)(fresh + stemmed);
            const float* const source = x + item * length * (d.audio ? d.audio : d.in);
            const long first = begin * d.stride - padding, count = (rows + 1) * d.stride;
            for (long i = 0; i < count; ++i) {
                if (d.audio && i % block == 0)
                    stem(d, source, length, first + i, std::min(block, count - i), memory, fresh);
                const long at = first + i;
                T* const target = active + i / d.stride * step + i % d.stride * d.in;
                if (at < 0 || at >= length)
                    std::fill((char*)target, (char*)(target + d.in), 0);
                else
                    snake(d.activation, d.audio ? fresh + i % block * d.in : source + at * d.in, target, d.in);
            }
            float* const result = y + (item * frames + begin) * d.out;
            const T* const weight = (const T*)d.convolution.weight;
            product(active, step, weight, {d.convolution.bias, nullptr, 0}, result, d.out, rows, d.out, half);
            product(active + step, step, weight + half * d.out, {nullptr, result, d.out}, result, d.out, rows, d.out,
                    half);
        }
}

template <class T>
static void run_unit(const Unit& u, const float* x, float* y, long batch, long frames, int threads) {
    constexpr long fill_cache = 28 * 1024;  // elements of a tile: three tiles of floats in 512 KiB of L2 cache
    const long n = u.channels, halo = TAPS / 2 * u.dilation, ld = n + SKEW<float>, ldt = n + SKEW<T>;
    const long tile = tile_of(std::max<long>(fill_cache / n, 2 * ROWS), frames, batch, threads);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
    for (long item = 0; item < batch; ++item)
        for (long begin = 0; begin < frames; begin += tile) {
            const long rows = std::min(tile, frames - begin);
            float* const wide = scratch((tile + 2 * halo) * ld + tile * ldt / WORD<T>);
            T* const operand = (T*)(wide + (tile + 2 * halo) * ld);
            const float* const source = x + item * frames * n;
            for (long i = 0; i < rows + 2 * halo; ++i) {
                const long at = begin - halo + i;
                if (at < 0 || at >= frames)
                    std::fill(wide + i * ld, wide + i * ld + n, 0.0f);
                else
                    snake(u.first, source + at * n, wide + i * ld, n);
            }
            depthwise(wide, ld, u.taps, u.dilation, operand, ldt, rows, n);
            product(operand, ldt, u.pointwise.weight, {u.pointwise.bias, nullptr, 0}, wide, ld, rows, n, n);
            for (long m = 0; m < rows; ++m) snake(u.second, wide + m * ld, operand + m * ldt, n);
            float* const result = y + (item * frames + begin) * n;
            product(operand, ldt, u.last.weight, {u.last.bias, source + begin * n, n}, result, n, rows, n, n);
        }
}

// ---------------------------------------------------------------- what Python calls

extern "C" {

long partita_panel() { return PANEL; }

long partita_has_bf16() {
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}

// x and y: (rows, length), rows = batch * channels; beta: (channels).
void partita_snake_lite(const float* x, const float* beta, float* y, long rows, long channels, long length,
                        int threads) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (long row = 0; row < rows; ++row)
        for (long begin = 0; begin < length; begin += BLOCK) {
            const long at = row * length + begin;
            snake_lite(beta[row % channels], x + at, y + at, std::min(BLOCK, length - begin));
        }
}

// grad and by_x: as x. by_beta: (channels); blocks are added up in one order, whichever thread had them.
void partita_snake_lite_backward(const float* x, const float* beta, const float* grad, float* by_x, float* by_beta,
                                 long rows, long channels, long length, int threads) {
    const long blocks = (length + BLOCK - 1) / BLOCK;
    std::vector<float> sums(rows * blocks);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (long row = 0; row < rows; ++row)
        for (long block = 0; block < blocks; ++block) {
            const long begin = block * BLOCK, at = row * length + begin;
            sums[row * blocks + block] = snake_lite_backward(beta[row % channels], x + at, grad + at, by_x + at,
                                                             std::min(BLOCK, length - begin));
        }
    std::vector<double> totals(channels);
    for (long row = 0; row < rows; ++row)
        for (long block = 0; block < blocks; ++block) totals[row % channels] += sums[row * blocks + block];
    for (long channel = 0; channel < channels; ++channel) by_beta[channel] = totals[channel] / beta[channel];
}

// x: (batch, audio, frames * stride) for a stem, else (batch, frames * stride, in); y: (batch, frames, out).
void partita_down(const Down* d, const float* x, float* y, long batch, long frames, int threads, int half) {
#ifdef __AVX512BF16__
    if (half) return run_down<bf16>(*d, x, y, batch, frames, threads);
#endif
    run_down<float>(*d, x, y, batch, frames, threads);
}

// x and y: (batch, frames, channels), not the same memory.
void partita_unit(const Unit* u, const float* x, float* y, long batch, long frames, int threads, int half) {
#ifdef __AVX512BF16__
    if (half) return run_unit<bf16>(*u, x, y, batch, frames, threads);
#endif
    run_unit<float>(*u, x, y, batch, frames, threads);
}
}
