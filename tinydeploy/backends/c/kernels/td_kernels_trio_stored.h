/* Stored weights for the kernels of cores without a long multiplication: their stream is made in working memory. */
#ifndef TD_KERNELS_TRIO_STORED_H
#define TD_KERNELS_TRIO_STORED_H

#include "td_kernels_stored.h"
#include "td_kernels_trio_conv.h"
#include "td_kernels_trio_depthwise.h"

/* `depth` weights of each output, as bytes of `words` words, behind the `levels` words of its requantization. Where
 * a multiplier is given, these are bias, multiplier and shift, stored apart. */
typedef struct {
    int32_t outputs, depth, words, levels;
    td_form form;
} td_trio_stored_shape;

typedef struct {
    const int32_t *levels; /* [output][levels], or the biases where the rule itself is computed */
    const int32_t *multiplier;
    const int8_t *shift;
} td_trio_scales;

static TD_INLINE void td_trio_unpack(const td_trio_stored_shape *s, const td_stored *w, const td_trio_scales *scales,
                                     int32_t *to)
{
    for (int32_t o = 0; o < s->outputs; o++) {
        if (scales->multiplier != NULL) {
            to[0] = scales->levels[o];
            to[1] = scales->multiplier[o];
            to[2] = scales->shift[o];
        } else {
            for (int32_t i = 0; i < s->levels; i++) {
                to[i] = scales->levels[o * s->levels + i];
            }
        }
        to += s->levels;
        for (int32_t i = s->depth / 4; i < s->words; i++) {
            to[i] = 0;
        }
        td_unpack(&s->form, w, o, s->depth, (int8_t *)(void *)to);
        to += s->words;
    }
}

#endif
