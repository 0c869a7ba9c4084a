/* DEPTHWISE_CONV_2D with any kernel, stride, dilation and padding on the DSP extension: four channels side
 * by side, one multiplication an instruction. */
#ifndef TD_KERNELS_DSP_TAPS_H
#define TD_KERNELS_DSP_TAPS_H

#include "td_kernels_dsp.h"

typedef struct {
    int32_t images, in_h, in_w, in_c, out_h, out_w;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t in_zero_point;
    int32_t padded; /* 1 where some window reaches outside the input */
    int32_t by_pixel; /* 1: all channels of a pixel, then the next one; the output may lie over the input */
    td_dsp_output out;
} td_dsp_taps_shape;

/* Doubled accumulators of four channels. */
typedef struct {
    int32_t a0, a1, a2, a3;
} td_dsp_four;

/* `weights` are doubled and widened: for each tap the lanes of channels (0, 2) and (1, 3). */
static TD_INLINE void td_dsp_add_tap(td_dsp_four *sums, uint32_t x, const int32_t *weights)
{
    const uint32_t even = td_even_bytes(x);
    const uint32_t odd = td_odd_bytes(x);
    sums->a0 = td_smlabb(even, (uint32_t)weights[0], sums->a0);
    sums->a2 = td_smlatt(even, (uint32_t)weights[0], sums->a2);
    sums->a1 = td_smlabb(odd, (uint32_t)weights[1], sums->a1);
    sums->a3 = td_smlatt(odd, (uint32_t)weights[1], sums->a3);
}

static TD_INLINE td_dsp_four td_dsp_taps_inside(const td_dsp_taps_shape *s, const int32_t *w, td_dsp_four sums,
                                                const int8_t *x)
{
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        const int8_t *from = x + ky * s->dilation_h * s->in_w * s->in_c;
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            td_dsp_add_tap(&sums, td_load_word(from), w);
            from += s->dilation_w * s->in_c;
            w += 2;
        }
    }
    return sums;
}

static TD_INLINE td_dsp_four td_dsp_taps_border(const td_dsp_taps_shape *s, const int32_t *w, td_dsp_four sums,
                                                const int8_t *x, int32_t iy, int32_t ix)
{
    const uint32_t zero = ((uint32_t)s->in_zero_point & 0xffu) * 0x01010101u;
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        const int32_t row = iy + ky * s->dilation_h;
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            const int32_t column = ix + kx * s->dilation_w;
            const int32_t inside = row >= 0 && row < s->in_h && column >= 0 && column < s->in_w;
            td_dsp_add_tap(&sums, inside ? td_load_word(x + (row * s->in_w + column) * s->in_c) : zero, w);
            w += 2;
        }
    }
    return sums;
}

static TD_INLINE td_dsp_four td_dsp_taps_window(const td_dsp_taps_shape *s, const int32_t *w, td_dsp_four bias,
                                                const int8_t *x, int32_t iy, int32_t ix)
{
    const int32_t bottom = iy + (s->kernel_h - 1) * s->dilation_h;
    const int32_t right = ix + (s->kernel_w - 1) * s->dilation_w;
    const int32_t inside = !s->padded || (iy >= 0 && bottom < s->in_h && ix >= 0 && right < s->in_w);
    return inside ? td_dsp_taps_inside(s, w, bias, x + (iy * s->in_w + ix) * s->in_c)
                  : td_dsp_taps_border(s, w, bias, x, iy, ix);
}

/* All outputs of four channels. `c` holds four doubled biases, four times multiplier, offset and shift, then
 * the taps. */
