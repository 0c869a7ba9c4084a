/* DEPTHWISE_CONV_2D: each output channel sees one input channel. */
#ifndef TD_KERNELS_DEPTHWISE_H
#define TD_KERNELS_DEPTHWISE_H

#include "td_kernels.h"

typedef struct {
    int32_t images, in_h, in_w, in_c;
    int32_t out_h, out_w, multiplier; /* outputs = in_c * multiplier */
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t in_zero_point;
    int32_t padded;       /* 1 where some window reaches outside the input */
    int32_t channel_step; /* 1 for a requantization per output channel, 0 for a common one */
    td_output out;
} td_depthwise_shape;

/* The constants of the layer: weights as [row][column][output], bias with -zero_point * sum(weights). */
typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
} td_depthwise;

/* One output whose window lies inside the input. */
static TD_INLINE int32_t td_depthwise_inside(const td_depthwise_shape *s, const int8_t *x, const int8_t *w,
                                             int32_t acc)
{
    const int32_t outputs = s->in_c * s->multiplier;
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            acc += x[(ky * s->dilation_h * s->in_w + kx * s->dilation_w) * s->in_c] *
                   w[(ky * s->kernel_w + kx) * outputs];
        }
    }
    return acc;
}

/* One output whose window at (iy, ix) leaves the input: outside stands the zero point. */
static TD_INLINE int32_t td_depthwise_border(const td_depthwise_shape *s, const int8_t *x, const int8_t *w,
                                             int32_t acc, int32_t iy, int32_t ix)
{
    const int32_t outputs = s->in_c * s->multiplier;
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        const int32_t row = iy + ky * s->dilation_h;
        const int32_t row_inside = row >= 0 && row < s->in_h;
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            const int32_t column = ix + kx * s->dilation_w;
            const int32_t inside = row_inside && column >= 0 && column < s->in_w;
            const int32_t v = inside ? x[(row * s->in_w + column) * s->in_c] : s->in_zero_point;
            acc += v * w[(ky * s->kernel_w + kx) * outputs];
        }
    }
    return acc;
}

static TD_INLINE void td_depthwise_pixel(const td_depthwise_shape *s, const td_depthwise *layer,
                                         const int8_t *x, int8_t *y, int32_t iy, int32_t ix, int32_t inside)
{
    int32_t o = 0;
    const int8_t *origin = inside ? x + (iy * s->in_w + ix) * s->in_c : x;
    for (int32_t c = 0; c < s->in_c; c++) {
        for (int32_t k = 0; k < s->multiplier; k++) {
            const int32_t acc =
                inside ? td_depthwise_inside(s, origin + c, layer->weights + o, layer->bias[o])
                       : td_depthwise_border(s, origin + c, layer->weights + o, layer->bias[o], iy, ix);
            y[o] = (int8_t)td_requantize(acc, layer->multiplier[o * s->channel_step],
                                         layer->shift[o * s->channel_step], &s->out);
            o++;
        }
    }
}

static TD_INLINE void td_depthwise_conv_2d(const td_depthwise_shape *s, const td_depthwise *layer,
                                           const int8_t *x, int8_t *y)
{
    const int32_t last_row = s->in_h - (s->kernel_h - 1) * s->dilation_h;
    const int32_t last_column = s->in_w - (s->kernel_w - 1) * s->dilation_w;
    for (int32_t image = 0; image < s->images; image++) {
        for (int32_t oy = 0; oy < s->out_h; oy++) {
            const int32_t iy = oy * s->stride_h - s->pad_top;
            for (int32_t ox = 0; ox < s->out_w; ox++) {
                const int32_t ix = ox * s->stride_w - s->pad_left;
                if (!s->padded || (iy >= 0 && iy < last_row && ix >= 0 && ix < last_column)) {
                    td_depthwise_pixel(s, layer, x, y, iy, ix, 1);
                } else {
                    td_depthwise_pixel(s, layer, x, y, iy, ix, 0);
                }
                y += s->in_c * s->multiplier;
            }
        }
        x += s->in_h * s->in_w * s->in_c;
    }
}

#endif
