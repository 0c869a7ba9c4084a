/* Stored weights for the kernels of the DSP extension: unpacked into the very stream that those kernels read,
 * in working memory, once for all pixels.
 *
 * Four weights that stand together in a word of the stream have their fields side by side in the four bytes of
 * a word. As many of such words as fit lie over each other, each shifted by the width of a field; fields of 3,
 * 5, 6 or 7 bits are parts of 4, 2 and 1 bits, and the words of each part follow those of the part before. */
#ifndef TD_KERNELS_DSP_STORED_H
#define TD_KERNELS_DSP_STORED_H

#include "td_kernels_dsp_conv.h"

/* `words` words of four fields of `bits` bits, 1 to 7; a field stands for step * field + low, or for an entry
 * of the table; step is 2 for fields of one bit only. `zero_point` is that of the output, `channel_step` 1 for a scale of each channel and 0 for a common one. */
typedef struct {
    int32_t bits, step, low, words, zero_point, channel_step;
} td_dsp_fields;

/* Bias and scales as they come, for each channel; multiplier and shift are not read where they are common. */
typedef struct {
    const int32_t *fields;
    const int8_t *table; /* of a codebook, else NULL */
    const int32_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
    const int8_t *target; /* in the place of zero_point; NULL where no channel has another one */
} td_dsp_stored;

/* Two words of fields, number `i` and i + 1; `i` is even. */
typedef struct {
    uint32_t first, second;
} td_dsp_two_words;

static TD_INLINE td_dsp_two_words td_dsp_fields_at(const td_dsp_fields *f, const int32_t *parts, int32_t i)
{
    td_dsp_two_words v = { 0, 0 };
    if (f->bits & 4) {
        const uint32_t part = (uint32_t)parts[i >> 1];
        v.first = part & 0x0f0f0f0fu;
        v.second = part >> 4 & 0x0f0f0f0fu;
        parts += (f->words + 1) / 2;
    }
    if (f->bits & 2) {
        const uint32_t part = (uint32_t)parts[i >> 2] >> (2 * (i & 3));
        v.first |= (part & 0x03030303u) << (f->bits & 4);
        v.second |= (part >> 2 & 0x03030303u) << (f->bits & 4);
        parts += (f->words + 3) / 4;
    }
    if (f->bits & 1) {
        const uint32_t part = (uint32_t)parts[i >> 3] >> (i & 7);
        v.first |= (part & 0x01010101u) << (f->bits & 6);
        v.second |= (part >> 1 & 0x01010101u) << (f->bits & 6);
    }
    return v;
}

/* Four fields, each of which is at most 127, as the weights in the bytes of a word. */
static TD_INLINE uint32_t td_dsp_weights_of(const td_dsp_fields *f, const int8_t *table, uint32_t fields)
{
    if (table == NULL) {
        fields *= (uint32_t)f->step;
        /* Bytes are added one by one: the carry out of seven bits is the sum of the eighth ones. */
        const uint32_t low = (uint32_t)(uint8_t)f->low * 0x01010101u;
        return ((fields & 0x7f7f7f7fu) + (low & 0x7f7f7f7fu)) ^ ((fields ^ low) & 0x80808080u);
    }
    return (uint32_t)(uint8_t)table[fields & 0xffu] | (uint32_t)(uint8_t)table[fields >> 8 & 0xffu] << 8 |
           (uint32_t)(uint8_t)table[fields >> 16 & 0xffu] << 16 | (uint32_t)(uint8_t)table[fields >> 24] << 24;
}

/* The same as two lanes: 256 times the second byte plus the first one, and of the fourth and the third. */
static TD_INLINE uint32_t td_dsp_lanes_of(const td_dsp_fields *f, const int8_t *table, uint32_t fields)
{
    if (table == NULL) {
        const uint32_t low = (uint32_t)(257 * f->low) & 0xffffu;
        return td_add_halves(fields * (uint32_t)f->step, low | low << 16);
    }
    const int32_t first = 256 * table[fields >> 8 & 0xffu] + table[fields & 0xffu];
    const int32_t second = 256 * table[fields >> 24] + table[fields >> 16 & 0xffu];
    return ((uint32_t)first & 0xffffu) | (uint32_t)second << 16;
}

static TD_INLINE void td_dsp_unpack_lanes(const td_dsp_fields *f, const td_dsp_stored *w, int32_t first,
                                          int32_t count, int32_t *to)
{
    for (int32_t i = first; i < first + count; i += 2) {
        const td_dsp_two_words v = td_dsp_fields_at(f, w->fields, i);
        *to++ = (int32_t)td_dsp_lanes_of(f, w->table, v.first);
        *to++ = (int32_t)td_dsp_lanes_of(f, w->table, v.second);
    }
}

/* The scale of a channel as td_dsp_requantize takes it. */
static TD_INLINE td_dsp_scale td_dsp_scale_of(const td_dsp_fields *f, const td_dsp_stored *w, int32_t channel,
                                              const td_dsp_output *out)
{
    const int32_t multiplier = w->multiplier[channel * f->channel_step];
    const int32_t shift = w->shift[channel * f->channel_step];
    const int32_t target = w->target == NULL ? f->zero_point : w->target[channel * f->channel_step];
    if (out->way == TD_DSP_ANY || out->way == TD_DSP_MIXED) {
        return (td_dsp_scale){ multiplier, target, shift };
    }
    const int32_t half = (int32_t)((uint32_t)1 << (shift - 1));
    return (td_dsp_scale){ multiplier, (2 * target + 1) * half, shift };
}

static TD_INLINE int32_t *td_dsp_put_scale(td_dsp_scale scale, int32_t *to)
{
    to[0] = scale.multiplier;
    to[1] = scale.offset;
    to[2] = scale.shift;
    return to + 3;
}

/* The stream of td_dsp_dot for the channel pairs from number `first` on. */
static TD_INLINE void td_dsp_unpack_pairs(const td_dsp_dot_shape *s, const td_dsp_fields *f,
                                          const td_dsp_stored *w, int32_t first, int32_t pairs, int32_t *to)
{
    for (int32_t pair = first; pair < first + pairs; pair++) {
        const int32_t bias = w->bias[2 * pair + 1];
        to[0] = (int32_t)(((uint32_t)w->bias[2 * pair] << 8) + (uint32_t)bias);
        to[1] = bias;
        td_dsp_unpack_lanes(f, w, pair * s->words, s->words, to + 2);
        to += 2 + s->words;
        if (!s->common) {
            to = td_dsp_put_scale(td_dsp_scale_of(f, w, 2 * pair, &s->out), to);
            to = td_dsp_put_scale(td_dsp_scale_of(f, w, 2 * pair + 1, &s->out), to);
        }
    }
}

#endif
