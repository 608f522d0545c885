// Activations and group norm with their gradients, for training.

#pragma once

#include <cmath>
#include <vector>

#include "vectors.hpp"

static V exponential(V x) {  // to about 1e-7, of numbers up to 88 in size; larger ones are clamped
    x = larger(fill(-87), smaller(fill(88), x));  // in this order, NaN stays NaN
    const V n = nearest(x * fill(1.44269504f)), r = x - n * fill(0.693359375f) - n * fill(-2.12194440e-4f);
    V p = fill(1 / 720.0f);
    for (const float c : {1 / 120.0f, 1 / 24.0f, 1 / 6.0f, 0.5f, 1.0f, 1.0f}) p = fill(c) + r * p;
    return p * (V)((__builtin_convertvector(n, Integers) + 127) << 23);
}

struct Elu {
    static V value(V x) { return larger(fill(0), x) + (exponential(smaller(fill(0), x)) - fill(1)); }
    static V slope(V y) { return smaller(fill(0), y) + fill(1); }  // at the input whose value is y
};

struct Silu {
    static V gate(V x) { return fill(1) / (fill(1) + exponential(-x)); }
    static V value(V x) { return x * gate(x); }
    static V slope(V x) { return gate(x) * (fill(1) + x * (fill(1) - gate(x))); }
};

constexpr long PIECE = 4096;  // elements per task

template <class Step>
static void in_pieces(long count, int threads, Step step) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long begin = 0; begin < count; begin += PIECE)
        each(std::min(PIECE, count - begin), [=](long i, auto there) { step(begin + i, there); });
}

template <class Activation>
static void activate(const float* x, float* y, long count, int threads) {
    in_pieces(count, threads, [=](long i, auto there) { store(y + i, Activation::value(load(x + i, there)), there); });
}

template <class Activation>
static void activate_backward(const float* at, const float* grad, float* by_x, long count, int threads) {
    in_pieces(count, threads, [=](long i, auto there) {
        store(by_x + i, load(grad + i, there) * Activation::slope(load(at + i, there)), there);
    });
}

// ---------------------------------------------------------------- group norm, (batch, points, channels)

// y = (x - mean) / deviation * gain, with mean and deviation of a group of channels of an item, and gains (batch,
// channels). Rows of P = max(channels, WIDTH) elements are processed at once: one point, or several if channels are few.
struct GroupNorm {
    long batch, points, channels, groups;
    float epsilon;

    long row() const { return std::max<long>(channels, WIDTH); }
    long size() const { return points * channels; }
    double members() const { return (double)points * channels / groups; }
    long group(long channel) const { return channel * groups / channels; }
};

// sums[channel] += totals of a(i) over all elements of an item, for K values per element.
template <int K, class Values>
static void channel_sums(const GroupNorm& n, double* sums, Values values) {
    constexpr long rows_at_once = 64;  // that are summed in float
    const long row = n.row();
    std::vector<float> part(K * row);
    for (long begin = 0; begin < n.size(); begin += rows_at_once * row) {
        const long end = std::min(n.size(), begin + rows_at_once * row);
        for (long lane = 0; lane < row; lane += WIDTH) {
            V sum[K];
            for (V& s : sum) s = fill(0);
            for (long i = begin + lane; i < end; i += row) {
                V value[K];
                values(i, lane, value);
                for (int k = 0; k < K; ++k) sum[k] += value[k];
            }
            for (int k = 0; k < K; ++k) store(part.data() + k * row + lane, sum[k]);
        }
        for (int k = 0; k < K; ++k)
            for (long lane = 0; lane < row; ++lane) sums[k * n.channels + lane % n.channels] += part[k * row + lane];
    }
}

// statistics: (batch, groups, 2) mean and reciprocal deviation.
static void group_norm(const GroupNorm& n, const float* x, const float* gains, float* y, float* statistics,
                       int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long item = 0; item < n.batch; ++item) {
        const float *const from = x + item * n.size(), *const gain = gains + item * n.channels;
        float *const to = y + item * n.size(), *const found = statistics + 2 * item * n.groups;
        std::vector<double> sums(2 * n.channels), total(2 * n.groups);
        // Around the first element, so that squares do not cancel.
        const V origin = fill(from[0]);
        channel_sums<2>(n, sums.data(), [&](long i, long, V* value) {
            value[0] = load(from + i) - origin, value[1] = value[0] * value[0];
        });
        for (long c = 0; c < n.channels; ++c)
            for (int k = 0; k < 2; ++k) total[2 * n.group(c) + k] += sums[k * n.channels + c];
        for (long g = 0; g < n.groups; ++g) {
            const double mean = total[2 * g] / n.members(), square = total[2 * g + 1] / n.members();
            found[2 * g] = from[0] + mean;
            found[2 * g + 1] = 1 / std::sqrt(std::max(square - mean * mean, 0.0) + n.epsilon);
        }
        std::vector<float> scale(n.row()), shift(n.row());
        for (long lane = 0; lane < n.row(); ++lane) {
            const long c = lane % n.channels, g = n.group(c);
            scale[lane] = found[2 * g + 1] * gain[c], shift[lane] = -found[2 * g] * scale[lane];
        }
        for (long i = 0; i < n.size(); i += n.row())
            for (long lane = 0; lane < n.row(); lane += WIDTH)
                store(to + i + lane, load(from + i + lane) * load(&scale[lane]) + load(&shift[lane]));
    }
}

static void group_norm_backward(const GroupNorm& n, const float* x, const float* gains, const float* statistics,
                                const float* grad, float* by_x, float* by_gains, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long item = 0; item < n.batch; ++item) {
        const float *const from = x + item * n.size(), *const gain = gains + item * n.channels;
        const float *const given = grad + item * n.size(), *const found = statistics + 2 * item * n.groups;
        float* const to = by_x + item * n.size();
        std::vector<float> mean(n.row()), scale(n.row()), slope(n.row()), shift(n.row());
        for (long lane = 0; lane < n.row(); ++lane) mean[lane] = found[2 * n.group(lane % n.channels)];
        std::vector<double> sums(2 * n.channels), total(2 * n.groups);
        channel_sums<2>(n, sums.data(), [&](long i, long lane, V* value) {
            value[0] = load(given + i), value[1] = value[0] * (load(from + i) - load(&mean[lane]));
        });
        for (long c = 0; c < n.channels; ++c) {
            by_gains[item * n.channels + c] = sums[n.channels + c] * found[2 * n.group(c) + 1];
            for (int k = 0; k < 2; ++k) total[2 * n.group(c) + k] += gain[c] * sums[k * n.channels + c];
        }
        for (long lane = 0; lane < n.row(); ++lane) {
            const long c = lane % n.channels, g = n.group(c);
            const double reciprocal = found[2 * g + 1];
            scale[lane] = reciprocal * gain[c];
            slope[lane] = -reciprocal * reciprocal * reciprocal * total[2 * g + 1] / n.members();
            shift[lane] = -reciprocal * total[2 * g] / n.members();
        }
        for (long i = 0; i < n.size(); i += n.row())
            for (long lane = 0; lane < n.row(); lane += WIDTH) {
                const V deviation = load(from + i + lane) - load(&mean[lane]);
                store(to + i + lane, load(given + i + lane) * load(&scale[lane]) + deviation * load(&slope[lane]) +
                                         load(&shift[lane]));
            }
    }
}
