/* CONV_2D and FULLY_CONNECTED on the DSP extension: the inputs of four output pixels are widened to int16
 * once and used for all output channels. Pixels are made in the order in which they stand, so the output may
 * lie over the input where it starts so far before it that nothing is written before it was read. */
#ifndef TD_KERNELS_DSP_CONV_H
#define TD_KERNELS_DSP_CONV_H

#include "td_kernels_dsp_dot.h"

typedef struct {
    int32_t rows, inputs;
    td_dsp_dot_shape dot;
} td_dsp_rows_shape;

/* Rows of `inputs` values, one after the other: FULLY_CONNECTED, and CONV_2D of 1x1 without a stride.
 * `lanes` holds 4 * dot.words words, or dot.words where there are fewer than four rows. */
static TD_INLINE void td_dsp_rows(const td_dsp_rows_shape *s, const int32_t *weights, const int8_t *x, int8_t *y,
                                  int8_t *scratch)
{
    int32_t *const lanes = (int32_t *)(void *)scratch;
    int32_t row = 0;
    for (; row + 4 <= s->rows; row += 4) {
        td_dsp_widen_4(x, s->inputs, s->inputs, lanes);
        td_dsp_dot(&s->dot, 4, lanes, weights, y);
        x += 4 * s->inputs;
        y += 4 * s->dot.pitch;
    }
    for (; s->rows % 4 && row < s->rows; row++) {
        td_dsp_widen(x, s->inputs, 1, lanes);
        td_dsp_dot(&s->dot, 1, lanes, weights, y);
        x += s->inputs;
        y += s->dot.pitch;
    }
}

typedef struct {
    int32_t images, in_h, in_w, in_c, out_h, out_w;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t in_zero_point;
    int32_t padded; /* 1 where some window reaches outside the input */
    td_dsp_dot_shape dot;
} td_dsp_conv_2d_shape;

/* `count` bytes, at least 4, at any two addresses; the last word overlaps the one before it. */
static TD_INLINE void td_dsp_copy(int8_t *to, const int8_t *from, int32_t count)
{
    for (int32_t i = 0; i + 4 <= count; i += 4) {
        td_store_word(to + i, td_load_word(from + i));
    }
    if (count % 4) {
        td_store_word(to + count - 4, td_load_word(from + count - 4));
    }
}

static TD_INLINE void td_dsp_copy_or_fill(int8_t *to, const int8_t *from, int32_t count, int32_t inside,
                                          int32_t fill)
{
    for (int32_t i = 0; i < count; i++) {
        to[i] = inside ? from[i] : (int8_t)fill;
    }
}

/* The window at (iy, ix) as bytes, row by row, with the zero point where it is outside. */
static TD_INLINE void td_dsp_gather(const td_dsp_conv_2d_shape *s, const int8_t *x, int32_t iy,
                                    int32_t ix, int8_t *to)
{
    const int32_t run = s->kernel_w * s->in_c;
    const int32_t inside = !s->padded || (ix >= 0 && ix + (s->kernel_w - 1) * s->dilation_w < s->in_w);
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        const int32_t row = iy + ky * s->dilation_h;
        const int32_t row_inside = !s->padded || (row >= 0 && row < s->in_h);
        if (inside && row_inside && s->dilation_w == 1 && run >= 4) {
            td_dsp_copy(to, x + (row * s->in_w + ix) * s->in_c, run);
            to += run;
            continue;
        }
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            const int32_t column = ix + kx * s->dilation_w;
            const int32_t both = row_inside && column >= 0 && column < s->in_w;
            td_dsp_copy_or_fill(to, both ? x + (row * s->in_w + column) * s->in_c : x, s->in_c,
                                both, s->in_zero_point);
            to += s->in_c;
        }
    }
}

static TD_INLINE int32_t *td_dsp_fill(int32_t count, int32_t stride, uint32_t both, int32_t *to)
{
    for (int32_t i = 0; i < count; i += 2) {
        *to = (int32_t)both;
        to += stride;
    }
    return to;
}

