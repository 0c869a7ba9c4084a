/* Kernels for cores whose only multiplication is 32 by 32 to 32 bits (Armv6-M above all): three products in
 * two words, and a requantization of two multiplications.
 *
 * Three inputs in two words. With x0, x1, x2 of three pixels, and a weight w that they share,
 *     a += w * (x0 + 2^21 * x1)     and     b += w * (x2 + 2^10 * x1)
 * give all three sums s0, s1, s2, exactly, although a and b wrap: the exporter proved |s| < 2^20, so the low
 * 21 bits of a are s0 and its upper 11 bits are the lower ones of s1; without those, b holds s2 in its low 21
 * bits and the rest of s1 above them. Two multiplications for three products, and nothing to unpack. */
#ifndef TD_KERNELS_TRIO_H
#define TD_KERNELS_TRIO_H

#include "td_kernels.h"

/* Where a and b begin: each sum then comes out 2^20 too large, so that none is negative. */
#define TD_TRIO_A 0x00100000u
#define TD_TRIO_B 0x40100000u

typedef struct {
    uint32_t a, b;
} td_trio;

static TD_INLINE td_trio td_trio_of(int32_t x0, int32_t x1, int32_t x2)
{
    const uint32_t middle = (uint32_t)x1;
    return (td_trio){ (uint32_t)x0 + (middle << 21), (uint32_t)x2 + (middle << 10) };
}

/* Adds the sums of a trio, each 2^20 too large. */
static TD_INLINE void td_trio_add(td_trio t, uint32_t *sums)
{
    const uint32_t low = t.a >> 21;
    t.b -= low << 10;
    sums[0] += t.a << 11 >> 11;
    sums[1] += (t.b >> 21 << 11) + low;
    sums[2] += t.b << 11 >> 11;
}

/* Requantization by thresholds. With u the sum and `bias`, clamped to 0 .. `top`, the output is
 *     (u * high + (u * low >> fraction) + add) >> 24
 * as a byte, less `step` in the sum while u < `zero` where a layer has ties to round (`ties`). The exporter
 * checked each channel on both sides of every threshold of the double-rounding rule.
 * The words of a channel are bias, top, high, low and add, then zero and step. */
typedef struct {
    int32_t fraction, ties;
} td_level_shape;

static TD_INLINE int32_t td_level_words(const td_level_shape *s)
{
    return s->ties ? 7 : 5;
}

static TD_INLINE int8_t td_level(const td_level_shape *s, const int32_t *scale, uint32_t sum)
{
    int32_t u = (int32_t)(sum + (uint32_t)scale[0]);
    u = u < 0 ? 0 : u;
    u = u > scale[1] ? scale[1] : u;
    const uint32_t v = (uint32_t)u;
    uint32_t level = v * (uint32_t)scale[2] + (v * (uint32_t)scale[3] >> s->fraction) + (uint32_t)scale[4];
    if (s->ties && u < scale[5]) {
        level -= (uint32_t)scale[6];
    }
    return (int8_t)(uint8_t)(level >> 24);
}

#endif
