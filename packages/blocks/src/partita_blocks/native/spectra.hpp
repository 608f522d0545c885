// Spectra in the losses: windowed frames of audio and their transpose, and comparisons of complex spectra.

#pragma once

#include <cmath>

#include "vectors.hpp"

#ifdef __AVX512F__
static V root(V x) { return _mm512_sqrt_ps(x); }
static V sign(V x, V y) {  // of x - y
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_GT_OQ),
                                _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), fill(0), fill(-1)), fill(1));
}
// Real and imaginary parts of WIDTH complex numbers, and back.
static void split(const float* p, V& real, V& imaginary) {
    const Integers even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    const V low = load(p), high = load(p + WIDTH);
    real = _mm512_permutex2var_ps(low, (__m512i)even, high);
    imaginary = _mm512_permutex2var_ps(low, (__m512i)(even + 1), high);
}
static void join(float* p, V real, V imaginary) {
    const Integers first = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    store(p, _mm512_permutex2var_ps(real, (__m512i)first, imaginary));
    store(p + WIDTH, _mm512_permutex2var_ps(real, (__m512i)(first + 8), imaginary));
}
#else
static V root(V x) { return _mm256_sqrt_ps(x); }
static V sign(V x, V y) {
    return _mm256_or_ps(_mm256_and_ps(_mm256_cmp_ps(x, y, _CMP_GT_OQ), fill(1)),
                        _mm256_and_ps(_mm256_cmp_ps(x, y, _CMP_LT_OQ), fill(-1)));
}
static V ordered(V x) { return (V)_mm256_permute4x64_pd((__m256d)x, 0xD8); }
static void split(const float* p, V& real, V& imaginary) {
    const V low = load(p), high = load(p + WIDTH);
    real = ordered(_mm256_shuffle_ps(low, high, 0x88)), imaginary = ordered(_mm256_shuffle_ps(low, high, 0xDD));
}
static void join(float* p, V real, V imaginary) {
    const V low = _mm256_unpacklo_ps(real, imaginary), high = _mm256_unpackhi_ps(real, imaginary);
    store(p, _mm256_permute2f128_ps(low, high, 0x20)), store(p + WIDTH, _mm256_permute2f128_ps(low, high, 0x31));
}
#endif

// Natural logarithm of positive normal numbers, to about 1e-7: 2 artanh((m - 1) / (m + 1)) of the mantissa m in
// [0.7, 1.4), plus the exponent.
static V logarithm(V x) {
    const Integers bits = (Integers)x, exponent = (bits - 0x3f3504f3) >> 23;
    const V mantissa = (V)(bits - (exponent << 23));
    const V s = (mantissa - fill(1)) / (mantissa + fill(1)), u = s * s;
    const V series = fill(1) + u * (fill(1 / 3.0f) + u * (fill(0.2f) + u * (fill(1 / 7.0f) + u * fill(1 / 9.0f))));
    return __builtin_convertvector(exponent, V) * fill(0.69314718f) + fill(2) * s * series;
}

// ---------------------------------------------------------------- frames

// Position of sample `at` of a signal that is reflected at both ends, without repeating the samples there.
static long reflected(long at, long samples) {
    const long period = std::max<long>(2 * samples - 2, 1);
    at = (at % period + period) % period;
    return std::min(at, period - at);
}

// frames[row][count][size]: windows of audio[row][samples], `hop` apart, the first beginning at -left.
static void make_frames(const float* audio, const float* window, float* frames, long rows, long samples, long count,
                        long size, long hop, long left, int threads) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (long row = 0; row < rows; ++row)
        for (long frame = 0; frame < count; ++frame) {
            const float* const from = audio + row * samples;
            float* const to = frames + (row * count + frame) * size;
            const long first = frame * hop - left;
            const long begin = std::clamp<long>(-first, 0, size), end = std::clamp<long>(samples - first, begin, size);
            for (long i = 0; i < begin; ++i) to[i] = from[reflected(first + i, samples)] * window[i];
            for (long i = begin; i < end; ++i) to[i] = from[first + i] * window[i];
            for (long i = end; i < size; ++i) to[i] = from[reflected(first + i, samples)] * window[i];
        }
}

