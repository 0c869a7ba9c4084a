/* ADD on the DSP extension, word by word; the output may be the place of an input. */
#ifndef TD_KERNELS_DSP_ELEMENTWISE_H
#define TD_KERNELS_DSP_ELEMENTWISE_H

#include "td_kernels_dsp.h"

/* q = clamp((a * factor_a + b * factor_b + constant) >> shift). The exporter checked for all 65,536 pairs
 * that this is what the double-rounding rule gives, and that no sum leaves int32; parts of it may wrap. */
typedef struct {
    int32_t elements;
    int32_t factor_a, factor_b, constant, shift;
    int32_t low, high;
} td_dsp_add_shape;

static TD_INLINE int8_t td_dsp_add_one(const td_dsp_add_shape *s, int8_t a, int8_t b)
{
    const uint32_t sum = (uint32_t)s->constant + (uint32_t)(int32_t)a * (uint32_t)s->factor_a +
                         (uint32_t)(int32_t)b * (uint32_t)s->factor_b;
    return (int8_t)td_dsp_clamp((int32_t)sum >> s->shift, s->low, s->high);
}

static TD_INLINE void td_dsp_add(const td_dsp_add_shape *s, const int8_t *a, const int8_t *b, int8_t *y)
{
    const int8_t *const end = y + (s->elements & ~3);
    while (y < end) {
        const uint32_t va = td_load_word(a);
        const uint32_t vb = td_load_word(b);
        y[0] = td_dsp_add_one(s, (int8_t)va, (int8_t)vb);
        y[1] = td_dsp_add_one(s, (int8_t)(va >> 8), (int8_t)(vb >> 8));
        y[2] = td_dsp_add_one(s, (int8_t)(va >> 16), (int8_t)(vb >> 16));
        y[3] = td_dsp_add_one(s, (int8_t)(va >> 24), (int8_t)(vb >> 24));
        a += 4;
        b += 4;
        y += 4;
    }
    for (int32_t i = 0; i < s->elements % 4; i++) {
        y[i] = td_dsp_add_one(s, a[i], b[i]);
    }
}

#endif
