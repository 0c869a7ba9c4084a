/* DEPTHWISE_CONV_2D with stored weights on the DSP extension: the whole stream of constants is unpacked first. */
#ifndef TD_KERNELS_DSP_FORMS_DEPTHWISE_H
#define TD_KERNELS_DSP_FORMS_DEPTHWISE_H

#include "td_kernels_dsp_depthwise.h"
#include "td_kernels_dsp_stored.h"
#include "td_kernels_dsp_taps.h"

/* A word of fields has one tap of four channels; an odd number of taps has one more that is not used. */
typedef struct {
    td_dsp_depthwise_shape depthwise;
    td_dsp_fields fields;
} td_dsp_formed_depthwise_shape;

enum { TD_DSP_NINE_TAPS = 10 };

/* Tap number `tap` of the channel whose byte begins at bit `at`. */
static TD_INLINE uint32_t td_dsp_tap_of(const uint32_t *taps, int32_t tap, int32_t at)
{
    return taps[tap] >> at & 0xffu;
}

/* The stream of td_dsp_depthwise for four channels from `channel` on; `from` is their first word of fields. */
static TD_INLINE void td_dsp_unpack_planes(const td_dsp_formed_depthwise_shape *s, const td_dsp_stored *w, int32_t from,
                                           int32_t channel, int32_t *to)
{
    uint32_t taps[TD_DSP_NINE_TAPS];
    for (int32_t tap = 0; tap < TD_DSP_NINE_TAPS; tap += 2) {
        const td_dsp_two_words v = td_dsp_fields_at(&s->fields, w->fields, from + tap);
        taps[tap] = td_dsp_weights_of(&s->fields, w->table, v.first);
        taps[tap + 1] = td_dsp_weights_of(&s->fields, w->table, v.second);
    }
    for (int32_t i = 0; i < 4; i++) {
        for (int32_t row = 0; row < 3; row++) {
            const uint32_t middle = td_dsp_tap_of(taps, 3 * row + 1, 8 * i);
            *to++ = (int32_t)(td_dsp_tap_of(taps, 3 * row, 8 * i) | middle << 8 | middle << 16 |
                              td_dsp_tap_of(taps, 3 * row + 2, 8 * i) << 24);
        }
        *to++ = 2 * w->bias[channel + i];
        to = td_dsp_put_scale(td_dsp_scale_of(&s->fields, w, channel + i, &s->depthwise.out), to);
    }
}

/* td_dsp_depthwise. `scratch` holds the seven words of each channel, and behind them the planes. */
static TD_INLINE void td_dsp_formed_depthwise(const td_dsp_formed_depthwise_shape *s, const td_dsp_stored *w,
                                              const int8_t *x, int8_t *y, int8_t *scratch)
{
    int32_t *const stream = (int32_t *)(void *)scratch;
    const int32_t channels = s->depthwise.in_c;
    for (int32_t next = 0; next < channels; next += 4) {
        const int32_t c = next <= channels - 4 ? next : channels - 4;
        td_dsp_unpack_planes(s, w, next / 4 * TD_DSP_NINE_TAPS, c, stream + c * TD_DSP_CHANNEL_WORDS);
    }
    td_dsp_depthwise(&s->depthwise, stream, x, y, scratch + 4 * channels * TD_DSP_CHANNEL_WORDS);
}

typedef struct {
    td_dsp_taps_shape taps;
    td_dsp_fields fields;
} td_dsp_formed_depthwise_taps_shape;

/* The stream of td_dsp_depthwise_taps for four channels, likewise. */
static TD_INLINE void td_dsp_unpack_block(const td_dsp_formed_depthwise_taps_shape *s, const td_dsp_stored *w, int32_t from,
                                         int32_t channel, int32_t *to)
{
    const int32_t taps = s->taps.kernel_h * s->taps.kernel_w;
    for (int32_t i = 0; i < 4; i++) {
        to[i] = 2 * w->bias[channel + i];
        td_dsp_put_scale(td_dsp_scale_of(&s->fields, w, channel + i, &s->taps.out), to + 4 + 3 * i);
    }
    to += 16;
    for (int32_t tap = 0; tap < taps; tap++) {
        const td_dsp_two_words v = td_dsp_fields_at(&s->fields, w->fields, from + (tap & ~1));
        const uint32_t four = td_dsp_weights_of(&s->fields, w->table, tap & 1 ? v.second : v.first);
        const uint32_t even = td_even_bytes(four);
        const uint32_t odd = td_odd_bytes(four);
        *to++ = (int32_t)td_add_halves(even, even);
        *to++ = (int32_t)td_add_halves(odd, odd);
    }
}

/* td_dsp_depthwise_taps. `scratch` holds 16 words and two for each tap, for every four channels. */
static TD_INLINE void td_dsp_formed_depthwise_taps(const td_dsp_formed_depthwise_taps_shape *s, const td_dsp_stored *w,
                                                   const int8_t *x, int8_t *y, int8_t *scratch)
{
    int32_t *const stream = (int32_t *)(void *)scratch;
    const int32_t channels = s->taps.in_c;
    const int32_t taps = s->taps.kernel_h * s->taps.kernel_w;
    for (int32_t next = 0; next < channels; next += 4) {
        const int32_t c = next <= channels - 4 ? next : channels - 4;
        td_dsp_unpack_block(s, w, next / 4 * ((taps + 1) & ~1), c, stream + next / 4 * (16 + 2 * taps));
    }
    td_dsp_depthwise_taps(&s->taps, stream, x, y);
}

#endif
