/* DEPTHWISE_CONV_2D 3x3 on the DSP extension. Four channels at a time are sorted into four planes of int16,
 * so that one word holds two neighbouring columns of a channel, and SMLAD multiplies two taps. The weights
 * of a channel stay in six registers for a whole band of rows. */
#ifndef TD_KERNELS_DSP_DEPTHWISE_H
#define TD_KERNELS_DSP_DEPTHWISE_H

#include "td_kernels_dsp.h"

/* `band` output rows are made from one filling of the planes; a plane's row has `words` words, with the
 * zero point where the window leaves the input. A band of all rows makes it possible to write over the
 * input in its place: a block's channels are all read before they are written. With other bands the output
 * may lie over the input where it starts so far before it that no band writes what is still to be read.
 * With `carried`, a block's channels are made over the whole image, and the planes keep the two rows that
 * the next band sees again: any band may then write over the input in its place. */
typedef struct {
    int32_t images, in_h, in_w, in_c, out_h, out_w;
    int32_t stride_h, stride_w, pad_top, pad_left;
    int32_t in_zero_point;
    int32_t band, words;
    int32_t carried; /* for a stride of 1 */
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

/* Fills the planes with the rows from `top` on, which may be outside, to the one before `bottom`. */
static TD_INLINE void td_dsp_sort_rows(const td_dsp_depthwise_shape *s, const int8_t *x, int32_t top,
                                       int32_t bottom, int32_t plane, int32_t *to)
{
    const uint32_t zero = ((uint32_t)s->in_zero_point & 0xffu) * 0x01010101u;
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

/* Fills the planes with the rows that `rows` output rows from `oy` on see. */
static TD_INLINE void td_dsp_sort_band(const td_dsp_depthwise_shape *s, const int8_t *x, int32_t oy,
                                       int32_t rows, int32_t plane, int32_t *to)
{
    const int32_t top = oy * s->stride_h - s->pad_top;
    td_dsp_sort_rows(s, x, top, top + (rows - 1) * s->stride_h + 3, plane, to);
}

/* The accumulators of a run of up to five outputs. */
typedef struct {
    int32_t a0, a1, a2, a3, a4;
} td_dsp_run;

/* Adds one kernel row to a run of `count` outputs side by side. */
static TD_INLINE void td_dsp_add_row(td_dsp_run *run, int32_t count, const int32_t *p, td_dsp_taps t)
{
    const uint32_t p0 = (uint32_t)p[0];
    const uint32_t p1 = (uint32_t)p[1];
    run->a0 = td_smlad(p0, t.first, run->a0);
    run->a0 = td_smlabt(p1, t.second, run->a0);
    if (count > 1) {
        run->a1 = td_smlatb(p0, t.first, run->a1);
        run->a1 = td_smlad(p1, t.second, run->a1);
    }
    if (count > 2) {
        const uint32_t p2 = (uint32_t)p[2];
        run->a2 = td_smlad(p1, t.first, run->a2);
        run->a2 = td_smlabt(p2, t.second, run->a2);
        if (count > 3) {
            run->a3 = td_smlatb(p1, t.first, run->a3);
            run->a3 = td_smlad(p2, t.second, run->a3);
        }
        if (count > 4) {
            run->a4 = td_smlad(p2, t.first, run->a4);
            run->a4 = td_smlabt((uint32_t)p[3], t.second, run->a4);
        }
    }
}

/* The same for outputs two columns apart; `count` is at most 4. */
static TD_INLINE void td_dsp_add_row_by_two(td_dsp_run *run, int32_t count, const int32_t *p, td_dsp_taps t)
{
    const uint32_t p1 = (uint32_t)p[1];
    run->a0 = td_smlad((uint32_t)p[0], t.first, run->a0);
    run->a0 = td_smlabt(p1, t.second, run->a0);
    if (count > 1) {
        const uint32_t p2 = (uint32_t)p[2];
        run->a1 = td_smlad(p1, t.first, run->a1);
        run->a1 = td_smlabt(p2, t.second, run->a1);
        if (count > 2) {
            const uint32_t p3 = (uint32_t)p[3];
            run->a2 = td_smlad(p2, t.first, run->a2);
            run->a2 = td_smlabt(p3, t.second, run->a2);
            if (count > 3) {
                run->a3 = td_smlad(p3, t.first, run->a3);
                run->a3 = td_smlabt((uint32_t)p[4], t.second, run->a3);
            }
        }
    }
}

typedef struct {
    td_dsp_taps row0, row1, row2;
    int32_t bias;
    td_dsp_scale scale;
} td_dsp_channel;

static TD_INLINE void td_dsp_depthwise_run(const td_dsp_depthwise_shape *s, const td_dsp_channel *c,
                                           int32_t count, const int32_t *p, int8_t *y)
{
    td_dsp_run run = { c->bias, c->bias, c->bias, c->bias, c->bias };
    if (s->stride_w == 1) {
        td_dsp_add_row(&run, count, p, c->row0);
        td_dsp_add_row(&run, count, p + s->words, c->row1);
        td_dsp_add_row(&run, count, p + 2 * s->words, c->row2);
    } else {
        td_dsp_add_row_by_two(&run, count, p, c->row0);
        td_dsp_add_row_by_two(&run, count, p + s->words, c->row1);
        td_dsp_add_row_by_two(&run, count, p + 2 * s->words, c->row2);
    }
    y[0] = td_dsp_requantize(run.a0, c->scale, &s->out);
    if (count > 1) {
        y[s->in_c] = td_dsp_requantize(run.a1, c->scale, &s->out);
    }
    if (count > 2) {
        y[2 * s->in_c] = td_dsp_requantize(run.a2, c->scale, &s->out);
    }
    if (count > 3) {
        y[3 * s->in_c] = td_dsp_requantize(run.a3, c->scale, &s->out);
    }
    if (count > 4) {
        y[4 * s->in_c] = td_dsp_requantize(run.a4, c->scale, &s->out);
    }
}

/* One output channel of `rows` output rows: runs of four, and a last one of up to five. */
static TD_INLINE void td_dsp_depthwise_plane(const td_dsp_depthwise_shape *s, const int32_t *constants,
                                             const int32_t *plane, int32_t rows, int8_t *y)
{
    const td_dsp_channel c = { td_dsp_unpack_taps(constants[0]),
                               td_dsp_unpack_taps(constants[1]),
                               td_dsp_unpack_taps(constants[2]),
                               constants[3],
                               { constants[4], constants[5], constants[6] } };
    const int32_t five = s->stride_w == 1 && s->out_w % 4 == 1 && s->out_w > 1;
    const int32_t fours = s->out_w / 4 - five;
    const int32_t last = s->out_w - 4 * fours;
    const int32_t step = s->stride_w == 1 ? 2 : 4;
    for (int32_t row = 0; row < rows; row++) {
        const int32_t *p = plane;
        for (const int32_t *const end = plane + fours * step; p < end; p += step) {
            td_dsp_depthwise_run(s, &c, 4, p, y);
            y += 4 * s->in_c;
        }
        if (last > 0) {
            td_dsp_depthwise_run(s, &c, last, p, y);
            y += last * s->in_c;
        }
        plane += s->stride_h * s->words;
    }
}

/* The last two rows of the planes become the first two, and the rows that `rows` output rows from `oy` on
 * see for the first time follow. */
static TD_INLINE void td_dsp_carry_band(const td_dsp_depthwise_shape *s, const int8_t *x, int32_t oy,
                                        int32_t rows, int32_t plane, int32_t *to)
{
    for (int32_t i = 0; i < 4; i++) {
        int32_t *const first = to + i * plane;
        for (int32_t word = 0; word < 2 * s->words; word++) {
            first[word] = first[word + s->band * s->words];
        }
    }
    const int32_t next = oy - s->pad_top + 2;
    td_dsp_sort_rows(s, x, next, next + rows, plane, to + 2 * s->words);
}

/* Block by block over the whole image: only its own channels are overwritten while they are still read, and
 * those of the rows that are read again are in the planes. */
static TD_INLINE void td_dsp_depthwise_carried(const td_dsp_depthwise_shape *s, const int32_t *weights,
                                               const int8_t *x, int8_t *y, int32_t *planes)
{
    const int32_t size = (s->band + 2) * s->words;
    for (int32_t image = 0; image < s->images; image++) {
        for (int32_t next = 0; next < s->in_c; next += 4) {
            const int32_t c = next <= s->in_c - 4 ? next : s->in_c - 4;
            for (int32_t oy = 0; oy < s->out_h; oy += s->band) {
                const int32_t left = s->out_h - oy;
                const int32_t rows = s->out_h % s->band && left < s->band ? left : s->band;
                if (oy == 0) {
                    td_dsp_sort_band(s, x + c, oy, rows, size, planes);
                } else {
                    td_dsp_carry_band(s, x + c, oy, rows, size, planes);
                }
                for (int32_t i = next - c; i < 4; i++) {
                    td_dsp_depthwise_plane(s, weights + (c + i) * TD_DSP_CHANNEL_WORDS, planes + i * size, rows,
                                           y + oy * s->out_w * s->in_c + c + i);
                }
            }
        }
        x += s->in_h * s->in_w * s->in_c;
        y += s->out_h * s->out_w * s->in_c;
    }
}

/* `scratch` holds four planes of (band - 1) * stride_h + 3 rows; in_c is at least 4. */
static TD_INLINE void td_dsp_depthwise(const td_dsp_depthwise_shape *s, const int32_t *weights, const int8_t *x,
                                       int8_t *y, int8_t *scratch)
{
    int32_t *const planes = (int32_t *)(void *)scratch;
    if (s->carried) {
        td_dsp_depthwise_carried(s, weights, x, y, planes);
        return;
    }
    const int32_t size = ((s->band - 1) * s->stride_h + 3) * s->words;
    for (int32_t image = 0; image < s->images; image++) {
        for (int32_t oy = 0; oy < s->out_h; oy += s->band) {
            const int32_t left = s->out_h - oy;
            const int32_t rows = s->out_h % s->band && left < s->band ? left : s->band;
            for (int32_t next = 0; next < s->in_c; next += 4) {
                /* The last four channels may have some in them that are done; their planes are not used. */
                const int32_t c = next <= s->in_c - 4 ? next : s->in_c - 4;
                td_dsp_sort_band(s, x + c, oy, rows, size, planes);
                for (int32_t i = next - c; i < 4; i++) {
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
