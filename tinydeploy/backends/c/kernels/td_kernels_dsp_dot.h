/* Dot products on the DSP extension: two output channels at a time, for four pixels or for one.
 *
 * Two channels in one word. A lane of 16 bits holds 256 * a + b, the weights of channels A and B for one
 * input. Then wide += SMLAD(x, word) and narrow += SMLAD(x, low bytes of word) give
 *     sum(x * b) = narrow     and     sum(x * a) = (wide - narrow) / 256,
 * exactly: additions wrap, and the exporter proved that |sum(x * a) + bias| < 2^23. One SXTB16 unpacks four
 * weights, and flash holds one byte for each.
 *
 * The weights of a layer are one stream of words, in the order in which it is read. For each pair of
 * channels: 256 * bias_a + bias_b, bias_b, the words of weights, then multiplier, offset and shift of A and
 * of B, unless all channels have them in common. Each four inputs k..k+3 are two words of lanes, (k, k+2)
 * and (k+1, k+3), as SXTB16 unpacks them. */
#ifndef TD_KERNELS_DSP_DOT_H
#define TD_KERNELS_DSP_DOT_H

#include "td_kernels_dsp.h"

/* `words` words of lanes for each channel pair, a multiple of `unroll`, which is 2 or 4 to 8. */
typedef struct {
    int32_t words, unroll, outputs;
    int32_t pitch;  /* outputs of a pixel, of which only some may be made */
    int32_t common; /* 1 where `scale` is that of every channel */
    td_dsp_scale scale;
    td_dsp_output out;
} td_dsp_dot_shape;

/* The sums of a channel pair for up to four pixels. */
typedef struct {
    int32_t wide0, wide1, wide2, wide3, narrow0, narrow1, narrow2, narrow3;
} td_dsp_sums;

/* Widens `count` values to int16 lanes, `stride` words apart; the lanes behind the last value are whatever
 * is there, for their weights are 0. */
static TD_INLINE void td_dsp_widen(const int8_t *x, int32_t count, int32_t stride, int32_t *to)
{
    const int8_t *end = x + (count & ~15);
    while (x < end) {
        const uint32_t v0 = td_load_word(x);
        const uint32_t v1 = td_load_word(x + 4);
        const uint32_t v2 = td_load_word(x + 8);
        const uint32_t v3 = td_load_word(x + 12);
        to[0] = (int32_t)td_even_bytes(v0);
        to[stride] = (int32_t)td_odd_bytes(v0);
        to[2 * stride] = (int32_t)td_even_bytes(v1);
        to[3 * stride] = (int32_t)td_odd_bytes(v1);
        to[4 * stride] = (int32_t)td_even_bytes(v2);
        to[5 * stride] = (int32_t)td_odd_bytes(v2);
        to[6 * stride] = (int32_t)td_even_bytes(v3);
        to[7 * stride] = (int32_t)td_odd_bytes(v3);
        to += 8 * stride;
        x += 16;
    }
    end = x + (count & 12);
    while (x < end) {
        const uint32_t v = td_load_word(x);
        to[0] = (int32_t)td_even_bytes(v);
        to[stride] = (int32_t)td_odd_bytes(v);
        to += 2 * stride;
        x += 4;
    }
    if (count & 3) {
        int32_t v[3] = { x[0], 0, 0 };
        for (int32_t i = 1; i < (count & 3); i++) {
            v[i] = x[i];
        }
        to[0] = (int32_t)td_pack_low((uint32_t)v[0], (uint32_t)v[2]);
        to[stride] = (int32_t)((uint32_t)v[1] & 0xffffu);
    }
}

