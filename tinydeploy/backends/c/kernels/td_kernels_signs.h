/* CONV_2D and FULLY_CONNECTED over activations of -1 and +1, with weights in planes of signs. */
#ifndef TD_KERNELS_SIGNS_H
#define TD_KERNELS_SIGNS_H

#include "td_kernels_linear.h"
#include "td_kernels_planes.h"

/* `words` of a patch; `planes` of an output; `ternary` where a second stream says which weights are not 0;
 * `whole` where the channels of a pixel are whole words and the image is packed once. */
typedef struct {
    td_conv_2d_shape conv;
    int32_t words, planes, ternary, whole, channel_step;
} td_signs_conv_2d_shape;

/* For each output and plane `words` words of signs, then as many of what is present where that is stored.
 * The bias holds the sum in which no sign differs; each that does takes twice its coefficient away. */
typedef struct {
    const int32_t *signs;
    const int16_t *coefficients; /* [output][plane] */
    const int32_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
} td_signs;

/* `count` outputs of one patch from number `first` on. */
static TD_INLINE void td_signs_dot(const td_signs_conv_2d_shape *s, const td_signs *layer, int32_t first,
                                   int32_t count, const uint32_t *patch, int8_t *y)
{
    const int32_t each = s->words * (1 + s->ternary);
    const uint32_t *signs = (const uint32_t *)(const void *)layer->signs + first * s->planes * each;
    const int16_t *coefficient = layer->coefficients + first * s->planes;
    for (int32_t o = first; o < first + count; o++) {
        uint32_t acc = (uint32_t)layer->bias[o];
        for (int32_t p = 0; p < s->planes; p++) {
            const td_plane plane = { signs, s->ternary ? signs + s->words : NULL };
            acc -= 2 * (uint32_t)(int32_t)*coefficient++ * td_count_differing(s->words, patch, plane);
            signs += each;
        }
        *y++ = (int8_t)td_requantize((int32_t)acc, layer->multiplier[o * s->channel_step],
                                     layer->shift[o * s->channel_step], &s->conv.out);
    }
}

/* The window at (iy, ix) of a packed image, with -1 where it is outside. */
static TD_INLINE void td_signs_gather(const td_conv_2d_shape *s, const uint32_t *image, int32_t iy, int32_t ix,
                                      uint32_t *patch)
{
    const int32_t each = s->in_c / 32;
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        const int32_t row = iy + ky * s->dilation_h;
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            const int32_t column = ix + kx * s->dilation_w;
            const int32_t inside = row >= 0 && row < s->in_h && column >= 0 && column < s->in_w;
            const uint32_t *const from = image + (row * s->in_w + column) * each;
            for (int32_t i = 0; i < each; i++) {
                *patch++ = inside ? from[i] : 0;
            }
        }
    }
}

/* The same of one group, from the values themselves, by way of `bytes` unless they stand together. */
static TD_INLINE void td_signs_collect(const td_conv_2d_shape *s, const int8_t *x, int32_t iy, int32_t ix,
                                       int8_t *bytes, uint32_t *patch)
{
    const int32_t channels = s->in_c / s->groups;
    const int32_t depth = s->kernel_h * s->kernel_w * channels;
    if (s->kernel_h * s->kernel_w == 1 && !s->gather) {
        td_pack_signs(x + (iy * s->in_w + ix) * s->in_c, depth, patch);
        return;
    }
    td_conv_2d_gather(s, x, iy, ix, channels, bytes);
    td_pack_signs(bytes, depth, patch);
}

/* Convolution; a fully connected layer is one of 1x1. `scratch` holds the words of a patch, then with `whole`
 * those of the image, else the bytes of a patch. */
static TD_INLINE void td_signs_conv_2d(const td_signs_conv_2d_shape *f, const td_signs *layer, const int8_t *x,
                                       int8_t *y, int8_t *scratch)
{
    const td_conv_2d_shape *const s = &f->conv;
    uint32_t *const patch = (uint32_t *)(void *)scratch;
    const int32_t per_group = s->out_c / s->groups;
    for (int32_t image = 0; image < s->images; image++) {
        if (f->whole) {
            td_pack_signs(x, s->in_h * s->in_w * s->in_c, patch + f->words);
        }
        for (int32_t oy = 0; oy < s->out_h; oy++) {
            const int32_t iy = oy * s->stride_h - s->pad_top;
            for (int32_t ox = 0; ox < s->out_w; ox++) {
                const int32_t ix = ox * s->stride_w - s->pad_left;
                for (int32_t g = 0; g < s->groups; g++) {
                    if (f->whole) {
                        td_signs_gather(s, patch + f->words, iy, ix, patch);
                    } else {
                        td_signs_collect(s, x + g * (s->in_c / s->groups), iy, ix, scratch + 4 * f->words, patch);
                    }
                    td_signs_dot(f, layer, g * per_group, per_group, patch, y);
                    y += per_group;
                }
            }
        }
        x += s->in_h * s->in_w * s->in_c;
    }
}

#endif
