/* DEPTHWISE_CONV_2D for cores without a long multiplication: three rows at a time, channel by channel.
 *
 * The output is split into three bands of rows. The inputs of a channel become a plane of trios, each with
 * the inputs that one place of the window meets in the three bands; borders hold the zero point.
 * The words of a channel are those of its requantization, then its weights, four in a word, the first in the
 * low byte. */
#ifndef TD_KERNELS_TRIO_DEPTHWISE_H
#define TD_KERNELS_TRIO_DEPTHWISE_H

#include "td_kernels_trio.h"

typedef struct {
    int32_t images, in_h, in_w, in_c, out_h, out_w;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t in_zero_point;
    int32_t padded;
    int32_t band; /* rows of each third of the output */
    int32_t part; /* rows of a band that are made with one filling of the plane */
    td_level_shape level;
} td_trio_depthwise_shape;

static TD_INLINE int32_t td_trio_columns(const td_trio_depthwise_shape *s)
{
    return (s->out_w - 1) * s->stride_w + (s->kernel_w - 1) * s->dilation_w + 1;
}

/* One row of the plane, for input row `top` of the first band; `x` is the channel. */
static TD_INLINE void td_trio_plane_row(const td_trio_depthwise_shape *s, const int8_t *x, int32_t top,
                                        td_trio *to)
{
    const int8_t zero = (int8_t)s->in_zero_point;
    const td_trio nothing = td_trio_of(zero, zero, zero);
    const int32_t pitch = s->in_w * s->in_c;
    const int32_t columns = td_trio_columns(s);
    const int8_t *from[3];
    int32_t step[3];
    for (int32_t lane = 0; lane < 3; lane++) {
        const int32_t row = top + lane * s->band * s->stride_h;
        const int32_t inside = row >= 0 && row < s->in_h;
        from[lane] = inside ? x + row * pitch : &zero;
        step[lane] = inside ? s->in_c : 0;
    }
    const int8_t *x0 = from[0], *x1 = from[1], *x2 = from[2];
    const td_trio *const end = to + columns;
    const int32_t left = s->pad_left < columns ? s->pad_left : columns;
    for (int32_t i = 0; i < left; i++) {
        *to++ = nothing;
    }
    const td_trio *const last = s->in_w < columns - left ? to + s->in_w : end;
    while (to < last) {
        *to++ = td_trio_of(*x0, *x1, *x2);
        x0 += step[0];
        x1 += step[1];
        x2 += step[2];
    }
    while (to < end) {
        *to++ = nothing;
    }
}

#define TD_TRIO_TAP(i)        \
    t.a += (uint32_t)w[i] * p[i].a; \
    t.b += (uint32_t)w[i] * p[i].b

/* The sums of one window, whose first place is `p`. */
static TD_INLINE td_trio td_trio_window(const td_trio_depthwise_shape *s, const td_trio *p, const int32_t *w)
{
    td_trio t = { TD_TRIO_A, TD_TRIO_B };
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        if (s->kernel_w == 3 && s->dilation_w == 1) {
            TD_TRIO_TAP(0);
            TD_TRIO_TAP(1);
            TD_TRIO_TAP(2);
            w += 3;
        } else {
            for (int32_t kx = 0; kx < s->kernel_w; kx++) {
                t.a += (uint32_t)*w * p[kx * s->dilation_w].a;
                t.b += (uint32_t)*w++ * p[kx * s->dilation_w].b;
            }
        }
        p += s->dilation_h * td_trio_columns(s);
    }
    return t;
}

/* Rows `first` to `last` of each band; `y` is the channel. */
static TD_INLINE void td_trio_bands(const td_trio_depthwise_shape *s, int32_t first, int32_t last,
                                    const td_trio *plane, const int32_t *scale, const int32_t *w, int8_t *y)
{
    for (int32_t row = first; row < last; row++) {
        /* The last band, or the last two, may have fewer rows. */
        const int32_t lanes = row + 2 * s->band < s->out_h ? 3 : row + s->band < s->out_h ? 2 : 1;
        const td_trio *p = plane + (row - first) * s->stride_h * td_trio_columns(s);
        int8_t *to = y + row * s->out_w * s->in_c;
        for (int32_t ox = 0; ox < s->out_w; ox++) {
            td_trio_sums sums = { 0, 0, 0 };
            td_trio_add(&sums, td_trio_window(s, p, w));
            td_trio_levels(&s->level, scale, &sums);
            td_trio_store(sums, lanes, s->band * s->out_w * s->in_c, to);
            p += s->stride_w;
            to += s->in_c;
        }
    }
}

/* `scratch` holds the weights of a channel as words, then the plane. */
static TD_INLINE void td_trio_depthwise(const td_trio_depthwise_shape *s, const int32_t *stream, const int8_t *x,
                                        int8_t *y, int8_t *scratch)
{
    const int32_t taps = s->kernel_h * s->kernel_w;
    int32_t *const w = (int32_t *)(void *)scratch;
    td_trio *const plane = (td_trio *)(void *)(w + taps);
    for (int32_t image = 0; image < s->images; image++) {
        const int32_t *from = stream;
        for (int32_t c = 0; c < s->in_c; c++) {
            const int32_t *const scale = from;
            from += td_level_words(&s->level);
            for (int32_t i = 0; i < taps; i++) {
                w[i] = (int8_t)(uint8_t)(from[i / 4] >> 8 * (i % 4));
            }
            from += (taps + 3) / 4;
            for (int32_t first = 0; first < s->band; first += s->part) {
                const int32_t last = first + s->part < s->band ? first + s->part : s->band;
                const int32_t rows = (last - first - 1) * s->stride_h + (s->kernel_h - 1) * s->dilation_h + 1;
                for (int32_t r = 0; r < rows; r++) {
                    td_trio_plane_row(s, x + c, first * s->stride_h - s->pad_top + r,
                                      plane + r * td_trio_columns(s));
                }
                td_trio_bands(s, first, last, plane, scale, w, y + c);
            }
        }
        x += s->in_h * s->in_w * s->in_c;
        y += s->out_h * s->out_w * s->in_c;
    }
}

#endif
