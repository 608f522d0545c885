// Convolutions of tensors (batch, channels, rows, columns) and their gradients, in float32, for training.
//
// A convolution of stride s is one of stride 1 on s times as many channels, its phases: channel (c, r) holds the samples
// s m + r of channel c. Tiles of rows are copied in this form to scratch memory, with padding between the rows, so that
// a tap is a fixed distance in memory, whatever the dimensions: each weight multiplies vectors of contiguous samples.
// Between the rows, some outputs are computed that nothing uses.

#pragma once

#include <utility>
#include <vector>

#include "vectors.hpp"

// y[o, t] = bias[o] + sum over i and k of w[o, i, k] x[i, stride t + dilation k - padding], in both dimensions (rows,
// columns). Rows have a stride or a dilation, columns have no dilation. `in` and `out` are channels per group.
struct Convolution {
    long batch, groups, in, out;
    long kernel[2], stride[2], padding[2], dilation;
    long input[2], output[2];                  // rows and columns of x and y
    long input_strides[4], output_strides[4];  // elements between items, channels, rows and columns
};

constexpr int HIGH = 4;                  // rows of a block of sums
constexpr int SUMS = WIDTH == 8 ? 12 : 24;  // vectors of a block of sums

static long ceil_by(long x, long unit) { return (x + unit - 1) / unit; }
static long round_up(long x, long unit) { return ceil_by(x, unit) * unit; }

// ---------------------------------------------------------------- products of rows in scratch memory