/* The same for four pixels at once, `pitch` values apart, word by word side by side. */
static TD_INLINE void td_dsp_widen_4(const int8_t *x, int32_t pitch, int32_t count, int32_t *to)
{
    const int8_t *end = x + (count & ~3);
    while (x < end) {
        const uint32_t v0 = td_load_word(x);
        const uint32_t v1 = td_load_word(x + pitch);
        const uint32_t v2 = td_load_word(x + 2 * pitch);
        const uint32_t v3 = td_load_word(x + 3 * pitch);
        to[0] = (int32_t)td_even_bytes(v0);
        to[1] = (int32_t)td_even_bytes(v1);
        to[2] = (int32_t)td_even_bytes(v2);
        to[3] = (int32_t)td_even_bytes(v3);
        to[4] = (int32_t)td_odd_bytes(v0);
        to[5] = (int32_t)td_odd_bytes(v1);
        to[6] = (int32_t)td_odd_bytes(v2);
        to[7] = (int32_t)td_odd_bytes(v3);
        to += 8;
        x += 4;
    }
    for (int32_t p = 0; (count & 3) && p < 4; p++) {
        td_dsp_widen(x + p * pitch, count & 3, 4, to + p);
    }
}

#if TD_DSP_LOOPS

/* One word of weights, two lanes for each of four pixels: 12 instructions for 16 products. */
#ifdef TD_DSP_FEW_REGISTERS
#define TD_DSP_STEP            \
    "ldr %[w], [%[p]], #4\n"   \
    "ldr %[x], [%[q]], #4\n"   \
    "sxtb16 %[n], %[w]\n"      \
    "smlad %0, %[x], %[w], %0\n" \
    "smlad %4, %[x], %[n], %4\n" \
    "ldr %[x], [%[q]], #4\n"   \
    "smlad %1, %[x], %[w], %1\n" \
    "smlad %5, %[x], %[n], %5\n" \
    "ldr %[x], [%[q]], #4\n"   \
    "smlad %2, %[x], %[w], %2\n" \
    "smlad %6, %[x], %[n], %6\n" \
    "ldr %[x], [%[q]], #4\n"   \
    "smlad %3, %[x], %[w], %3\n" \
    "smlad %7, %[x], %[n], %7\n"
#define TD_DSP_SECOND
#else
#define TD_DSP_STEP                    \
    "ldr %[w], [%[p]], #4\n"           \
    "ldrd %[x], %[z], [%[q]], #8\n"    \
    "sxtb16 %[n], %[w]\n"              \
    "smlad %0, %[x], %[w], %0\n"       \
    "smlad %4, %[x], %[n], %4\n"       \
    "smlad %1, %[z], %[w], %1\n"       \
    "smlad %5, %[z], %[n], %5\n"       \
    "ldrd %[x], %[z], [%[q]], #8\n"    \
    "smlad %2, %[x], %[w], %2\n"       \
    "smlad %6, %[x], %[n], %6\n"       \
    "smlad %3, %[z], %[w], %3\n"       \
    "smlad %7, %[z], %[n], %7\n"
#define TD_DSP_SECOND , [z] "=&r"(second)
#endif

/* The end of the loop waits in memory, for there is no register left. */
#define TD_DSP_FOUR(steps)                                                                                  \
    __asm__ volatile("1:\n" steps "ldr %[w], %[end]\n"                                                      \
                     "cmp %[q], %[w]\n"                                                                     \
                     "bne 1b\n"                                                                             \
                     : "+r"(s0), "+r"(s1), "+r"(s2), "+r"(s3), "+r"(n0), "+r"(n1), "+r"(n2), "+r"(n3),       \
                       [p] "+r"(w), [q] "+r"(x), [w] "=&r"(word), [n] "=&r"(low),                           \
                       [x] "=&r"(first)TD_DSP_SECOND                                                        \
                     : [end] "m"(end)                                                                       \
                     : "cc", "memory")

#define TD_DSP_TWO_STEPS TD_DSP_STEP TD_DSP_STEP
#define TD_DSP_FOUR_STEPS TD_DSP_TWO_STEPS TD_DSP_TWO_STEPS

