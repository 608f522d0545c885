// Kernels compiled by `build.py`: SnakeLite and its gradients on planar tensors, called by `_snake_lite_cpu.py`; and for
// inference the stem and stages of early-downsampling separable encoders, called by `_packed.py`, which mirrors the
// structures defined here.
//
// In the latter, activations are channels-last, (batch, time, channels), with channels padded with zeros to a multiple
// of LANE. The values between two convolutions are in a tile of time that one thread processes from input to output, so
// that they stay in the cache; frames around a tile that a dilated convolution depends on are computed by both neighbors.
//
// The order of a sum depends on neither tiles nor threads: any batch, length and number of threads give the same bits.

#include <algorithm>

#include "convolution.hpp"
#include "matrix.hpp"
#include "pointwise.hpp"
#include "snake_lite.hpp"
#include "spectra.hpp"

// ---------------------------------------------------------------- between the products

struct Snake {
    const float *scale, *inverse;  // beta / pi and 1 / beta
};

// SnakeLite of one frame, converted to the type of the next product.
template <class T>
static void snake(const Snake& s, const float* x, T* y, long channels) {
    for (long i = 0; i < channels; i += WIDTH) {
        const V value = load(x + i), f = wrap(value * load(s.scale + i));
        store(y + i, value + sine_squared(f * f) * load(s.inverse + i));
    }
}

constexpr int TAPS = 7;  // kernel size of the depthwise convolution and of the stem

// Depthwise convolution; x begins with the first frame that the first output depends on.
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

// Frames per tile: at most `max_frames`, fewer if that occupies more threads, and a multiple of ROWS.
static long tile_of(long max_frames, long frames, long batch, long threads) {
    const long share = (frames * batch + threads - 1) / threads;
    return (std::clamp<long>(share, 1, max_frames) + ROWS - 1) / ROWS * ROWS;
}

// Offset between rows of T: at a multiple of 4 KiB, all rows of a product would map to one set of the L1 cache.
template <class T>
constexpr long SKEW = LANE * WORD<T>;

// ---------------------------------------------------------------- the two fused layers

struct Down {  // SnakeLite, then a convolution of kernel 2 * stride; in the first stage after the stem
    long stride, in, out, audio;  // audio: input channels of the stem, 0 without a stem
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

// Stem output of `rows` frames from `begin` on, for planar audio x (audio, length) padded with zeros.
static void stem(const Down& d, const float* x, long length, long begin, long rows, float* gathered, float* y) {
    for (long i = 0; i < rows + TAPS - 1; ++i) {
        const long at = begin + i - TAPS / 2;
        for (long c = 0; c < d.audio; ++c) gathered[i * d.audio + c] = 0 <= at && at < length ? x[c * length + at] : 0;
    }
    product(gathered, d.audio, d.stem.weight, {d.stem.bias, nullptr, 0}, y, d.in, rows, d.in, TAPS * d.audio);
}

template <class T>
static void run_down(const Down& d, const float* x, float* y, long batch, long frames, int threads) {
    constexpr long block = 4 * ROWS;  // frames of the stem per call, which stay in the L1 cache
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

// ---------------------------------------------------------------- functions called from Python

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

// grad and by_x: like x. by_beta: (channels). Blocks are added up in a fixed order, whatever the threads.
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

// Activations of `count` elements: 0 is ELU, whose gradient takes its output, and 1 is SiLU, whose gradient its input.
void partita_activate(const float* x, float* y, long count, long kind, int threads) {
    (kind ? activate<Silu> : activate<Elu>)(x, y, count, threads);
}

void partita_activate_backward(const float* at, const float* grad, float* by_x, long count, long kind, int threads) {
    (kind ? activate_backward<Silu> : activate_backward<Elu>)(at, grad, by_x, count, threads);
}

// Tensors are channels-last, (batch, points, channels); see `pointwise.hpp`.
void partita_group_norm(const float* x, const float* gains, float* y, float* statistics, long batch, long points,
                        long channels, long groups, float epsilon, int threads) {
    group_norm({batch, points, channels, groups, epsilon}, x, gains, y, statistics, threads);
}

void partita_group_norm_backward(const float* x, const float* gains, const float* statistics, const float* grad,
                                 float* by_x, float* by_gains, long batch, long points, long channels, long groups,
                                 float epsilon, int threads) {
    group_norm_backward({batch, points, channels, groups, epsilon}, x, gains, statistics, grad, by_x, by_gains,
                        threads);
}

// Convolution of planar tensors, its transpose and the gradient of its weights; see `convolution.hpp`.
void partita_convolve(const Convolution* c, const float* x, const float* w, const float* bias, float* y, int threads) {
    convolve(*c, x, w, bias, y, threads);
}

void partita_convolve_transposed(const Convolution* c, const float* y, const float* w, const float* bias, float* x,
                                 int threads) {
    convolve_transposed(*c, y, w, bias, x, threads);
}

void partita_convolve_weights(const Convolution* c, const float* x, const float* y, float* by_w, int threads) {
    convolve_weights(*c, x, y, by_w, threads);
}

// Frames of audio, (rows, samples), for spectra, and the transpose; see `spectra.hpp`.
void partita_frames(const float* audio, const float* window, float* frames, long rows, long samples, long count,
                    long size, long hop, long left, int threads) {
    make_frames(audio, window, frames, rows, samples, count, size, hop, left, threads);
}

void partita_add_frames(const float* frames, const float* ends, const float* window, float* audio, long rows,
                        long samples, long count, long size, long hop, long left, int threads) {
    add_frames(frames, ends, window, audio, rows, samples, count, size, hop, left, threads);
}

void partita_magnitudes(const float* z, float* magnitudes, long count) { take_magnitudes(z, magnitudes, count); }

void partita_scale_spectrum(const float* z, const float* slope, const float* magnitudes, float* out, long count) {
    scale_spectrum(z, slope, magnitudes, out, count);
}

// prediction, target and gradient: complex (channels, frames, bins); gains: (views, bins), 1 view or 4; floor: of powers.
void partita_view_sums(const float* prediction, const float* target, const float* gains, double* sums, long views,
                       long frames, long bins, float floor) {
    (views == 1 ? view_sums<1> : view_sums<4>)(prediction, target, gains, floor, frames, bins, sums);
}

void partita_view_slopes(const float* prediction, const float* target, const float* gains, const float* factors,
                         float* gradient, long views, long frames, long bins, float floor) {
    (views == 1 ? view_slopes<1> : view_slopes<4>)(prediction, target, gains, floor, frames, bins, factors, gradient);
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
