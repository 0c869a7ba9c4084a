/* CONV_2D, FULLY_CONNECTED and DEPTHWISE_CONV_2D with stored weights: those of a few outputs are unpacked into
 * working memory and used for all pixels, before the next ones are. */
#ifndef TD_KERNELS_FORMS_H
#define TD_KERNELS_FORMS_H

#include "td_kernels_depthwise.h"
#include "td_kernels_linear.h"
#include "td_kernels_stored.h"

/* `block` outputs are unpacked at a time. */
typedef struct {
    td_conv_2d_shape conv;
    int32_t block;
    td_form form;
} td_formed_conv_2d_shape;

static TD_INLINE int32_t td_dot_wide(const td_patch *patch, const int8_t *weights, int32_t size, int32_t acc)
{
    const int8_t *row = patch->start;
    for (int32_t r = 0; r < patch->rows; r++) {
        for (int32_t i = 0; i < patch->run; i++) {
            acc += row[i] * td_unpacked(weights, i, size);
        }
        row += patch->pitch;
        weights += size * patch->run;
    }
    return acc;
}

/* td_dot for weights of any size; each output reads the patch again. */
static TD_INLINE void td_formed_dot(const td_patch *patch, const td_linear *layer, int32_t size, int32_t channels,
                                    int8_t *y, const td_output *out)
{
    if (size == 1) {
        td_dot(patch, layer, channels, y, out);
        return;
    }
    const int32_t depth = patch->rows * patch->run;
    for (int32_t o = 0; o < channels; o++) {
        const int32_t acc = td_dot_wide(patch, layer->weights + o * size * depth, size, layer->bias[o]);
        y[o] = (int8_t)td_requantize(acc, layer->multiplier[o * layer->channel_step],
                                     layer->shift[o * layer->channel_step], out);
    }
}

/* All pixels of an image for `count` outputs, whose weights stand unpacked. `x` begins at the channels of
 * their group, `y` at the outputs. */
static TD_INLINE void td_formed_image(const td_conv_2d_shape *s, const td_linear *layer, int32_t size,
                                      int32_t count, const int8_t *x, int8_t *y, int8_t *patch)
{
    const int32_t channels = s->in_c / s->groups;
    const int32_t run = s->kernel_w * channels;
    const int32_t last_row = s->in_h - (s->kernel_h - 1) * s->dilation_h;
    const int32_t last_column = s->in_w - (s->kernel_w - 1) * s->dilation_w;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        const int32_t iy = oy * s->stride_h - s->pad_top;
        for (int32_t ox = 0; ox < s->out_w; ox++) {
            const int32_t ix = ox * s->stride_w - s->pad_left;
            td_patch source = { patch, run, s->kernel_h, run };
            if (!s->gather || (s->groups == 1 && s->dilation_w == 1 && iy >= 0 && iy < last_row && ix >= 0 &&
                               ix < last_column)) {
                source.start = x + (iy * s->in_w + ix) * s->in_c;
                source.pitch = s->dilation_h * s->in_w * s->in_c;
            } else {
                td_conv_2d_gather(s, x, iy, ix, channels, patch);
            }
            td_formed_dot(&source, layer, size, count, y, &s->out);
            y += s->out_c;
        }
    }
}

/* Convolution; a fully connected layer is one of 1x1. `scratch` holds the weights of `block` outputs, in
 * whole words, and behind them, with `gather`, the values of one patch. `layer` has no weights. */
