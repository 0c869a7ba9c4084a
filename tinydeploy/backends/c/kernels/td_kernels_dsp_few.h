/* FULLY_CONNECTED and CONV_2D of 1x1 with few rows on the DSP extension: values are widened where they are
 * read, for lanes would not be used often enough. */
#ifndef TD_KERNELS_DSP_FEW_H
#define TD_KERNELS_DSP_FEW_H

#include "td_kernels_dsp_conv.h"

#if TD_DSP_LOOPS

/* TD_DSP_ONE_STEP from four int8 values. */
#define TD_DSP_NARROW_STEP            \
    "ldr %[z], [%[q]], #4\n"          \
    "ldrd %[w], %[v], [%[p]], #8\n"   \
    "sxtb16 %[x], %[z]\n"             \
    "smlad %0, %[x], %[w], %0\n"      \
    "sxtb16 %[w], %[w]\n"             \
    "smlad %1, %[x], %[w], %1\n"      \
    "sxtb16 %[z], %[z], ror #8\n"     \
    "smlad %0, %[z], %[v], %0\n"      \
    "sxtb16 %[v], %[v]\n"             \
    "smlad %1, %[z], %[v], %1\n"

/* The sums over the whole words of a row of `count` values. */
static TD_INLINE const int32_t *td_dsp_sum_narrow(int32_t count, const int8_t *x, const int32_t *w, int32_t *wide,
                                                  int32_t *narrow)
{
    const int8_t *const end = x + (count & ~3);
    int32_t s0 = *wide;
    int32_t n0 = *narrow;
    uint32_t word, other, first, second;
    if (count >= 16 && count % 16 < 4) {
        TD_DSP_ONE(TD_DSP_NARROW_STEP TD_DSP_NARROW_STEP TD_DSP_NARROW_STEP TD_DSP_NARROW_STEP);
    } else if (count >= 4) {
        TD_DSP_ONE(TD_DSP_NARROW_STEP);
    }
    *wide = s0;
    *narrow = n0;
    return w;
}

/* Four int8 values times those weights of two pairs. */
#define TD_DSP_QUAD_STEP              \
    "ldr %[w1], [%[p], #4]\n"         \
    "ldr %[w2], [%[p], #8]\n"         \
    "ldr %[w3], [%[p], #12]\n"        \
    "ldr %[z], [%[q]], #4\n"          \
    "ldr %[w0], [%[p]], #16\n"        \
    "sxtb16 %[x], %[z]\n"             \
    "smlad %0, %[x], %[w0], %0\n"     \
    "sxtb16 %[w0], %[w0]\n"           \
    "smlad %1, %[x], %[w0], %1\n"     \
    "smlad %2, %[x], %[w2], %2\n"     \
    "sxtb16 %[w2], %[w2]\n"           \
    "smlad %3, %[x], %[w2], %3\n"     \
    "sxtb16 %[z], %[z], ror #8\n"     \
    "smlad %0, %[z], %[w1], %0\n"     \
    "sxtb16 %[w1], %[w1]\n"           \
    "smlad %1, %[z], %[w1], %1\n"     \
    "smlad %2, %[z], %[w3], %2\n"     \
    "sxtb16 %[w3], %[w3]\n"           \
    "smlad %3, %[z], %[w3], %3\n"

#define TD_DSP_QUAD(steps)                                                                                  \
    __asm__ volatile("1:\n" steps "cmp %[q], %[end]\n"                                                      \
                     "bne 1b\n"                                                                             \
                     : "+r"(wide0), "+r"(narrow0), "+r"(wide1), "+r"(narrow1), [p] "+r"(w), [q] "+r"(x),     \
                       [w0] "=&r"(w0), [w1] "=&r"(w1), [w2] "=&r"(w2), [w3] "=&r"(w3), [x] "=&r"(even),      \
                       [z] "=&r"(odd)                                                                       \
                     : [end] "r"(end)                                                                       \
                     : "cc", "memory")

/* The same for two pairs, whose sums are wide0, narrow0, wide1 and narrow1. */
static TD_INLINE const int32_t *td_dsp_sum_quad(int32_t count, const int8_t *x, const int32_t *w, td_dsp_sums *sums)
{
    const int8_t *const end = x + (count & ~3);
    int32_t wide0 = sums->wide0, narrow0 = sums->narrow0, wide1 = sums->wide1, narrow1 = sums->narrow1;
    uint32_t w0, w1, w2, w3, even, odd;
    if (count >= 8 && count % 8 < 4) {
        TD_DSP_QUAD(TD_DSP_QUAD_STEP TD_DSP_QUAD_STEP);
    } else if (count >= 4) {
        TD_DSP_QUAD(TD_DSP_QUAD_STEP);
    }
    *sums = (td_dsp_sums){ wide0, wide1, 0, 0, narrow0, narrow1, 0, 0 };
    return w;
}

#else

