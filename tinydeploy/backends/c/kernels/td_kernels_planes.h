/* Sums of products of signs: 32 of them in a word, EXCLUSIVE OR for the product, and what differs is counted.
 *
 * Few cores have an instruction that counts bits. Words are added bit by bit first: a carry-save adder makes
 * of three words their sum and their carry in five instructions, so that of nine words four are left to be
 * counted (a sum, two carries and a carry of carries). Counts grow from pairs of bits to bytes, weighted on
 * the way, and a byte of nine words holds at most 72. */
#ifndef TD_KERNELS_PLANES_H
#define TD_KERNELS_PLANES_H

#include "td_kernels_dsp.h"

/* Three words that stand for one bit of a number each become the number's two bits. */
typedef struct {
    uint32_t sum, carry;
} td_two_bits;

static TD_INLINE td_two_bits td_add_bits(uint32_t a, uint32_t b, uint32_t c)
{
    const uint32_t differ = a ^ b;
    return (td_two_bits){ differ ^ c, (a & b) | (differ & c) };
}

/* In each of two halves of a group of bits so many; their sum, in the lower half. `high` masks the upper halves.
 * Masked before it is shifted, the mask is an immediate and the shift part of the addition. */
#if TD_DSP
#define TD_FOLD_BITS(name, low, high, by)                                                                      \
    static TD_INLINE uint32_t name(uint32_t v)                                                                 \
    {                                                                                                          \
        uint32_t upper;                                                                                        \
        __asm__("and %0, %1, #" #high "\n\tand %1, %1, #" #low "\n\tadd %1, %1, %0, lsr #" #by                 \
                : "=&r"(upper), "+r"(v));                                                                      \
        return v;                                                                                              \
    }
static TD_INLINE uint32_t td_count_pairs(uint32_t v)
{
    uint32_t upper;
    __asm__("and %0, %1, #0xaaaaaaaa\n\tsub %1, %1, %0, lsr #1" : "=&r"(upper), "+r"(v));
    return v;
}
#else
#define TD_FOLD_BITS(name, low, high, by)      \
    static TD_INLINE uint32_t name(uint32_t v) \
    {                                          \
        return (v & low) + ((v & high) >> by); \
    }
static TD_INLINE uint32_t td_count_pairs(uint32_t v)
{
    return v - (v >> 1 & 0x55555555u);
}
#endif
TD_FOLD_BITS(td_fold_pairs, 0x33333333, 0xcccccccc, 2)
TD_FOLD_BITS(td_fold_nibbles, 0x0f0f0f0f, 0xf0f0f0f0, 4)

/* The bits of each byte of `one`, plus twice those of `two`. */
static TD_INLINE uint32_t td_count_bytes(uint32_t one, uint32_t two)
{
    return td_fold_nibbles(td_fold_pairs(td_count_pairs(one)) + 2 * td_fold_pairs(td_count_pairs(two)));
}

/* sum + the four bytes of v. */
static TD_INLINE uint32_t td_sum_bytes(uint32_t v, uint32_t sum)
{
#if TD_DSP
    __asm__("usada8 %0, %1, %2, %0" : "+r"(sum) : "r"(v), "r"(0));
    return sum;
#else
    v = (v & 0x00ff00ffu) + (v >> 8 & 0x00ff00ffu);
    return sum + (v & 0xffffu) + (v >> 16);
#endif
}

/* Signs of a plane: a bit is 1 for +1. `present` is NULL where no weight is 0; its bits are 0 for those. */
typedef struct {
    const uint32_t *signs, *present;
} td_plane;

static TD_INLINE uint32_t td_differing(const uint32_t **x, td_plane *w)
{
    const uint32_t v = *(*x)++ ^ *w->signs++;
    return w->present != NULL ? v & *w->present++ : v;
}

static TD_INLINE td_two_bits td_add_three(const uint32_t **x, td_plane *w)
{
    uint32_t a, b, c;
#if TD_DSP
    uint32_t d, e;
    __asm__("ldrd %0, %1, [%5], #8\n\t"
            "ldrd %3, %4, [%6], #8\n\t"
            "ldr %2, [%5], #4\n\t"
            "eor %0, %0, %3\n\t"
            "eor %1, %1, %4\n\t"
            "ldr %3, [%6], #4\n\t"
            "eor %2, %2, %3"
            : "=&r"(a), "=&r"(b), "=&r"(c), "=&r"(d), "=&r"(e), "+r"(*x), "+r"(w->signs)
            :
            : "memory");
    if (w->present != NULL) {
        a &= *w->present++;
        b &= *w->present++;
        c &= *w->present++;
    }
#else
    a = td_differing(x, w);
    b = td_differing(x, w);
    c = td_differing(x, w);
#endif
    return td_add_bits(a, b, c);
}

/* Of nine words the bits that differ, byte by byte. */
static TD_INLINE uint32_t td_count_nine(const uint32_t **x, td_plane *w)
{
    const td_two_bits a = td_add_three(x, w);
    const td_two_bits b = td_add_three(x, w);
    const td_two_bits c = td_add_three(x, w);
    const td_two_bits sums = td_add_bits(a.sum, b.sum, c.sum);
    const td_two_bits carries = td_add_bits(a.carry, b.carry, c.carry);
    const uint32_t low = td_count_bytes(sums.sum, sums.carry);
    return low + 2 * td_count_bytes(carries.sum, carries.carry);
}

/* How many signs of `words` words differ from those of the plane. */
static TD_INLINE uint32_t td_count_differing(int32_t words, const uint32_t *x, td_plane w)
{
    uint32_t count = 0;
    if (words / 9 == 2) {
        count = td_sum_bytes(td_count_nine(&x, &w), count);
        count = td_sum_bytes(td_count_nine(&x, &w), count);
    } else {
        for (const uint32_t *const end = x + words / 9 * 9; x < end;) {
            count = td_sum_bytes(td_count_nine(&x, &w), count);
        }
    }
    words %= 9;
    for (const uint32_t *const end = x + words / 3 * 3; x < end;) {
        const td_two_bits a = td_add_three(&x, &w);
        count = td_sum_bytes(td_count_bytes(a.sum, a.carry), count);
    }
    if (words % 3) {
        const uint32_t first = td_differing(&x, &w);
        const uint32_t second = words % 3 == 2 ? td_differing(&x, &w) : 0;
        count = td_sum_bytes(td_count_bytes(first ^ second, first & second), count);
    }
    return count;
}

/* 32 activations become a word, in which a bit is 1 for +1: value 4 * j + b is bit 8 * b + j. */
static TD_INLINE uint32_t td_pack_32_signs(const int8_t *x)
{
    uint32_t negative = 0;
    for (int32_t j = 0; j < 8; j++) {
        negative |= (td_load_word(x + 4 * j) & 0x80808080u) >> (7 - j);
    }
    return ~negative;
}

/* The same for any count; bits behind the last value are 0. */
static TD_INLINE void td_pack_signs(const int8_t *x, int32_t count, uint32_t *to)
{
    for (const int8_t *const end = x + (count & ~31); x < end; x += 32) {
        *to++ = td_pack_32_signs(x);
    }
    if (count & 31) {
        uint32_t positive = 0;
        for (int32_t i = 0; i < (count & 31); i++) {
            positive |= (uint32_t)(x[i] > 0) << (8 * (i & 3) + (i >> 2));
        }
        *to = positive;
    }
}

#endif
