/* CONV_2D and FULLY_CONNECTED of several rows for cores without a long multiplication, six pixels at a time. */
#ifndef TD_KERNELS_TRIO_CONV_H
#define TD_KERNELS_TRIO_CONV_H

#include "td_kernels_trio_dot.h"

/* Pixels that stand in the order in which they are read: 1x1 convolutions, fully connected layers. */
typedef struct {
    int32_t rows, inputs;
    td_trio_dot_shape dot;
} td_trio_rows_shape;

/* The lanes of rows `first` to `first` + 2; rows that are not there repeat the last one. */
static TD_INLINE void td_trio_widen_rows(const td_trio_rows_shape *s, const int8_t *x, int32_t first,
                                         int32_t last, uint32_t *lanes)
{
    const int8_t *const x0 = x + (first < last ? first : last) * s->inputs;
    const int8_t *const x1 = x + (first + 1 < last ? first + 1 : last) * s->inputs;
    const int8_t *const x2 = x + (first + 2 < last ? first + 2 : last) * s->inputs;
    td_trio_widen(x0, x1, x2, s->inputs, lanes);
}

static TD_INLINE void td_trio_rows(const td_trio_rows_shape *s, const int32_t *w, const int8_t *x, int8_t *y,
                                   int8_t *scratch)
{
    uint32_t *const lanes = (uint32_t *)(void *)scratch;
    td_trio_fill(&s->dot, s->inputs, lanes);
    for (int32_t row = 0; row < s->rows; row += TD_TRIO_PIXELS) {
        const int32_t left = s->rows - row;
        const int32_t pixels = left < TD_TRIO_PIXELS ? left : TD_TRIO_PIXELS;
        td_trio_widen_rows(s, x, 0, pixels - 1, lanes);
        td_trio_widen_rows(s, x, 3, pixels - 1, lanes + 2);
        td_trio_dot(&s->dot, pixels, lanes, w, y);
        x += pixels * s->inputs;
        y += pixels * s->dot.outputs;
    }
}

typedef struct {
    int32_t images, in_h, in_w, in_c, out_h, out_w;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t in_zero_point;
    int32_t padded; /* 1 where some window reaches outside the input */
    td_trio_dot_shape dot;
} td_trio_conv_2d_shape;

/* A row of a window at (iy, ix): in the input, where it stands there as one run, or copied to `edge`. */
static TD_INLINE const int8_t *td_trio_run(const td_trio_conv_2d_shape *s, const int8_t *x, int32_t iy,
                                           int32_t ix, int8_t *edge)
{
    const int32_t reach = (s->kernel_w - 1) * s->dilation_w;
    const int32_t inside = !s->padded || (iy >= 0 && iy < s->in_h);
    if ((s->dilation_w == 1 || s->kernel_w == 1) && inside && (!s->padded || (ix >= 0 && ix + reach < s->in_w))) {
        return x + (iy * s->in_w + ix) * s->in_c;
    }
    int8_t *to = edge;
    for (int32_t kx = 0; kx < s->kernel_w; kx++) {
        const int32_t column = ix + kx * s->dilation_w;
        const int32_t there = inside && (!s->padded || (column >= 0 && column < s->in_w));
        const int8_t *const from = there ? x + (iy * s->in_w + column) * s->in_c : NULL;
        for (int32_t c = 0; c < s->in_c; c++) {
            to[c] = there ? from[c] : (int8_t)s->in_zero_point;
        }
        to += s->in_c;
    }
    return edge;
}

/* The lanes of pixels `first` to `first` + 2 of an image; pixels that are not there repeat the last one. */
static TD_INLINE void td_trio_gather(const td_trio_conv_2d_shape *s, const int8_t *x, int32_t first,
                                     int8_t *edges, uint32_t *lanes)
{
    const int32_t run = s->kernel_w * s->in_c;
    int32_t iy[3], ix[3];
    for (int32_t p = 0; p < 3; p++) {
        const int32_t last = s->out_h * s->out_w - 1;
        const int32_t pixel = first + p < last ? first + p : last;
        iy[p] = pixel / s->out_w * s->stride_h - s->pad_top;
        ix[p] = pixel % s->out_w * s->stride_w - s->pad_left;
    }
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        const int8_t *runs[3];
        for (int32_t p = 0; p < 3; p++) {
            runs[p] = td_trio_run(s, x, iy[p] + ky * s->dilation_h, ix[p], edges + p * run);
        }
        td_trio_widen(runs[0], runs[1], runs[2], run, lanes);
        lanes += TD_TRIO_WORDS * run;
    }
}

/* `scratch` holds the lanes, then three runs of kernel_w * in_c values. */
static TD_INLINE void td_trio_conv_2d(const td_trio_conv_2d_shape *s, const int32_t *w, const int8_t *x,
                                      int8_t *y, int8_t *scratch)
{
    uint32_t *const lanes = (uint32_t *)(void *)scratch;
    int8_t *const edges = scratch + 4 * TD_TRIO_WORDS * s->dot.steps * s->dot.segments;
    const int32_t count = s->out_h * s->out_w;
    td_trio_fill(&s->dot, s->kernel_h * s->kernel_w * s->in_c, lanes);
    for (int32_t image = 0; image < s->images; image++) {
        for (int32_t pixel = 0; pixel < count; pixel += TD_TRIO_PIXELS) {
            const int32_t pixels = count - pixel < TD_TRIO_PIXELS ? count - pixel : TD_TRIO_PIXELS;
            td_trio_gather(s, x, pixel, edges, lanes);
            td_trio_gather(s, x, pixel + 3, edges, lanes + 2);
            td_trio_dot(&s->dot, pixels, lanes, w, y);
            y += pixels * s->dot.outputs;
        }
        x += s->in_h * s->in_w * s->in_c;
    }
}

#endif
