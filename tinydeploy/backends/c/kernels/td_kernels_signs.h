/* CONV_2D and FULLY_CONNECTED over activations of -1 and +1, with weights in planes of signs. */
#ifndef TD_KERNELS_SIGNS_H
#define TD_KERNELS_SIGNS_H

#include "td_kernels_linear.h"
#include "td_kernels_planes.h"

/* `words` of a patch; `planes` of an output; `ternary` where a second stream says which weights are not 0;
 * `whole` where the channels of a pixel are whole words and the image is packed once. `doubled` where
 * the exporter proved |acc| < 2^30, shifted to the left as far as it is: accumulators are then carried twice.
 * `units` where the one coefficient is 1 throughout, and what is added to the sums fits 24 bits. */
typedef struct {
    td_conv_2d_shape conv;
    int32_t words, planes, ternary, whole, doubled, units;
} td_signs_conv_2d_shape;

/* td_requantize for twice the accumulator; the zero point is added before the last bit is shifted out. */
static TD_INLINE int32_t td_signs_output(int32_t doubled, int32_t multiplier, int32_t shift, const td_output *out)
{
    if (!out->right_only && shift >= 0) {
        const int32_t left = (int32_t)((uint32_t)doubled << shift);
        return td_dsp_clamp(td_high_multiply_add(left, multiplier, out->zero_point), out->low, out->high);
    }
    int32_t v = td_high_multiply_add(doubled, multiplier, 0);
    v = (v + (v >> 31)) >> ~shift;
    return td_dsp_clamp((v + (2 * out->zero_point + 1)) >> 1, out->low, out->high);
}

/* `count` outputs of one patch. For each the stream has, plane by plane, `words` words of signs, as many of what
 * is present where that is stored, and the plane's coefficient in the upper half of a word; with the last plane
 * the shift in its lowest byte; then the sum in which no sign differs, and the multiplier. With `units` that sum
 * is in the place of a coefficient. Each sign that differs takes twice its coefficient away. Returns where the
 * next output begins. */
static TD_INLINE const int32_t *td_signs_dot(const td_signs_conv_2d_shape *s, const int32_t *stream, int32_t count,
                                             const uint32_t *patch, int8_t *y)
{
    for (const int8_t *const end = y + count; y < end;) {
        uint32_t acc = 0;
        int32_t last = 0;
        for (int32_t p = 0; p < s->planes; p++) {
            const uint32_t *const signs = (const uint32_t *)(const void *)stream;
            const td_plane plane = { signs, s->ternary ? signs + s->words : NULL };
            const uint32_t differing = td_count_differing(s->words, patch, plane);
            stream += s->words * (1 + s->ternary);
            last = *stream++;
            acc -= s->units ? differing : differing * (uint32_t)(last >> 16);
        }
        const int32_t shift = (int8_t)(uint8_t)last;
        const int32_t most = s->units ? last >> 8 : *stream++;
        const int32_t multiplier = *stream++;
        if (s->doubled) {
            *y++ = (int8_t)td_signs_output((int32_t)(4 * acc + (uint32_t)most), multiplier, shift, &s->conv.out);
        } else {
            *y++ = (int8_t)td_requantize((int32_t)(2 * acc + (uint32_t)most), multiplier, shift, &s->conv.out);
        }
    }
    return stream;
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
static TD_INLINE void td_signs_conv_2d(const td_signs_conv_2d_shape *f, const int32_t *stream, const int8_t *x,
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
                const int32_t *next = stream;
                for (int32_t g = 0; g < s->groups; g++) {
                    if (f->whole) {
                        td_signs_gather(s, patch + f->words, iy, ix, patch);
                    } else {
                        td_signs_collect(s, x + g * (s->in_c / s->groups), iy, ix, scratch + 4 * f->words, patch);
                    }
                    next = td_signs_dot(f, next, per_group, patch, y);
                    y += per_group;
                }
            }
        }
        x += s->in_h * s->in_w * s->in_c;
    }
}

#endif
