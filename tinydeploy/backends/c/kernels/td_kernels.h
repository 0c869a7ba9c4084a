/* What every integer kernel needs: requantization, clamping, and how functions are inlined. */
#ifndef TD_KERNELS_H
#define TD_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* TD_INLINE: a kernel becomes part of the layer that calls it, so that its constant shape is folded in.
 * TD_NOINLINE: a layer stays a function of its own, so that profiles and stack traces name it. */
#if defined(__clang__)
#define TD_INLINE inline __attribute__((always_inline))
#define TD_NOINLINE __attribute__((noinline))
#elif defined(__GNUC__)
#define TD_INLINE inline __attribute__((always_inline))
#define TD_NOINLINE __attribute__((noinline, noclone))
#else
#define TD_INLINE inline
#define TD_NOINLINE
#endif

/* C99 leaves the right shift of a negative number to the compiler; the rounding below needs the sign kept. */
typedef char td_requires_arithmetic_right_shift[((-1) >> 1) == -1 ? 1 : -1];

/* How accumulators become outputs. `right_only` is 1 where every shift of the layer is negative and the
 * exporter proved that its rounding constant can be added to any accumulator inside int32. */
typedef struct {
    int32_t zero_point;
    int32_t low;
    int32_t high;
    int32_t right_only;
} td_output;

static TD_INLINE int32_t td_clamp(int32_t v, int32_t low, int32_t high)
{
    v = v < low ? low : v;
    return v > high ? high : v;
}

/* Cores without a multiplication of 32 by 32 to 64 bits; others may be told so for a test. */
#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__) || defined(TD_NO_LONG_MULTIPLY)
#define TD_LONG_MULTIPLY 0
#else
#define TD_LONG_MULTIPLY 1
#endif

/* round(a * m / 2^31), ties upward; m >= 0. */
#if TD_LONG_MULTIPLY
static TD_INLINE int32_t td_high_multiply(int32_t a, int32_t m)
{
    return (int32_t)(((int64_t)a * m + ((int64_t)1 << 30)) >> 31);
}
#else
/* In halves, 2^32 high + 2^16 (left + right) + what is lost below; neither left nor right leaves int32. One
 * function for all layers where size counts. */
#if defined(__OPTIMIZE_SIZE__)
TD_NOINLINE __attribute__((unused))
#else
TD_INLINE
#endif
static int32_t td_high_multiply(int32_t a, int32_t m)
{
    const int32_t a_high = a >> 16, m_high = m >> 16;
    const int32_t a_low = a & 0xffff, m_low = m & 0xffff;
    const int32_t left = a_high * m_low + (int32_t)((uint32_t)a_low * (uint32_t)m_low >> 16);
    const int32_t right = a_low * m_high;
    /* (left + right + 2^14) / 2^15, by halves, for the sum has 33 bits. */
    return a_high * m_high * 2 + (((left >> 1) + (right >> 1) + (left & right & 1) + 0x2000) >> 14);
}
#endif

/* round(v / 2^n), ties away from zero, for every v; n from 1 to 31. */
static TD_INLINE int32_t td_round_shift(int32_t v, int32_t n)
{
    const int32_t mask = (int32_t)(((uint32_t)1 << n) - 1u);
    const int32_t half = (mask >> 1) + (v < 0);
    return (v >> n) + ((v & mask) > half);
}

/* The same for v + 2^(n - 1) inside int32. */
static TD_INLINE int32_t td_round_shift_small(int32_t v, int32_t n)
{
    return (v + (v >> 31) + (int32_t)((uint32_t)1 << (n - 1))) >> n;
}

/* acc * multiplier * 2^(shift - 31) with TensorFlow Lite's double rounding; the exporter proved that a
 * left shift (shift > 0) stays inside int32. */
static TD_INLINE int32_t td_scale(int32_t acc, int32_t multiplier, int32_t shift)
{
    if (shift > 0) {
        acc *= (int32_t)((uint32_t)1 << shift);
    }
    acc = td_high_multiply(acc, multiplier);
    return shift < 0 ? td_round_shift(acc, -shift) : acc;
}

static TD_INLINE int32_t td_requantize(int32_t acc, int32_t multiplier, int32_t shift, const td_output *out)
{
    const int32_t v = out->right_only ? td_round_shift_small(td_high_multiply(acc, multiplier), -shift)
                                      : td_scale(acc, multiplier, shift);
    return td_clamp(v + out->zero_point, out->low, out->high);
}

#endif