/* The window at (iy, ix) as lanes, `stride` words apart; in_c is a multiple of 4. */
static TD_INLINE void td_dsp_widen_window(const td_dsp_conv_2d_shape *s, const int8_t *x, int32_t iy,
                                          int32_t ix, int32_t stride, int32_t *to)
{
    const int32_t run = s->kernel_w * s->in_c;
    const uint32_t zero = td_pack_low((uint32_t)s->in_zero_point, (uint32_t)s->in_zero_point);
    const int32_t inside = !s->padded || (ix >= 0 && ix + (s->kernel_w - 1) * s->dilation_w < s->in_w);
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        const int32_t row = iy + ky * s->dilation_h;
        if (s->padded && (row < 0 || row >= s->in_h)) {
            to = td_dsp_fill(run, stride, zero, to);
        } else if (inside && s->dilation_w == 1) {
            td_dsp_widen(x + (row * s->in_w + ix) * s->in_c, run, stride, to);
            to += run / 2 * stride;
        } else {
            for (int32_t kx = 0; kx < s->kernel_w; kx++) {
                const int32_t column = ix + kx * s->dilation_w;
                if (column < 0 || column >= s->in_w) {
                    to = td_dsp_fill(s->in_c, stride, zero, to);
                } else {
                    td_dsp_widen(x + (row * s->in_w + column) * s->in_c, s->in_c, stride, to);
                    to += s->in_c / 2 * stride;
                }
            }
        }
    }
}

/* One window of `stride` (4, or 1 for a single one) side by side: lanes straight from the input where a
 * pixel's channels are whole words, else by way of `bytes`. */
static TD_INLINE void td_dsp_window(const td_dsp_conv_2d_shape *s, const int8_t *x, int32_t pixel,
                                    int32_t stride, int32_t *to, int8_t *bytes)
{
    const int32_t oy = pixel / s->out_w;
    const int32_t ox = pixel - oy * s->out_w;
    const int32_t iy = oy * s->stride_h - s->pad_top;
    const int32_t ix = ox * s->stride_w - s->pad_left;
    if (s->in_c % 4 == 0) {
        td_dsp_widen_window(s, x, iy, ix, stride, to);
    } else {
        td_dsp_gather(s, x, iy, ix, bytes);
        td_dsp_widen(bytes, s->kernel_h * s->kernel_w * s->in_c, stride, to);
    }
}

static TD_INLINE void td_dsp_conv_image(const td_dsp_conv_2d_shape *s, const int32_t *weights,
                                        const int8_t *x, int8_t *y, int32_t *lanes, int8_t *bytes)
{
    const int32_t pixels = s->out_h * s->out_w;
    int32_t pixel = 0;
    for (; pixel + 4 <= pixels; pixel += 4) {
        for (int32_t p = 0; p < 4; p++) {
            td_dsp_window(s, x, pixel + p, 4, lanes + p, bytes);
        }
        td_dsp_dot(&s->dot, 4, lanes, weights, y);
        y += 4 * s->dot.pitch;
    }
    for (; pixels % 4 && pixel < pixels; pixel++) {
        td_dsp_window(s, x, pixel, 1, lanes, bytes);
        td_dsp_dot(&s->dot, 1, lanes, weights, y);
        y += s->dot.pitch;
    }
}

/* Any convolution without groups. `scratch` holds 4 * dot.words words of lanes, or dot.words where an image
 * has fewer than four pixels; then, where in_c is no multiple of 4, the bytes of one window. */
static TD_INLINE void td_dsp_conv_2d(const td_dsp_conv_2d_shape *s, const int32_t *weights, const int8_t *x,
                                     int8_t *y, int8_t *scratch)
{
    const int32_t group = s->out_h * s->out_w >= 4 ? 4 : 1;
    int8_t *const bytes = scratch + 4 * group * s->dot.words;
    for (int32_t image = 0; image < s->images; image++) {
        td_dsp_conv_image(s, weights, x, y, (int32_t *)(void *)scratch, bytes);
        x += s->in_h * s->in_w * s->in_c;
        y += s->out_h * s->out_w * s->dot.pitch;
    }
}

#endif
