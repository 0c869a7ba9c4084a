/* CONV_2D and FULLY_CONNECTED: dot products of one patch of the input with every output channel. */
#ifndef TD_KERNELS_LINEAR_H
#define TD_KERNELS_LINEAR_H

#include "td_kernels.h"

/* Weights in the order [output][row][column][input]; the bias holds -zero_point * sum(weights), so that
 * raw inputs go in. `channel_step` is 1 for a multiplier per output channel and 0 for a common one. */
typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
    int32_t channel_step;
} td_linear;

/* A patch of `rows` runs of `run` values, `pitch` values apart. */
typedef struct {
    const int8_t *start;
    int32_t pitch;
    int32_t rows;
    int32_t run;
} td_patch;

/* Four output channels share each load of an input value. */
static TD_INLINE void td_dot(const td_patch *patch, const td_linear *layer, int32_t channels, int8_t *y,
                             const td_output *out)
{
    const int32_t depth = patch->rows * patch->run;
    const int32_t step = layer->channel_step;
    const int32_t blocks = channels - channels % 4;
    const int8_t *weights = layer->weights;
    for (int32_t o = 0; o < blocks; o += 4) {
        int32_t a0 = layer->bias[o];
        int32_t a1 = layer->bias[o + 1];
        int32_t a2 = layer->bias[o + 2];
        int32_t a3 = layer->bias[o + 3];
        const int8_t *row = patch->start;
        for (int32_t r = 0; r < patch->rows; r++) {
            for (int32_t i = 0; i < patch->run; i++) {
                const int32_t v = row[i];
                a0 += v * weights[i];
                a1 += v * weights[i + depth];
                a2 += v * weights[i + 2 * depth];
                a3 += v * weights[i + 3 * depth];
            }
            row += patch->pitch;
            weights += patch->run;
        }
        weights += 3 * depth;
        const int32_t *m = layer->multiplier + o * step;
        const int8_t *s = layer->shift + o * step;
        y[o] = (int8_t)td_requantize(a0, m[0], s[0], out);
        y[o + 1] = (int8_t)td_requantize(a1, m[step], s[step], out);
        y[o + 2] = (int8_t)td_requantize(a2, m[2 * step], s[2 * step], out);
        y[o + 3] = (int8_t)td_requantize(a3, m[3 * step], s[3 * step], out);
    }
    for (int32_t o = blocks; o < channels; o++) {
        int32_t a = layer->bias[o];
        const int8_t *row = patch->start;
        for (int32_t r = 0; r < patch->rows; r++) {
            for (int32_t i = 0; i < patch->run; i++) {
                a += row[i] * weights[i];
            }
            row += patch->pitch;
            weights += patch->run;
        }
        y[o] = (int8_t)td_requantize(a, layer->multiplier[o * step], layer->shift[o * step], out);
    }
}

typedef struct {
    int32_t images, in_h, in_w, in_c;
    int32_t out_h, out_w, out_c, groups;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t in_zero_point;
    int32_t gather; /* 1 where some patch is not in the input as runs of rows: padding, dilation, groups */
    td_output out;
} td_conv_2d_shape;

/* Copies the patch of one group at (iy, ix) to `patch`, with the zero point where it is outside. */
static TD_INLINE void td_conv_2d_gather(const td_conv_2d_shape *s, const int8_t *x, int32_t iy, int32_t ix,
                                        int32_t channels, int8_t *patch)
{
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        const int32_t row = iy + ky * s->dilation_h;
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            const int32_t column = ix + kx * s->dilation_w;
            if (row >= 0 && row < s->in_h && column >= 0 && column < s->in_w) {
                const int8_t *from = x + (row * s->in_w + column) * s->in_c;
                for (int32_t c = 0; c < channels; c++) {
                    patch[c] = from[c];
                }
            } else {
                for (int32_t c = 0; c < channels; c++) {
                    patch[c] = (int8_t)s->in_zero_point;
                }
            }
            patch += channels;
        }
    }
}

/* Convolution. `patch` holds kernel_h * kernel_w * in_c / groups values, and is not used without `gather`. */
static TD_INLINE void td_conv_2d(const td_conv_2d_shape *s, const td_linear *layer, const int8_t *x, int8_t *y,
                                 int8_t *patch)
{
    const int32_t channels = s->in_c / s->groups;
    const int32_t per_group = s->out_c / s->groups;
    const int32_t run = s->kernel_w * channels;
    const int32_t last_row = s->in_h - (s->kernel_h - 1) * s->dilation_h;
    const int32_t last_column = s->in_w - (s->kernel_w - 1) * s->dilation_w;
    for (int32_t image = 0; image < s->images; image++) {
        for (int32_t oy = 0; oy < s->out_h; oy++) {
            const int32_t iy = oy * s->stride_h - s->pad_top;
            for (int32_t ox = 0; ox < s->out_w; ox++) {
                const int32_t ix = ox * s->stride_w - s->pad_left;
                for (int32_t g = 0; g < s->groups; g++) {
                    const int8_t *from = x + g * channels;
                    const td_linear group = { layer->weights + g * per_group * s->kernel_h * run,
                                              layer->bias + g * per_group,
                                              layer->multiplier + g * per_group * layer->channel_step,
                                              layer->shift + g * per_group * layer->channel_step,
                                              layer->channel_step };
                    td_patch source = { patch, run, s->kernel_h, run };
                    if (!s->gather || (s->groups == 1 && s->dilation_w == 1 && iy >= 0 && iy < last_row &&
                                       ix >= 0 && ix < last_column)) {
                        source.start = from + (iy * s->in_w + ix) * s->in_c;
                        source.pitch = s->dilation_h * s->in_w * s->in_c;
                    } else {
                        td_conv_2d_gather(s, from, iy, ix, channels, patch);
                    }
                    td_dot(&source, &group, per_group, y, &s->out);
                    y += per_group;
                }
            }
        }
        x += s->in_h * s->in_w * s->in_c;
    }
}

typedef struct {
    int32_t rows, inputs, outputs;
    td_output out;
} td_fully_connected_shape;

static TD_INLINE void td_fully_connected(const td_fully_connected_shape *s, const td_linear *layer,
                                         const int8_t *x, int8_t *y)
{
    for (int32_t row = 0; row < s->rows; row++) {
        const td_patch source = { x + row * s->inputs, s->inputs, 1, s->inputs };
        td_dot(&source, layer, s->outputs, y + row * s->outputs, &s->out);
    }
}

#endif
