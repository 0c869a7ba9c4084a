/* DEPTHWISE_CONV_2D 3x3 on the DSP extension. Four channels at a time are sorted into four planes of int16,
 * so that one word holds two neighbouring columns of a channel, and SMLAD multiplies two taps. The weights
 * of a channel stay in six registers for a whole band of rows. */
#ifndef TD_KERNELS_DSP_DEPTHWISE_H
#define TD_KERNELS_DSP_DEPTHWISE_H

#include "td_kernels_dsp.h"

/* `band` output rows are made from one filling of the planes; a plane's row has `words` words, with the
 * zero point where the window leaves the input. A band of all rows makes it possible to write over the
 * input: a block's channels are all read before they are written. */
typedef struct {
    int32_t images, in_h, in_w, in_c, out_h, out_w;
    int32_t stride_h, stride_w, pad_top, pad_left;
    int32_t in_zero_point;
    int32_t band, words;
    td_dsp_output out;
} td_dsp_depthwise_shape;

/* A kernel row as (w0, w1) and (w1, w2), doubled. */
typedef struct {
    uint32_t first, second;
} td_dsp_taps;

/* The constants of a channel, seven words of the stream: three kernel rows as bytes w0 w1 w1 w2, twice the
 * bias, multiplier, offset and shift. */
enum { TD_DSP_CHANNEL_WORDS = 7 };

static TD_INLINE td_dsp_taps td_dsp_unpack_taps(int32_t packed)
{
    const uint32_t first = td_even_bytes((uint32_t)packed);
    const uint32_t second = td_odd_bytes((uint32_t)packed);
    return (td_dsp_taps){ td_add_halves(first, first), td_add_halves(second, second) };
}

/* Two columns of four channels become one word in each of four planes, `plane` words apart. */
static TD_INLINE void td_dsp_sort_columns(uint32_t left, uint32_t right, int32_t plane, int32_t *to)
{
    const uint32_t low = td_pack_low(left, right);
    const uint32_t high = td_pack_high(left, right);
    to[0] = (int32_t)td_even_bytes(low);
    to[plane] = (int32_t)td_odd_bytes(low);
    to[2 * plane] = (int32_t)td_even_bytes(high);
    to[3 * plane] = (int32_t)td_odd_bytes(high);
}

/* A word at either end of a row, where a column may be outside. */
static TD_INLINE void td_dsp_sort_border(const td_dsp_depthwise_shape *s, const int8_t *x, int32_t word,
                                         uint32_t zero, int32_t plane, int32_t *to)
{
    const int32_t column = 2 * word - s->pad_left;
    const uint32_t left = column >= 0 && column < s->in_w ? td_load_word(x + column * s->in_c) : zero;
    const uint32_t right =
        column >= -1 && column + 1 < s->in_w ? td_load_word(x + (column + 1) * s->in_c) : zero;
    td_dsp_sort_columns(left, right, plane, to + word);
}

static TD_INLINE void td_dsp_sort_row(const td_dsp_depthwise_shape *s, const int8_t *x, uint32_t zero,
                                      int32_t plane, int32_t *to)
{
    const int32_t first = (s->pad_left + 1) / 2;
    const int32_t inside = (s->in_w + s->pad_left) / 2;
    const int32_t last = inside < s->words ? inside : s->words;
    for (int32_t word = 0; word < first; word++) {
        td_dsp_sort_border(s, x, word, zero, plane, to);
    }
    const int8_t *from = x + (2 * first - s->pad_left) * s->in_c;
    for (int32_t word = first; word < last; word++) {
        td_dsp_sort_columns(td_load_word(from), td_load_word(from + s->in_c), plane, to + word);
        from += 2 * s->in_c;
    }
    for (int32_t word = last > first ? last : first; word < s->words; word++) {
        td_dsp_sort_border(s, x, word, zero, plane, to);
    }
}

/* Fills the planes with the rows that `rows` output rows from `oy` on see. */
static TD_INLINE void td_dsp_sort_band(const td_dsp_depthwise_shape *s, const int8_t *x, int32_t oy,
                                       int32_t rows, int32_t plane, int32_t *to)
{
    const uint32_t zero = ((uint32_t)s->in_zero_point & 0xffu) * 0x01010101u;
    const int32_t top = oy * s->stride_h - s->pad_top;
    const int32_t bottom = top + (rows - 1) * s->stride_h + 3;
    for (int32_t row = top; row < bottom; row++) {
        if (row >= 0 && row < s->in_h) {
            td_dsp_sort_row(s, x + row * s->in_w * s->in_c, zero, plane, to);
        } else {
            for (int32_t word = 0; word < s->words; word++) {
                td_dsp_sort_columns(zero, zero, plane, to + word);
            }
        }
        to += s->words;
    }
}

