/* CONV_2D and FULLY_CONNECTED with stored weights on the DSP extension. */
#ifndef TD_KERNELS_DSP_FORMS_H
#define TD_KERNELS_DSP_FORMS_H

#include "td_kernels_dsp_few.h"
#include "td_kernels_dsp_stored.h"

/* `block` outputs, an even number unless it is all of them, are unpacked at a time; a pair takes
 * `pair_words` words of the stream. */
typedef struct {
    td_dsp_rows_shape rows;
    td_dsp_fields fields;
    int32_t block, pair_words;
} td_dsp_formed_rows_shape;

/* td_dsp_rows. `scratch` holds the stream of a block, and behind it the lanes of td_dsp_rows. */
static TD_INLINE void td_dsp_formed_rows(const td_dsp_formed_rows_shape *s, const td_dsp_stored *w, const int8_t *x,
                                         int8_t *y, int8_t *scratch)
{
    int32_t *const stream = (int32_t *)(void *)scratch;
    const int32_t outputs = s->rows.dot.outputs;
    for (int32_t o = 0; o < outputs; o += s->block) {
        td_dsp_rows_shape part = s->rows;
        part.dot.outputs = outputs - o < s->block ? outputs - o : s->block;
        td_dsp_unpack_pairs(&part.dot, &s->fields, w, o / 2, (part.dot.outputs + 1) / 2, stream);
        td_dsp_rows(&part, stream, x, y + o, scratch + 4 * ((s->block + 1) / 2) * s->pair_words);
    }
}

typedef struct {
    td_dsp_conv_2d_shape conv;
    td_dsp_fields fields;
    int32_t block, pair_words;
} td_dsp_formed_conv_2d_shape;

/* td_dsp_conv_2d, likewise. */
static TD_INLINE void td_dsp_formed_conv_2d(const td_dsp_formed_conv_2d_shape *s, const td_dsp_stored *w,
                                            const int8_t *x, int8_t *y, int8_t *scratch)
{
    int32_t *const stream = (int32_t *)(void *)scratch;
    const int32_t outputs = s->conv.dot.outputs;
    for (int32_t o = 0; o < outputs; o += s->block) {
        td_dsp_conv_2d_shape part = s->conv;
        part.dot.outputs = outputs - o < s->block ? outputs - o : s->block;
        td_dsp_unpack_pairs(&part.dot, &s->fields, w, o / 2, (part.dot.outputs + 1) / 2, stream);
        td_dsp_conv_2d(&part, stream, x, y + o, scratch + 4 * ((s->block + 1) / 2) * s->pair_words);
    }
}

typedef struct {
    td_dsp_rows_shape rows;
    td_dsp_fields fields;
} td_dsp_formed_few_rows_shape;

/* Words of the stream that are unpacked at a time where each is used once only; a multiple of 8. */
enum { TD_DSP_FEW_WORDS = 32 };

/* One row and one pair of channels. */
static TD_INLINE void td_dsp_formed_pair(const td_dsp_formed_few_rows_shape *s, const td_dsp_stored *w,
                                         const int8_t *x, uint32_t rest, int32_t pair, int32_t *wide,
                                         int32_t *narrow)
{
    int32_t buffer[TD_DSP_FEW_WORDS];
    const int32_t start = pair * s->rows.dot.words;
    const int32_t whole = s->rows.inputs & ~3;
    for (int32_t done = 0; done < whole; done += 2 * TD_DSP_FEW_WORDS) {
        const int32_t left = whole - done;
        const int32_t count = left < 2 * TD_DSP_FEW_WORDS ? left : 2 * TD_DSP_FEW_WORDS;
        td_dsp_unpack_lanes(&s->fields, w, start + done / 2, count / 2, buffer);
        td_dsp_sum_narrow(count, x + done, buffer, wide, narrow);
    }
    if (s->rows.inputs % 4) {
        td_dsp_unpack_lanes(&s->fields, w, start + whole / 2, 2, buffer);
        const uint32_t even = td_even_bytes(rest);
        const uint32_t odd = td_odd_bytes(rest);
        *wide = td_smlad(odd, (uint32_t)buffer[1], td_smlad(even, (uint32_t)buffer[0], *wide));
        *narrow = td_smlad(even, td_even_bytes((uint32_t)buffer[0]), *narrow);
        *narrow = td_smlad(odd, td_even_bytes((uint32_t)buffer[1]), *narrow);
    }
}

/* td_dsp_few_rows, without scratch: a row and its weights are read again for each of its outputs. */
static TD_INLINE void td_dsp_formed_few_rows(const td_dsp_formed_few_rows_shape *s, const td_dsp_stored *w,
                                             const int8_t *x, int8_t *y)
{
    const td_dsp_dot_shape *const dot = &s->rows.dot;
    for (int32_t row = 0; row < s->rows.rows; row++) {
        const uint32_t rest = td_dsp_rest(x, s->rows.inputs & ~3, s->rows.inputs);
        for (int32_t o = 0; o < dot->outputs; o += 2) {
            int32_t narrow = w->bias[o + 1];
            int32_t wide = (int32_t)(((uint32_t)w->bias[o] << 8) + (uint32_t)narrow);
            td_dsp_formed_pair(s, w, x, rest, o / 2, &wide, &narrow);
            y[o] = td_dsp_output_a(wide, narrow, dot->common ? dot->scale : td_dsp_scale_of(&s->fields, w, o, &dot->out),
                                   &dot->out);
            if (o + 1 < dot->outputs) {
                y[o + 1] = td_dsp_output_b(
                    narrow, dot->common ? dot->scale : td_dsp_scale_of(&s->fields, w, o + 1, &dot->out), &dot->out);
            }
        }
        x += s->rows.inputs;
        y += dot->outputs;
    }
}

#endif