static TD_INLINE const int32_t *td_dsp_sum_4(const td_dsp_dot_shape *s, const int32_t *x, const int32_t *w,
                                             td_dsp_sums *sums)
{
    const int32_t *const end = x + 4 * s->words;
    int32_t s0 = w[0];
    int32_t n0 = w[1];
    int32_t s1 = s0, s2 = s0, s3 = s0, n1 = n0, n2 = n0, n3 = n0;
    uint32_t word, low, first;
#ifndef TD_DSP_FEW_REGISTERS
    uint32_t second;
#endif
    w += 2;
    if (s->unroll == 8) {
        TD_DSP_FOUR(TD_DSP_FOUR_STEPS TD_DSP_FOUR_STEPS);
    } else if (s->unroll == 7) {
        TD_DSP_FOUR(TD_DSP_FOUR_STEPS TD_DSP_TWO_STEPS TD_DSP_STEP);
    } else if (s->unroll == 6) {
        TD_DSP_FOUR(TD_DSP_FOUR_STEPS TD_DSP_TWO_STEPS);
    } else if (s->unroll == 5) {
        TD_DSP_FOUR(TD_DSP_FOUR_STEPS TD_DSP_STEP);
    } else if (s->unroll == 4) {
        TD_DSP_FOUR(TD_DSP_FOUR_STEPS);
    } else {
        TD_DSP_FOUR(TD_DSP_TWO_STEPS);
    }
    *sums = (td_dsp_sums){ s0, s1, s2, s3, n0, n1, n2, n3 };
    return w;
}

#define TD_DSP_ONE_STEP               \
    "ldrd %[x], %[z], [%[q]], #8\n"   \
    "ldrd %[w], %[v], [%[p]], #8\n"   \
    "smlad %0, %[x], %[w], %0\n"      \
    "sxtb16 %[w], %[w]\n"             \
    "smlad %1, %[x], %[w], %1\n"      \
    "smlad %0, %[z], %[v], %0\n"      \
    "sxtb16 %[v], %[v]\n"             \
    "smlad %1, %[z], %[v], %1\n"

#define TD_DSP_ONE(steps)                                                                                   \
    __asm__ volatile("1:\n" steps "cmp %[q], %[end]\n"                                                      \
                     "bne 1b\n"                                                                             \
                     : "+r"(s0), "+r"(n0), [p] "+r"(w), [q] "+r"(x), [w] "=&r"(word), [v] "=&r"(other),      \
                       [x] "=&r"(first), [z] "=&r"(second)                                                  \
                     : [end] "r"(end)                                                                       \
                     : "cc", "memory")

static TD_INLINE const int32_t *td_dsp_sum_1(const td_dsp_dot_shape *s, const int32_t *x, const int32_t *w,
                                             td_dsp_sums *sums)
{
    const int32_t *const end = x + s->words;
    int32_t s0 = w[0];
    int32_t n0 = w[1];
    uint32_t word, other, first, second;
    w += 2;
    if (s->unroll == 8) {
        TD_DSP_ONE(TD_DSP_ONE_STEP TD_DSP_ONE_STEP TD_DSP_ONE_STEP TD_DSP_ONE_STEP);
    } else if (s->unroll == 6) {
        TD_DSP_ONE(TD_DSP_ONE_STEP TD_DSP_ONE_STEP TD_DSP_ONE_STEP);
    } else if (s->unroll == 4) {
        TD_DSP_ONE(TD_DSP_ONE_STEP TD_DSP_ONE_STEP);
    } else {
        TD_DSP_ONE(TD_DSP_ONE_STEP);
    }
    *sums = (td_dsp_sums){ s0, 0, 0, 0, n0, 0, 0, 0 };
    return w;
}

#else