// The transpose, times 1/2, of frames to which `ends` adds a constant and an alternating number each, (row, count, 2).
static void add_frames(const float* frames, const float* ends, const float* window, float* audio, long rows,
                       long samples, long count, long size, long hop, long left, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long row = 0; row < rows; ++row) {
        float* const to = audio + row * samples;
        std::fill(to, to + samples, 0.0f);
        for (long frame = 0; frame < count; ++frame) {
            const float* const from = frames + (row * count + frame) * size;
            const float *const end_of = ends + (row * count + frame) * 2, even = end_of[0] + end_of[1],
                               odd = end_of[0] - end_of[1];
            const long first = frame * hop - left;
            const long begin = std::clamp<long>(-first, 0, size), end = std::clamp<long>(samples - first, begin, size);
            const auto value = [=](long i) { return 0.5f * window[i] * (from[i] + (i % 2 ? odd : even)); };
            for (long i = 0; i < begin; ++i) to[reflected(first + i, samples)] += value(i);
            for (long i = begin; i < end; ++i) to[first + i] += value(i);
            for (long i = end; i < size; ++i) to[reflected(first + i, samples)] += value(i);
        }
    }
}

// ---------------------------------------------------------------- comparisons

constexpr float TINY_POWER = 1e-28f;  // TINY of spectral.py

// |z| of complex numbers, with the tiny constant.
static void take_magnitudes(const float* z, float* magnitudes, long count) {
    long i = 0;
    for (; i + WIDTH <= count; i += WIDTH) {
        V real, imaginary;
        split(z + 2 * i, real, imaginary);
        store(magnitudes + i, root(real * real + imaginary * imaginary + fill(TINY_POWER)));
    }
    for (; i < count; ++i) magnitudes[i] = std::sqrt(z[2 * i] * z[2 * i] + z[2 * i + 1] * z[2 * i + 1] + TINY_POWER);
}

// z * slope / magnitude.
static void scale_spectrum(const float* z, const float* slope, const float* magnitudes, float* out, long count) {
    long i = 0;
    for (; i + WIDTH <= count; i += WIDTH) {
        V real, imaginary;
        split(z + 2 * i, real, imaginary);
        const V factor = load(slope + i) / load(magnitudes + i);
        join(out + 2 * i, real * factor, imaginary * factor);
    }
    for (; i < count; ++i) {
        const float factor = slope[i] / magnitudes[i];
        out[2 * i] = z[2 * i] * factor, out[2 * i + 1] = z[2 * i + 1] * factor;
    }
}

// Views of one (VIEWS 1) or two channels: mid, side, left and right; with the powers of WIDTH bins of each.
template <int VIEWS>
struct Views {
    static constexpr int CHANNELS = VIEWS == 1 ? 1 : 2;
    V real[CHANNELS], imaginary[CHANNELS];

    Views(const float* z, long plane) {
        for (int c = 0; c < CHANNELS; ++c) split(z + 2 * plane * c, real[c], imaginary[c]);
    }
    static V power(V real, V imaginary) { return real * real + imaginary * imaginary + fill(TINY_POWER); }
    void powers(V* out) const {
        out[0] = power(real[0], imaginary[0]);
        if constexpr (VIEWS == 4) {
            out[1] = power(real[1], imaginary[1]);
            out[2] = power(real[0] + real[1], imaginary[0] + imaginary[1]);
            out[3] = power(real[0] - real[1], imaginary[0] - imaginary[1]);
        }
    }
    // Gradient with respect to the channels, if that with respect to each view is `slope` times the view.
    void adjoint(const V* slope, float* z, long plane) const {
        if constexpr (VIEWS == 1) {
            join(z, slope[0] * real[0], slope[0] * imaginary[0]);
        } else {
            const V common = slope[2] + slope[3], crossed = slope[2] - slope[3];
            const V mid = slope[0] + common, side = slope[1] + common;
            join(z, mid * real[0] + crossed * real[1], mid * imaginary[0] + crossed * imaginary[1]);
            join(z + 2 * plane, side * real[1] + crossed * real[0], side * imaginary[1] + crossed * imaginary[0]);
        }
    }
};

