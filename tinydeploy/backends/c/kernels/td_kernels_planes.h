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

/* The bits of each nibble of `one`, plus twice those of `two`. */
static TD_INLINE uint32_t td_count_nibbles(uint32_t one, uint32_t two)
{
    one -= one >> 1 & 0x55555555u;
    two -= two >> 1 & 0x55555555u;
    one = (one & 0x33333333u) + (one >> 2 & 0x33333333u);
    two = (two & 0x33333333u) + (two >> 2 & 0x33333333u);
    return one + 2 * two;
}

/* The same of each byte. */
static TD_INLINE uint32_t td_count_bytes(uint32_t one, uint32_t two)
{
    const uint32_t nibbles = td_count_nibbles(one, two);
    return (nibbles & 0x0f0f0f0fu) + (nibbles >> 4 & 0x0f0f0f0fu);
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

static TD_INLINE uint32_t td_differing(const uint32_t *x, td_plane w, int32_t i)
{
    const uint32_t v = x[i] ^ w.signs[i];
    return w.present != NULL ? v & w.present[i] : v;
}

static TD_INLINE td_two_bits td_add_three(const uint32_t *x, td_plane w, int32_t i)
{
    return td_add_bits(td_differing(x, w, i), td_differing(x, w, i + 1), td_differing(x, w, i + 2));
}

static TD_INLINE td_plane td_plane_behind(td_plane w, int32_t words)
{
    w.signs += words;
    w.present = w.present != NULL ? w.present + words : NULL;
    return w;
}

/* How many signs of `words` words differ from those of the plane. */
static TD_INLINE uint32_t td_count_differing(int32_t words, const uint32_t *x, td_plane w)
{
    uint32_t count = 0;
    for (const uint32_t *const end = x + words / 9 * 9; x < end; x += 9) {
        const td_two_bits a = td_add_three(x, w, 0);
        const td_two_bits b = td_add_three(x, w, 3);
        const td_two_bits c = td_add_three(x, w, 6);
        const td_two_bits sums = td_add_bits(a.sum, b.sum, c.sum);
        const td_two_bits carries = td_add_bits(a.carry, b.carry, c.carry);
        const uint32_t low = td_count_bytes(sums.sum, sums.carry);
        count = td_sum_bytes(low + 2 * td_count_bytes(carries.sum, carries.carry), count);
        w = td_plane_behind(w, 9);
    }
    words %= 9;
    for (const uint32_t *const end = x + words / 3 * 3; x < end; x += 3) {
        const td_two_bits a = td_add_three(x, w, 0);
        count = td_sum_bytes(td_count_bytes(a.sum, a.carry), count);
        w = td_plane_behind(w, 3);
    }
    if (words % 3) {
        const uint32_t first = td_differing(x, w, 0);
        const uint32_t second = words % 3 == 2 ? td_differing(x, w, 1) : 0;
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