static TD_INLINE const int32_t *td_dsp_sum(const td_dsp_dot_shape *s, int32_t pixels, const int32_t *x,
                                           const int32_t *w, td_dsp_sums *sums)
{
    int32_t wide[4] = { w[0], w[0], w[0], w[0] };
    int32_t narrow[4] = { w[1], w[1], w[1], w[1] };
    w += 2;
    for (int32_t i = 0; i < s->words; i++) {
        const uint32_t word = (uint32_t)*w++;
        for (int32_t p = 0; p < pixels; p++) {
            const uint32_t v = (uint32_t)*x++;
            wide[p] = td_smlad(v, word, wide[p]);
            narrow[p] = td_smlad(v, td_even_bytes(word), narrow[p]);
        }
    }
    *sums = (td_dsp_sums){ wide[0],   wide[1],   wide[2],   wide[3],
                           narrow[0], narrow[1], narrow[2], narrow[3] };
    return w;
}

static TD_INLINE const int32_t *td_dsp_sum_4(const td_dsp_dot_shape *s, const int32_t *x, const int32_t *w,
                                             td_dsp_sums *sums)
{
    return td_dsp_sum(s, 4, x, w, sums);
}

static TD_INLINE const int32_t *td_dsp_sum_1(const td_dsp_dot_shape *s, const int32_t *x, const int32_t *w,
                                             td_dsp_sums *sums)
{
    return td_dsp_sum(s, 1, x, w, sums);
}

#endif

/* (wide - narrow) / 256 is the sum of channel A; / 128 is twice that, and exact. */
static TD_INLINE int8_t td_dsp_output_a(int32_t wide, int32_t narrow, td_dsp_scale a, const td_dsp_output *out)
{
    return td_dsp_requantize((int32_t)((uint32_t)wide - (uint32_t)narrow) >> 7, a, out);
}

static TD_INLINE int8_t td_dsp_output_b(int32_t narrow, td_dsp_scale b, const td_dsp_output *out)
{
    return td_dsp_requantize(narrow * 2, b, out);
}

static TD_INLINE td_dsp_scale td_dsp_next_scale(const td_dsp_dot_shape *s, const int32_t **w)
{
    if (s->common) {
        return s->scale;
    }
    *w += 3;
    return (td_dsp_scale){ (*w)[-3], (*w)[-2], (*w)[-1] };
}

/* All output channels of `pixels` pixels (4 or 1), whose lanes stand in `x`; pixel p goes to
 * y + p * pitch. */
static TD_INLINE void td_dsp_dot(const td_dsp_dot_shape *s, int32_t pixels, const int32_t *x, const int32_t *w,
                                 int8_t *y)
{
    const int32_t pitch = s->pitch;
    for (int32_t o = 0; o < s->outputs; o += 2) {
        td_dsp_sums sums;
        w = pixels == 4 ? td_dsp_sum_4(s, x, w, &sums) : td_dsp_sum_1(s, x, w, &sums);
        const td_dsp_scale a = td_dsp_next_scale(s, &w);
        const td_dsp_scale b = td_dsp_next_scale(s, &w);
        y[0] = td_dsp_output_a(sums.wide0, sums.narrow0, a, &s->out);
        if (pixels == 4) {
            y[pitch] = td_dsp_output_a(sums.wide1, sums.narrow1, a, &s->out);
            y[2 * pitch] = td_dsp_output_a(sums.wide2, sums.narrow2, a, &s->out);
            y[3 * pitch] = td_dsp_output_a(sums.wide3, sums.narrow3, a, &s->out);
        }
        if (o + 1 < s->outputs) {
            y[1] = td_dsp_output_b(sums.narrow0, b, &s->out);
            if (pixels == 4) {
                y[pitch + 1] = td_dsp_output_b(sums.narrow1, b, &s->out);
                y[2 * pitch + 1] = td_dsp_output_b(sums.narrow2, b, &s->out);
                y[3 * pitch + 1] = td_dsp_output_b(sums.narrow3, b, &s->out);
            }
        }
        y += 2;
    }
}

#endif