// Calls step(offset of WIDTH bins in a plane, gains of the views there, number of valid bins) for all bins of frames.
// A last incomplete vector overlaps the one before; for fewer than WIDTH bins there is no kernel.
template <class Step>
static void each_vector(long frames, long bins, Step step) {
    for (long frame = 0; frame < frames; ++frame)
        for (long bin = 0; bin < bins; bin += WIDTH) {
            const long at = std::min(bin, bins - WIDTH);
            step(frame * bins + at, at, bin - at);
        }
}

// sums[view][3]: totals of (sqrt(p / t) - 1)^2 t, of t, and of |log(p / t)| with both clamped at `floor`.
template <int VIEWS>
static void view_sums(const float* prediction, const float* target, const float* gains, float floor, long frames,
                      long bins, double* sums) {
    const long plane = frames * bins;
    std::fill(sums, sums + 3 * VIEWS, 0.0);
    for (long frame = 0; frame < frames; ++frame) {
        V total_of[VIEWS][3];
        for (auto& view : total_of)
            for (V& sum : view) sum = fill(0);
        each_vector(1, bins, [&](long, long bin, long repeated) {
            const long at = frame * bins + bin;
            V p[VIEWS], t[VIEWS];
            Views<VIEWS>(prediction + 2 * at, plane).powers(p);
            Views<VIEWS>(target + 2 * at, plane).powers(t);
            // Bins that the vector before has counted do not count again.
            float valid[WIDTH];
            for (int i = 0; i < WIDTH; ++i) valid[i] = i >= repeated;
            const V mask = load(valid);
            for (int v = 0; v < VIEWS; ++v) {
                const V gain = load(gains + v * bins + bin);
                const V tp = t[v] * gain + fill(TINY_POWER), pp = p[v] * gain + fill(TINY_POWER);
                const V excess = root(pp / tp) - fill(1);
                const V ratio = logarithm(larger(pp, fill(floor)) / larger(tp, fill(floor)));
                total_of[v][0] += mask * excess * excess * tp;
                total_of[v][1] += mask * tp;
                total_of[v][2] += mask * larger(ratio, -ratio);
            }
        });
        for (int v = 0; v < VIEWS; ++v)
            for (int k = 0; k < 3; ++k) sums[3 * v + k] += total(total_of[v][k]);
    }
}

// Gradient: of each view, with respect to its power, factors[v][0] sign(log(p / t)) / p + factors[v][1] (1 - sqrt(t / p)).
template <int VIEWS>
static void view_slopes(const float* prediction, const float* target, const float* gains, float floor, long frames,
                        long bins, const float* factors, float* gradient) {
    const long plane = frames * bins;
    each_vector(frames, bins, [&](long at, long bin, long) {
        const Views<VIEWS> views(prediction + 2 * at, plane);
        V p[VIEWS], t[VIEWS], slope[VIEWS];
        views.powers(p);
        Views<VIEWS>(target + 2 * at, plane).powers(t);
        for (int v = 0; v < VIEWS; ++v) {
            const V gain = load(gains + v * bins + bin);
            const V tp = t[v] * gain + fill(TINY_POWER), pp = p[v] * gain + fill(TINY_POWER);
            const V clamped = larger(pp, fill(floor));
            slope[v] = sign(clamped, larger(tp, fill(floor))) / clamped * fill(factors[2 * v]);
            slope[v] += (fill(1) - root(tp / pp)) * fill(factors[2 * v + 1]);
            slope[v] *= gain;
        }
        views.adjoint(slope, gradient + 2 * at, plane);
    });
}
