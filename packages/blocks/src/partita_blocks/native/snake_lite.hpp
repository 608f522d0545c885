// SnakeLite and its gradients; the formula is that of `activations.py`.

#pragma once

#include <numeric>

#include "vectors.hpp"

// sin^2(pi f) = u (C1 + u (C2 + u (C3 + u C4))) with u = f^2, up to f^8.
constexpr double PI = 3.14159265358979324, PI2 = PI * PI;
constexpr double C1 = PI2, C2 = -PI2 * PI2 / 3, C3 = 2 * PI2 * PI2 * PI2 / 45, C4 = -PI2 * PI2 * PI2 * PI2 / 315;

static V polynomial(V u, double c1, double c2, double c3, double c4) {
    return fill(c1) + u * (fill(c2) + u * (fill(c3) + u * fill(c4)));
}
static V wrap(V turns) { return turns - nearest(turns); }
static V sine_squared(V u) { return u * polynomial(u, C1, C2, C3, C4); }

// Its derivative with respect to pi f, divided by f.
static V slope(V u) { return polynomial(u, 2 / PI * C1, 4 / PI * C2, 6 / PI * C3, 8 / PI * C4); }

constexpr float ONE_BY_PI = 1 / PI;
constexpr long BLOCK = 8192;  // elements of a row per task, which are summed in float

static void snake_lite(float beta, const float* x, float* y, long count) {
    const V scale = fill(beta * ONE_BY_PI), inverse = fill(1 / beta);
    each(count, [=](long i, auto there) {
        const V value = load(x + i, there), f = wrap(value * scale);
        store(y + i, value + sine_squared(f * f) * inverse, there);
    });
}

// Writes the gradient of x; returns the gradient of beta summed over the block, times beta.
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