// y[R][N vectors] = bias + sum over columns j of w[j][R] x[offset j + ...].
template <int R, int N>
static void correlate_block(const float* w, const float* bias, const float* x, const std::vector<long>& offsets,
                            float* y, long ld) {
    V sum[R][N];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 24
        for (int n = 0; n < N; ++n) sum[r][n] = fill(bias[r]);
    for (const long offset : offsets) {
        V value[N];
#pragma GCC unroll 24
        for (int n = 0; n < N; ++n) value[n] = load(x + offset + n * WIDTH);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 24
            for (int n = 0; n < N; ++n) sum[r][n] += fill(w[r]) * value[n];
        w += R;
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 24
        for (int n = 0; n < N; ++n) store(y + r * ld + n * WIDTH, sum[r][n]);
}

template <int R>
static void correlate_rows(const float* w, const float* bias, const float* x, const std::vector<long>& offsets,
                           float* y, long ld, long count) {
    constexpr int N = SUMS / R;
    long at = 0;
    for (; at + N * WIDTH <= count; at += N * WIDTH) correlate_block<R, N>(w, bias, x + at, offsets, y + at, ld);
    for (; at < count; at += WIDTH) correlate_block<R, 1>(w, bias, x + at, offsets, y + at, ld);
}

// y[rows][count] = bias + weights * x; weights are packed as blocks of HIGH rows, each (columns, HIGH).
static void correlate(const float* w, const float* bias, const float* x, const std::vector<long>& offsets, float* y,
                      long ld, long rows, long count) {
    for (long row = 0; row < rows; row += HIGH) {
        const float* const block = w + row * (long)offsets.size();
        switch (std::min<long>(HIGH, rows - row)) {
            case 1: correlate_rows<1>(block, bias + row, x, offsets, y + row * ld, ld, count); break;
            case 2: correlate_rows<2>(block, bias + row, x, offsets, y + row * ld, ld, count); break;
            case 3: correlate_rows<3>(block, bias + row, x, offsets, y + row * ld, ld, count); break;
            default: correlate_rows<4>(block, bias + row, x, offsets, y + row * ld, ld, count);
        }
    }
}

// sums[R][C] += sum over positions of a[R][...] x[offset + ...].
template <int R, int C>
static void outer_block(const float* a, long lda, const float* x, const long* offsets, float* sums, long ld,
                        long count) {
    V sum[R][C];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 24
        for (int c = 0; c < C; ++c) sum[r][c] = fill(0);
    for (long at = 0; at < count; at += WIDTH) {
        V value[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) value[r] = load(a + r * lda + at);
#pragma GCC unroll 24
        for (int c = 0; c < C; ++c) {
            const V other = load(x + offsets[c] + at);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) sum[r][c] += value[r] * other;
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 24
        for (int c = 0; c < C; ++c) sums[r * ld + c] += total(sum[r][c]);
}

template <int R, size_t... C>
static void outer_rows(const float* a, long lda, const float* x, const std::vector<long>& offsets, float* sums,
                       long count, std::index_sequence<C...>) {
    using Block = void (*)(const float*, long, const float*, const long*, float*, long, long);
    static constexpr Block all[] = {outer_block<R, C + 1>...};
    const long columns = offsets.size();
    for (long at = 0; at < columns; at += sizeof...(C))
        all[std::min<long>(sizeof...(C), columns - at) - 1](a, lda, x, offsets.data() + at, sums + at, columns, count);
}

// sums[rows][columns] += products of all pairs of rows.
static void outer(const float* a, long lda, const float* x, const std::vector<long>& offsets, float* sums, long rows,
                  long count) {
    for (long row = 0; row < rows; row += HIGH) {
        const float* const y = a + row * lda;
        float* const to = sums + row * (long)offsets.size();
        constexpr int most = 8;  // columns of a block, if its rows are few
        switch (std::min<long>(HIGH, rows - row)) {
            case 1: outer_rows<1>(y, lda, x, offsets, to, count, std::make_index_sequence<most>()); break;
            case 2: outer_rows<2>(y, lda, x, offsets, to, count, std::make_index_sequence<SUMS / 2>()); break;
            case 3: outer_rows<3>(y, lda, x, offsets, to, count, std::make_index_sequence<SUMS / 3>()); break;
            default: outer_rows<4>(y, lda, x, offsets, to, count, std::make_index_sequence<SUMS / 4>());
        }
    }
}

// ---------------------------------------------------------------- tensors and scratch memory

// One side of a convolution. Row m and column n of phase (r, q) are row `phases[0] m + r - shift[0]` and column
// `phases[1] n + q - shift[1]` of a channel, and zero outside of it.
struct Side {
    long channels, size[2], phases[2], shift[2];
    const long* strides;  // between items, channels, rows and columns

    long rows() const { return channels * phases[0] * phases[1]; }  // in scratch memory
    long start(long item, long groups) const {
        return item / groups * strides[0] + item % groups * channels * strides[1];
    }
};

// Samples `phase i + first` of a line of `size` samples, for i from 0 to `count`, those outside of it left out.
struct Line {
    long begin, end, first, step;  // i from begin to end are inside; step: elements from i to i + 1

    Line(long size, long phase, long first, long count, long stride)
        : begin(std::clamp<long>(ceil_by(std::max<long>(-first, 0), phase), 0, count)),
          end(std::clamp<long>(first < size ? ceil_by(size - first, phase) : 0, begin, count)),
          first(first * stride),
          step(phase * stride) {}
};

static void read_line(const Line& line, const float* from, float* to, long count) {
    std::fill(to, to + line.begin, 0.0f);
    if (line.step == 1)
        std::copy(from + line.first + line.begin, from + line.first + line.end, to + line.begin);
    else
        for (long i = line.begin; i < line.end; ++i) to[i] = from[line.first + line.step * i];
    std::fill(to + line.end, to + count, 0.0f);
}

static void write_line(const Line& line, float* to, const float* from) {
    if (line.step == 1)
        std::copy(from + line.begin, from + line.end, to + line.first + line.begin);
    else
        for (long i = line.begin; i < line.end; ++i) to[line.first + line.step * i] = from[i];
}

// Calls step(tensor row or null, line, row of scratch memory, count) for all lines of a tile of `rows` rows.
template <class T, class Step>
static void each_line(const Side& side, T* x, long first, long rows, long columns, long pitch, float* memory, long ld,
                      Step step) {
    for (long c = 0; c < side.channels; ++c, x += side.strides[1])
        for (long r = 0; r < side.phases[0]; ++r)
            for (long q = 0; q < side.phases[1]; ++q, memory += ld) {
                const long row = side.phases[0] * first + r - side.shift[0], column = q - side.shift[1];
                if (side.size[1] == 1 && pitch == 1) {  // one-dimensional: all rows are one line
                    step(x, Line(side.size[0], side.phases[0], row, rows, side.strides[2]), memory, rows);
                    continue;
                }
                const Line line(side.size[1], side.phases[1], column, columns, side.strides[3]);
                for (long i = 0; i < rows; ++i) {
                    const long at = row + side.phases[0] * i;
                    const bool inside = 0 <= at && at < side.size[0];
                    step(inside ? x + at * side.strides[2] : nullptr, line, memory + i * pitch, columns);
                }
            }
}

// Rows `first` to `first + rows` of all channels and phases, `pitch` apart, each with `columns` columns; zeros up to ld.
static void gather(const Side& side, const float* x, long first, long rows, long columns, long pitch, float* to,
                   long ld) {
    each_line(side, x, first, rows, columns, pitch, to, ld,
              [](const float* from, const Line& line, float* to, long count) {
                  if (from)
                      read_line(line, from, to, count);
                  else
                      std::fill(to, to + count, 0.0f);
              });
    const long end = (rows - 1) * pitch + columns;
    for (long row = 0; row < side.rows(); ++row) std::fill(to + row * ld + end, to + (row + 1) * ld, 0.0f);
}

static void scatter(const Side& side, float* x, long first, long rows, long columns, long pitch, float* from, long ld) {
    each_line(side, x, first, rows, columns, pitch, from, ld, [](float* to, const Line& line, float* from, long) {
        if (to) write_line(line, to, from);
    });
}

// ---------------------------------------------------------------- layers

// A correlation without stride from the phases of one side to those of another, or the gradient of its weights.
struct Plan {
    Side from, to;
    long taps[2], dilation;
    long rows, columns, pitch;  // outputs per phase, and the distance between rows in scratch memory
    long tile, halo;            // rows of output per tile, and further rows of input
    long count, ld;             // samples of a tile in scratch memory, and the distance of its channels

    Plan(const Side& from, const Side& to, const Convolution& c, long rows, long columns)
        : from(from), to(to), rows(rows), columns(columns) {
        for (int d = 0; d < 2; ++d) taps[d] = ceil_by(c.kernel[d], c.stride[d]);
        dilation = c.dilation, halo = (taps[0] - 1) * dilation;
        // Zeros after a row also are those before the next one.
        const long width = columns + taps[1] - 1;
        const long left = from.phases[1] == 1 ? from.shift[1] : 0;
        const long right = from.phases[1] == 1 ? width - left - from.size[1] : 0;
        pitch = width - std::max<long>(std::min(left, right), 0);
        constexpr long samples = 48 * 1024;  // of both sides, which fit the L2 cache
        const long each = std::max<long>(samples / (from.rows() + to.rows()), SUMS * WIDTH);
        tile = std::clamp<long>(each / pitch, 1, rows);
        tile = ceil_by(rows, ceil_by(rows, tile));  // all tiles of about the same size
        count = round_up(tile * pitch, WIDTH);
        ld = round_up(count + halo * pitch + taps[1] + WIDTH, WIDTH);
        if (ld % 256 == 0) ld += 2 * WIDTH;  // otherwise all channels would map to one set of the L1 cache
    }

    std::vector<long> offsets() const {
        std::vector<long> all;
        for (long channel = 0; channel < from.rows(); ++channel)
            for (long a = 0; a < taps[0]; ++a)
                for (long b = 0; b < taps[1]; ++b) all.push_back(channel * ld + a * dilation * pitch + b);
        return all;
    }

    long tiles() const { return ceil_by(rows, tile); }
};

// The side x of a convolution as phases of its stride, and the side y without phases, for one group.
static Side input_side(const Convolution& c) {
    return {c.in, {c.input[0], c.input[1]}, {c.stride[0], c.stride[1]}, {c.padding[0], c.padding[1]}, c.input_strides};
}
static Side output_side(const Convolution& c) {
    return {c.out, {c.output[0], c.output[1]}, {1, 1}, {0, 0}, c.output_strides};
}

// Calls put(o, i * phases + phase, tap, index) for each weight w[o, i, k, l], whose index in a group is `index`.
template <class Put>
static void each_weight(const Convolution& c, Put put) {
    const long area = c.stride[0] * c.stride[1], taps = ceil_by(c.kernel[1], c.stride[1]);
    std::vector<std::pair<long, long>> kernel;  // phase and tap of each position
    for (long k = 0; k < c.kernel[0]; ++k)
        for (long l = 0; l < c.kernel[1]; ++l)
            kernel.emplace_back(k % c.stride[0] * c.stride[1] + l % c.stride[1],
                                k / c.stride[0] * taps + l / c.stride[1]);
    for (long o = 0, index = 0; o < c.out; ++o)
        for (long i = 0; i < c.in; ++i)
            for (const auto& [phase, tap] : kernel) put(o, i * area + phase, tap, index++);
}

static long packed_index(long row, long column, long rows, long columns) {
    const long first = row / HIGH * HIGH, high = std::min<long>(HIGH, rows - first);
    return first * columns + column * high + (row - first);
}

static void run_plan(const Plan& p, const std::vector<float>& weights, const std::vector<float>& bias, long batch,
                     long groups, const float* x, float* y, int threads) {
    const std::vector<long> offsets = p.offsets();
    const long packed = p.to.rows() * (long)offsets.size(), tiles = p.tiles();
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (long item = 0; item < batch * groups; ++item)
        for (long t = 0; t < tiles; ++t) {
            const long group = item % groups, first = t * p.tile, rows = std::min(p.tile, p.rows - first);
            float* const in = scratch((p.from.rows() + 1) * p.ld + p.to.rows() * p.ld);
            float* const out = in + (p.from.rows() + 1) * p.ld;
            gather(p.from, x + p.from.start(item, groups), first, rows + p.halo,
                   p.columns + p.taps[1] - 1, p.pitch, in, p.ld);
            correlate(weights.data() + group * packed, bias.data() + group * p.to.rows(), in, offsets, out, p.ld,
                      p.to.rows(), round_up(rows * p.pitch, WIDTH));
            scatter(p.to, y + p.to.start(item, groups), first, rows, p.columns, p.pitch, out, p.ld);
        }
}

// y of x; bias may be null.
static void convolve(const Convolution& c, const float* x, const float* w, const float* bias, float* y, int threads) {
    const Plan p(input_side(c), output_side(c), c, c.output[0], c.output[1]);
    const long taps = p.taps[0] * p.taps[1], columns = p.from.rows() * taps, size = c.out * columns;
    const long held = c.out * c.in * c.kernel[0] * c.kernel[1];
    std::vector<float> packed(c.groups * size), start(c.groups * c.out);
    for (long g = 0; g < c.groups; ++g)
        each_weight(c, [&](long o, long phase, long tap, long index) {
            packed[g * size + packed_index(o, phase * taps + tap, c.out, columns)] = w[g * held + index];
        });
    if (bias) std::copy(bias, bias + start.size(), start.begin());
    run_plan(p, packed, start, c.batch, c.groups, x, y, threads);
}

// x of y: the gradient, or a transposed convolution; bias, per channel of x, may be null.
static void convolve_transposed(const Convolution& c, const float* y, const float* w, const float* bias, float* x,
                                int threads) {
    Side from = output_side(c), to = input_side(c);
    long size[2], first[2];
    for (int d = 0; d < 2; ++d) {
        const long taps = ceil_by(c.kernel[d], c.stride[d]), step = d ? 1 : c.dilation;
        first[d] = c.padding[d] / c.stride[d];  // phases before it are outside of x
        size[d] = (c.input[d] - 1 + c.padding[d]) / c.stride[d] - first[d] + 1;
        from.shift[d] = (taps - 1) * step - first[d];
        to.shift[d] -= first[d] * c.stride[d];
    }
    const Plan p(from, to, c, size[0], size[1]);
    const long taps = p.taps[0] * p.taps[1], columns = c.out * taps, rows = to.rows(), area = c.stride[0] * c.stride[1];
    const long held = c.out * c.in * c.kernel[0] * c.kernel[1];
    std::vector<float> packed(c.groups * rows * columns), start(c.groups * rows);
    for (long g = 0; g < c.groups; ++g)
        each_weight(c, [&](long o, long phase, long tap, long index) {
            const long column = o * taps + taps - 1 - tap;
            packed[g * rows * columns + packed_index(phase, column, rows, columns)] = w[g * held + index];
        });
    if (bias)
        for (long i = 0; i < (long)start.size(); ++i) start[i] = bias[i / area];
    run_plan(p, packed, start, c.batch, c.groups, y, x, threads);
}

// Gradient of w, given that of y. Items are added up in a fixed order, whatever the threads.
static void convolve_weights(const Convolution& c, const float* x, const float* y, float* by_w, int threads) {
    const Plan p(input_side(c), output_side(c), c, c.output[0], c.output[1]);
    const std::vector<long> offsets = p.offsets();
    const long taps = p.taps[0] * p.taps[1], columns = offsets.size(), size = c.out * columns;
    const long held = c.out * c.in * c.kernel[0] * c.kernel[1];
    std::vector<float> sums(c.batch * c.groups * size);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long item = 0; item < c.batch * c.groups; ++item)
        for (long t = 0; t < p.tiles(); ++t) {
            const long first = t * p.tile, rows = std::min(p.tile, p.rows - first);
            float* const in = scratch((p.from.rows() + 1) * p.ld + p.to.rows() * p.ld);
            float* const out = in + (p.from.rows() + 1) * p.ld;
            gather(p.from, x + p.from.start(item, c.groups), first, rows + p.halo, p.columns + p.taps[1] - 1, p.pitch,
                   in, p.ld);
            gather(p.to, y + p.to.start(item, c.groups), first, rows, p.pitch, p.pitch, out, p.ld);
            outer(out, p.ld, in, offsets, sums.data() + item * size, c.out, round_up(rows * p.pitch, WIDTH));
        }
    for (long g = 0; g < c.groups; ++g)
        each_weight(c, [&](long o, long phase, long tap, long index) {
            double sum = 0;
            for (long item = 0; item < c.batch; ++item)
                sum += sums[(item * c.groups + g) * size + o * columns + phase * taps + tap];
            by_w[g * held + index] = sum;
        });
}
