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

/* The sums of three pixels or rows, each 2^20 too large for each trio that was added. */
typedef struct {
    uint32_t s0, s1, s2;
} td_trio_sums;

static TD_INLINE void td_trio_add(td_trio_sums *sums, td_trio t)
{
    const uint32_t low = t.a >> 21;
    t.b -= low << 10;
    sums->s0 += t.a << 11 >> 11;
    sums->s1 += (t.b >> 21 << 11) + low;
    sums->s2 += t.b << 11 >> 11;
}

/* Requantization by thresholds. With u the sum and `bias`, clamped to 0 .. `top`, the output is
 *     (u * high + (u * low >> fraction) + add) >> 24
 * as a byte, with `step` added to the sum while u < `zero` for TD_LEVEL_TIES. The exporter checked each
 * channel on both sides of every threshold of the double-rounding rule. The words of a channel are bias, top,
 * high, low and add, then zero and step. Where no such factors exist, TD_LEVEL_ANY computes the rule itself,
 * from bias, multiplier and shift. */
enum { TD_LEVEL_PLAIN, TD_LEVEL_TIES, TD_LEVEL_ANY };

typedef struct {
    int32_t way, fraction;
    td_output out;
} td_level_shape;

static TD_INLINE int32_t td_level_words(const td_level_shape *s)
{
    return s->way == TD_LEVEL_ANY ? 3 : s->way == TD_LEVEL_TIES ? 7 : 5;
}

static TD_INLINE uint32_t td_level(const td_level_shape *s, const int32_t *scale, uint32_t sum)
{
    int32_t u = (int32_t)(sum + (uint32_t)scale[0]);
    if (s->way == TD_LEVEL_ANY) {
        return (uint32_t)td_requantize(u, scale[1], scale[2], &s->out);
    }
    u = u < 0 ? 0 : u;
    u = u > scale[1] ? scale[1] : u;
    const uint32_t v = (uint32_t)u;
    uint32_t level = v * (uint32_t)scale[2] + (v * (uint32_t)scale[3] >> s->fraction) + (uint32_t)scale[4];
    if (s->way == TD_LEVEL_TIES && u < scale[5]) {
        level += (uint32_t)scale[6];
    }
    return level >> 24;
}

/* TD_TRIO_LOOPS: assembly for Armv6-M. GCC keeps nothing in the high registers there, where sums and
 * constants can stand, so that all low ones are left for operands. */
#if defined(__GNUC__) && defined(__thumb__) && !defined(__thumb2__) && defined(__OPTIMIZE__)
#define TD_TRIO_LOOPS 1
#else
#define TD_TRIO_LOOPS 0
#endif

#if TD_TRIO_LOOPS

#define TD_LEVEL_FACTORS(u)         \
    "asrs %[t], " u ", #31\n"       \
    "bics " u ", " u ", %[t]\n"     \
    "cmp " u ", %[top]\n"           \
    "ble 1f\n"                      \
    "mov " u ", %[top]\n"           \
    "1:\n"                          \
    "mov %[t], %[high]\n"           \
    "muls %[t], " u ", %[t]\n"      \
    "add %[t], %[add]\n"
#define TD_LEVEL_STEP(u)            \
    "cmp " u ", %[zero]\n"          \
    "bge 1f\n"                      \
    "ldr %[v], [%[scale], #24]\n"   \
    "adds %[t], %[t], %[v]\n"       \
    "1:\n"
#define TD_LEVEL_BYTE(u, fraction)  \
    "mov %[v], %[low]\n"            \
    "muls " u ", %[v], " u "\n"     \
    "lsrs " u ", " u ", #" fraction "\n" \
    "adds " u ", " u ", %[t]\n"     \
    "lsrs " u ", " u ", #24\n"
#define TD_LEVEL(u, fraction) TD_LEVEL_FACTORS(u) TD_LEVEL_BYTE(u, fraction)
#define TD_LEVEL_WITH_TIES(u, fraction) TD_LEVEL_FACTORS(u) TD_LEVEL_STEP(u) TD_LEVEL_BYTE(u, fraction)
#define TD_LEVELS(one, fraction)                                                                             \
    __asm__(".syntax unified\n" one("%[u0]", fraction) one("%[u1]", fraction) one("%[u2]", fraction)         \
            : [u0] "+l"(u0), [u1] "+l"(u1), [u2] "+l"(u2), [t] "=&l"(t), [v] "=&l"(v)                        \
            : [top] "h"(scale[1]), [high] "h"(scale[2]), [low] "h"(scale[3]), [add] "h"(scale[4]),           \
              [zero] "h"(zero), [scale] "l"(scale)                                                           \
            : "cc", "memory")
#define TD_LEVELS_OF(n)                            \
    do {                                           \
        if (s->way == TD_LEVEL_TIES) {             \
            TD_LEVELS(TD_LEVEL_WITH_TIES, n);      \
        } else {                                   \
            TD_LEVELS(TD_LEVEL, n);                \
        }                                          \
    } while (0)

static TD_INLINE void td_trio_levels_fast(const td_level_shape *s, const int32_t *scale, td_trio_sums *sums)
{
    const uint32_t bias = (uint32_t)scale[0];
    uint32_t u0 = sums->s0 + bias, u1 = sums->s1 + bias, u2 = sums->s2 + bias;
    const int32_t zero = scale[s->way == TD_LEVEL_TIES ? 5 : 4];
    uint32_t t, v;
    if (s->fraction == 16) {
        TD_LEVELS_OF("16");
    } else if (s->fraction == 15) {
        TD_LEVELS_OF("15");
    } else if (s->fraction == 14) {
        TD_LEVELS_OF("14");
    } else if (s->fraction == 13) {
        TD_LEVELS_OF("13");
    } else {
        TD_LEVELS_OF("12");
    }
    *sums = (td_trio_sums){ u0, u1, u2 };
}

#endif

/* Sums become outputs, each in the low byte. */
static TD_INLINE void td_trio_levels(const td_level_shape *s, const int32_t *scale, td_trio_sums *sums)
{
#if TD_TRIO_LOOPS
    if (s->way != TD_LEVEL_ANY) {
        td_trio_levels_fast(s, scale, sums);
        return;
    }
#endif
    sums->s0 = td_level(s, scale, sums->s0);
    sums->s1 = td_level(s, scale, sums->s1);
    sums->s2 = td_level(s, scale, sums->s2);
}

/* Stores the first `count` of three outputs, `pitch` bytes apart. */
static TD_INLINE void td_trio_store(td_trio_sums levels, int32_t count, int32_t pitch, int8_t *y)
{
    if (count > 0) {
        y[0] = (int8_t)(uint8_t)levels.s0;
    }
    if (count > 1) {
        y[pitch] = (int8_t)(uint8_t)levels.s1;
    }
    if (count > 2) {
        y[2 * pitch] = (int8_t)(uint8_t)levels.s2;
    }
}

#endif