static TD_INLINE void td_dsp_taps_block(const td_dsp_taps_shape *s, const int32_t *c, const int8_t *x, int8_t *y)
{
    const td_dsp_four bias = { c[0], c[1], c[2], c[3] };
    const td_dsp_scale scale0 = { c[4], c[5], c[6] };
    const td_dsp_scale scale1 = { c[7], c[8], c[9] };
    const td_dsp_scale scale2 = { c[10], c[11], c[12] };
    const td_dsp_scale scale3 = { c[13], c[14], c[15] };
    const int32_t *const w = c + 16;
    const int32_t last_row = s->in_h - (s->kernel_h - 1) * s->dilation_h;
    const int32_t last_column = s->in_w - (s->kernel_w - 1) * s->dilation_w;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        const int32_t iy = oy * s->stride_h - s->pad_top;
        for (int32_t ox = 0; ox < s->out_w; ox++) {
            const int32_t ix = ox * s->stride_w - s->pad_left;
            const int32_t inside = !s->padded || (iy >= 0 && iy < last_row && ix >= 0 && ix < last_column);
            const td_dsp_four sums = inside
                                         ? td_dsp_taps_inside(s, w, bias, x + (iy * s->in_w + ix) * s->in_c)
                                         : td_dsp_taps_border(s, w, bias, x, iy, ix);
            y[0] = td_dsp_requantize(sums.a0, scale0, &s->out);
            y[1] = td_dsp_requantize(sums.a1, scale1, &s->out);
            y[2] = td_dsp_requantize(sums.a2, scale2, &s->out);
            y[3] = td_dsp_requantize(sums.a3, scale3, &s->out);
            y += s->in_c;
        }
    }
}

/* All channels of one pixel, whose window is at (iy, ix). */
static TD_INLINE void td_dsp_taps_pixel(const td_dsp_taps_shape *s, const int32_t *c, const int8_t *x, int8_t *y,
                                        int32_t iy, int32_t ix)
{
    for (int32_t next = 0; next < s->in_c; next += 4) {
        const int32_t at = next <= s->in_c - 4 ? next : s->in_c - 4;
        const td_dsp_four bias = { c[0], c[1], c[2], c[3] };
        const td_dsp_four sums = td_dsp_taps_window(s, c + 16, bias, x + at, iy, ix);
        y[at] = td_dsp_requantize(sums.a0, (td_dsp_scale){ c[4], c[5], c[6] }, &s->out);
        y[at + 1] = td_dsp_requantize(sums.a1, (td_dsp_scale){ c[7], c[8], c[9] }, &s->out);
        y[at + 2] = td_dsp_requantize(sums.a2, (td_dsp_scale){ c[10], c[11], c[12] }, &s->out);
        y[at + 3] = td_dsp_requantize(sums.a3, (td_dsp_scale){ c[13], c[14], c[15] }, &s->out);
        c += 16 + 2 * s->kernel_h * s->kernel_w;
    }
}

static TD_INLINE void td_dsp_taps_by_pixel(const td_dsp_taps_shape *s, const int32_t *weights, const int8_t *x,
                                           int8_t *y)
{
    for (int32_t image = 0; image < s->images; image++) {
        for (int32_t oy = 0; oy < s->out_h; oy++) {
            for (int32_t ox = 0; ox < s->out_w; ox++) {
                td_dsp_taps_pixel(s, weights, x, y, oy * s->stride_h - s->pad_top, ox * s->stride_w - s->pad_left);
                y += s->in_c;
            }
        }
        x += s->in_h * s->in_w * s->in_c;
    }
}

/* in_c is at least 4; the last four channels may have some in them that were made before, and are made again. */
static TD_INLINE void td_dsp_depthwise_taps(const td_dsp_taps_shape *s, const int32_t *weights, const int8_t *x,
                                            int8_t *y)
{
    if (s->by_pixel) {
        td_dsp_taps_by_pixel(s, weights, x, y);
        return;
    }
    const int32_t step = 16 + 2 * s->kernel_h * s->kernel_w;
    for (int32_t image = 0; image < s->images; image++) {
        for (int32_t next = 0; next < s->in_c; next += 4) {
            const int32_t c = next <= s->in_c - 4 ? next : s->in_c - 4;
            td_dsp_taps_block(s, weights + next / 4 * step, x + c, y + c);
        }
        x += s->in_h * s->in_w * s->in_c;
        y += s->out_h * s->out_w * s->in_c;
    }
}

#endif