static TD_INLINE void td_formed_conv_2d(const td_formed_conv_2d_shape *f, const td_linear *layer,
                                        const td_stored *stored, const int8_t *x, int8_t *y, int8_t *scratch)
{
    const td_conv_2d_shape *const s = &f->conv;
    const int32_t size = f->form.size;
    const int32_t channels = s->in_c / s->groups;
    const int32_t depth = s->kernel_h * s->kernel_w * channels;
    const int32_t per_group = s->out_c / s->groups;
    int8_t *const patch = scratch + ((f->block * depth * size + 3) & ~3);
    for (int32_t o = 0; o < s->out_c;) {
        const int32_t group = o / per_group;
        const int32_t left = (group + 1) * per_group - o;
        const int32_t count = left < f->block ? left : f->block;
        for (int32_t i = 0; i < count; i++) {
            td_unpack(&f->form, stored, o + i, depth, scratch + i * depth * size);
        }
        const td_linear part = { scratch, layer->bias + o, layer->multiplier + o * layer->channel_step,
                                 layer->shift + o * layer->channel_step, layer->channel_step };
        for (int32_t image = 0; image < s->images; image++) {
            td_formed_image(s, &part, size, count, x + image * s->in_h * s->in_w * s->in_c + group * channels,
                            y + image * s->out_h * s->out_w * s->out_c + o, patch);
        }
        o += count;
    }
}

typedef struct {
    td_depthwise_shape depthwise;
    td_form form;
} td_formed_depthwise_shape;

/* One output of one channel at (iy, ix); `inside` where the whole window is. */
static TD_INLINE int32_t td_formed_taps(const td_depthwise_shape *s, int32_t size, const int8_t *x,
                                        const int8_t *weights, int32_t iy, int32_t ix, int32_t inside, int32_t acc)
{
    int32_t tap = 0;
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        const int32_t row = iy + ky * s->dilation_h;
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            const int32_t column = ix + kx * s->dilation_w;
            int32_t v = s->in_zero_point;
            if (inside || (row >= 0 && row < s->in_h && column >= 0 && column < s->in_w)) {
                v = x[(row * s->in_w + column) * s->in_c];
            }
            acc += v * td_unpacked(weights, tap++, size);
        }
    }
    return acc;
}

/* One output channel of an image. */
static TD_INLINE void td_formed_channel(const td_depthwise_shape *s, const td_depthwise *layer, int32_t size,
                                        int32_t o, const int8_t *x, int8_t *y, const int8_t *weights)
{
    const int32_t outputs = s->in_c * s->multiplier;
    const int32_t last_row = s->in_h - (s->kernel_h - 1) * s->dilation_h;
    const int32_t last_column = s->in_w - (s->kernel_w - 1) * s->dilation_w;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        const int32_t iy = oy * s->stride_h - s->pad_top;
        for (int32_t ox = 0; ox < s->out_w; ox++) {
            const int32_t ix = ox * s->stride_w - s->pad_left;
            const int32_t inside = !s->padded || (iy >= 0 && iy < last_row && ix >= 0 && ix < last_column);
            const int32_t acc = inside ? td_formed_taps(s, size, x, weights, iy, ix, 1, layer->bias[o])
                                       : td_formed_taps(s, size, x, weights, iy, ix, 0, layer->bias[o]);
            *y = (int8_t)td_requantize(acc, layer->multiplier[o * s->channel_step],
                                       layer->shift[o * s->channel_step], &s->out);
            y += outputs;
        }
    }
}

/* `scratch` holds the weights of one output; they are stored output by output. `layer` has no weights. */
static TD_INLINE void td_formed_depthwise(const td_formed_depthwise_shape *f, const td_depthwise *layer,
                                          const td_stored *stored, const int8_t *x, int8_t *y, int8_t *scratch)
{
    const td_depthwise_shape *const s = &f->depthwise;
    const int32_t outputs = s->in_c * s->multiplier;
    for (int32_t o = 0; o < outputs; o++) {
        td_unpack(&f->form, stored, o, s->kernel_h * s->kernel_w, scratch);
        for (int32_t image = 0; image < s->images; image++) {
            td_formed_channel(s, layer, f->form.size, o, x + image * s->in_h * s->in_w * s->in_c + o / s->multiplier,
                              y + image * s->out_h * s->out_w * outputs + o, scratch);
        }
    }
}

#endif
