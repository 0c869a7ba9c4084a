/* SOFTMAX in integers: exponentials from a table, one reciprocal a row by Newton's method. */
#ifndef TD_KERNELS_SOFTMAX_H
#define TD_KERNELS_SOFTMAX_H

#include "td_kernels.h"

/* exponentials[d] = exp(-d * beta * scale) in Q0.31 for d = 0 .. entries - 1; beyond that it counts as 0. */
typedef struct {
    int32_t rows, classes, entries;
} td_softmax_shape;

/* round(a * b / 2^31), ties upward; b may be negative. */
static TD_INLINE int32_t td_fixed_multiply(int32_t a, int32_t b)
{
    const int64_t product = (int64_t)a * b;
    return product < 0 ? -(int32_t)((-product + ((int64_t)1 << 30) - 1) >> 31)
                       : (int32_t)((product + ((int64_t)1 << 30)) >> 31);
}

/* v * 2^n, saturated. */
static TD_INLINE int32_t td_saturating_shift(int32_t v, int32_t n)
{
    const int32_t limit = INT32_MAX >> n;
    if (v > limit) {
        return INT32_MAX;
    }
    return v < -limit - 1 ? INT32_MIN : v * (int32_t)((uint32_t)1 << n);
}

/* 1 / (1 + a) in Q0.31 for a in Q0.31 from 0 to 1: x = 48/17 - 32/17 d, then three Newton-Raphson steps. */
static TD_INLINE int32_t td_reciprocal_one_plus(int32_t a)
{
    const int32_t half_denominator = (int32_t)(((uint32_t)a + 0x80000000u) >> 1);
    int32_t x = 1515870810 + td_fixed_multiply(half_denominator, -1010580540);
    for (int32_t i = 0; i < 3; i++) {
        const int32_t error = ((int32_t)1 << 29) - td_fixed_multiply(half_denominator, x);
        x += td_saturating_shift(td_fixed_multiply(x, error), 2);
    }
    return td_saturating_shift(x, 1);
}

static TD_INLINE int32_t td_leading_zeros(uint32_t v)
{
    int32_t n = 0;
    while (v < 0x80000000u) {
        v <<= 1;
        n++;
    }
    return n;
}

static TD_INLINE void td_softmax_row(const td_softmax_shape *s, const int32_t *exponentials, const int8_t *x,
                                     int8_t *y)
{
    int32_t largest = INT8_MIN;
    for (int32_t c = 0; c < s->classes; c++) {
        largest = x[c] > largest ? x[c] : largest;
    }
    int32_t sum = 0; /* Q12.19 */
    for (int32_t c = 0; c < s->classes; c++) {
        const int32_t d = largest - x[c];
        if (d < s->entries) {
            sum += td_round_shift(exponentials[d], 12);
        }
    }
    const int32_t headroom = td_leading_zeros((uint32_t)sum);
    const int32_t fraction = (int32_t)(((uint32_t)sum << headroom) & 0x7fffffffu);
    const int32_t reciprocal = td_reciprocal_one_plus(fraction);
    const int32_t shift = 12 - headroom + 23;
    for (int32_t c = 0; c < s->classes; c++) {
        const int32_t d = largest - x[c];
        int32_t q = INT8_MIN;
        if (d < s->entries) {
            q += td_round_shift(td_high_multiply(exponentials[d], reciprocal), shift);
        }
        y[c] = (int8_t)td_clamp(q, INT8_MIN, INT8_MAX);
    }
}

static TD_INLINE void td_softmax(const td_softmax_shape *s, const int32_t *exponentials, const int8_t *x,
                                 int8_t *y)
{
    for (int32_t row = 0; row < s->rows; row++) {
        td_softmax_row(s, exponentials, x + row * s->classes, y + row * s->classes);
    }
}

#endif