/* One output channel of `rows` output rows. */
static TD_INLINE void td_dsp_depthwise_plane(const td_dsp_depthwise_shape *s, const int32_t *constants,
                                             const int32_t *plane, int32_t rows, int8_t *y)
{
    const td_dsp_taps t0 = td_dsp_unpack_taps(constants[0]);
    const td_dsp_taps t1 = td_dsp_unpack_taps(constants[1]);
    const td_dsp_taps t2 = td_dsp_unpack_taps(constants[2]);
    const int32_t bias = constants[3];
    const td_dsp_scale scale = { constants[4], constants[5], constants[6] };
    const int32_t pairs = s->stride_w == 1 ? s->out_w / 2 : 0;
    const int32_t pitch = s->words;
    for (int32_t row = 0; row < rows; row++) {
        const int32_t *p = plane;
        const int8_t *const end = y + 2 * pairs * s->in_c;
        while (y < end) {
            int32_t a = bias;
            int32_t b = bias;
            uint32_t left = (uint32_t)p[0];
            uint32_t right = (uint32_t)p[1];
            a = td_smlad(left, t0.first, a);
            b = td_smlatb(left, t0.first, b);
            a = td_smlabt(right, t0.second, a);
            b = td_smlad(right, t0.second, b);
            left = (uint32_t)p[pitch];
            right = (uint32_t)p[pitch + 1];
            a = td_smlad(left, t1.first, a);
            b = td_smlatb(left, t1.first, b);
            a = td_smlabt(right, t1.second, a);
            b = td_smlad(right, t1.second, b);
            left = (uint32_t)p[2 * pitch];
            right = (uint32_t)p[2 * pitch + 1];
            a = td_smlad(left, t2.first, a);
            b = td_smlatb(left, t2.first, b);
            a = td_smlabt(right, t2.second, a);
            b = td_smlad(right, t2.second, b);
            y[0] = td_dsp_requantize(a, scale, &s->out);
            y[s->in_c] = td_dsp_requantize(b, scale, &s->out);
            y += 2 * s->in_c;
            p++;
        }
        for (int32_t i = 2 * pairs; i < s->out_w; i++) {
            int32_t a = bias;
            a = td_smlad((uint32_t)p[0], t0.first, a);
            a = td_smlabt((uint32_t)p[1], t0.second, a);
            a = td_smlad((uint32_t)p[pitch], t1.first, a);
            a = td_smlabt((uint32_t)p[pitch + 1], t1.second, a);
            a = td_smlad((uint32_t)p[2 * pitch], t2.first, a);
            a = td_smlabt((uint32_t)p[2 * pitch + 1], t2.second, a);
            y[0] = td_dsp_requantize(a, scale, &s->out);
            y += s->in_c;
            p++;
        }
        plane += s->stride_h * pitch;
    }
}

/* `scratch` holds four planes of (band - 1) * stride_h + 3 rows; in_c is a multiple of 4. */
static TD_INLINE void td_dsp_depthwise(const td_dsp_depthwise_shape *s, const int32_t *weights, const int8_t *x,
                                       int8_t *y, int8_t *scratch)
{
    int32_t *const planes = (int32_t *)(void *)scratch;
    const int32_t size = ((s->band - 1) * s->stride_h + 3) * s->words;
    for (int32_t image = 0; image < s->images; image++) {
        for (int32_t c = 0; c < s->in_c; c += 4) {
            for (int32_t oy = 0; oy < s->out_h; oy += s->band) {
                const int32_t left = s->out_h - oy;
                const int32_t rows = s->out_h % s->band && left < s->band ? left : s->band;
                td_dsp_sort_band(s, x + c, oy, rows, size, planes);
                for (int32_t i = 0; i < 4; i++) {
                    td_dsp_depthwise_plane(s, weights + (c + i) * TD_DSP_CHANNEL_WORDS, planes + i * size, rows,
                                           y + oy * s->out_w * s->in_c + c + i);
                }
            }
        }
        x += s->in_h * s->in_w * s->in_c;
        y += s->out_h * s->out_w * s->in_c;
    }
}

#endif