static TD_INLINE const int32_t *td_dsp_sum_quad(int32_t count, const int8_t *x, const int32_t *w, td_dsp_sums *sums)
{
    for (int32_t i = 0; i < (count & ~3); i += 4) {
        const uint32_t even = td_even_bytes(td_load_word(x + i));
        const uint32_t odd = td_odd_bytes(td_load_word(x + i));
        sums->wide0 = td_smlad(odd, (uint32_t)w[1], td_smlad(even, (uint32_t)w[0], sums->wide0));
        sums->wide1 = td_smlad(odd, (uint32_t)w[3], td_smlad(even, (uint32_t)w[2], sums->wide1));
        sums->narrow0 = td_smlad(even, td_even_bytes((uint32_t)w[0]), sums->narrow0);
        sums->narrow0 = td_smlad(odd, td_even_bytes((uint32_t)w[1]), sums->narrow0);
        sums->narrow1 = td_smlad(even, td_even_bytes((uint32_t)w[2]), sums->narrow1);
        sums->narrow1 = td_smlad(odd, td_even_bytes((uint32_t)w[3]), sums->narrow1);
        w += 4;
    }
    return w;
}

static TD_INLINE const int32_t *td_dsp_sum_narrow(int32_t count, const int8_t *x, const int32_t *w, int32_t *wide,
                                                  int32_t *narrow)
{
    for (int32_t i = 0; i < (count & ~3); i += 4) {
        const uint32_t v = td_load_word(x + i);
        *wide = td_smlad(td_even_bytes(v), (uint32_t)w[0], *wide);
        *narrow = td_smlad(td_even_bytes(v), td_even_bytes((uint32_t)w[0]), *narrow);
        *wide = td_smlad(td_odd_bytes(v), (uint32_t)w[1], *wide);
        *narrow = td_smlad(td_odd_bytes(v), td_even_bytes((uint32_t)w[1]), *narrow);
        w += 2;
    }
    return w;
}

#endif

/* The end of a row that is no multiple of 4, as if zeros stood behind it. */
static TD_INLINE uint32_t td_dsp_rest(const int8_t *x, int32_t from, int32_t count)
{
    uint32_t rest = 0;
    for (int32_t i = from; i < count; i++) {
        rest |= ((uint32_t)x[i] & 0xffu) << (8 * (i - from));
    }
    return rest;
}

/* td_dsp_rows for few rows, without scratch; a row is read again for each of its outputs. */
static TD_INLINE void td_dsp_few_rows(const td_dsp_rows_shape *s, const int32_t *weights, const int8_t *x,
                                      int8_t *y)
{
    const int32_t whole = s->inputs & ~3;
    for (int32_t row = 0; row < s->rows; row++) {
        const uint32_t rest = td_dsp_rest(x, whole, s->inputs);
        const int32_t *w = weights;
        for (int32_t o = 0; o < s->dot.outputs; o += 2) {
            int32_t wide = w[0];
            int32_t narrow = w[1];
            td_dsp_sum_narrow(s->inputs, x, w + 2, &wide, &narrow);
            if (s->inputs % 4) {
                const uint32_t even = (uint32_t)w[2 + whole / 2];
                const uint32_t odd = (uint32_t)w[3 + whole / 2];
                wide = td_smlad(td_odd_bytes(rest), odd, td_smlad(td_even_bytes(rest), even, wide));
                narrow = td_smlad(td_even_bytes(rest), td_even_bytes(even), narrow);
                narrow = td_smlad(td_odd_bytes(rest), td_even_bytes(odd), narrow);
            }
            w += 2 + s->dot.words;
            const td_dsp_scale a = td_dsp_next_scale(&s->dot, &w);
            const td_dsp_scale b = td_dsp_next_scale(&s->dot, &w);
            y[o] = td_dsp_output_a(wide, narrow, a, &s->dot.out);
            if (o + 1 < s->dot.outputs) {
                y[o + 1] = td_dsp_output_b(narrow, b, &s->dot.out);
            }
        }
        x += s->inputs;
        y += s->dot.outputs;
    }
}

/* The same for a number of outputs that has an even number of pairs: two pairs at a time. */
static TD_INLINE void td_dsp_few_rows_by_four(const td_dsp_rows_shape *s, const int32_t *weights, const int8_t *x,
                                              int8_t *y)
{
    const td_dsp_output *const out = &s->dot.out;
    const int32_t whole = s->inputs & ~3;
    for (int32_t row = 0; row < s->rows; row++) {
        const uint32_t rest = td_dsp_rest(x, whole, s->inputs);
        const int32_t *w = weights;
        for (int32_t o = 0; o < s->dot.outputs; o += 4) {
            td_dsp_sums sums = { w[0], w[2], 0, 0, w[1], w[3], 0, 0 };
            td_dsp_sum_quad(s->inputs, x, w + 4, &sums);
            if (s->inputs % 4) {
                int8_t last[4];
                td_store_word(last, rest);
                td_dsp_sum_quad(4, last, w + 4 + whole, &sums);
            }
            w += 4 + 2 * s->dot.words;
            const td_dsp_scale a = td_dsp_next_scale(&s->dot, &w);
            const td_dsp_scale b = td_dsp_next_scale(&s->dot, &w);
            y[o] = td_dsp_output_a(sums.wide0, sums.narrow0, a, out);
            y[o + 1] = td_dsp_output_b(sums.narrow0, b, out);
            const td_dsp_scale c = td_dsp_next_scale(&s->dot, &w);
            const td_dsp_scale d = td_dsp_next_scale(&s->dot, &w);
            y[o + 2] = td_dsp_output_a(sums.wide1, sums.narrow1, c, out);
            if (o + 3 < s->dot.outputs) {
                y[o + 3] = td_dsp_output_b(sums.narrow1, d, out);
            }
        }
        x += s->inputs;
        y += s->dot.outputs;
    }
}

#endif
