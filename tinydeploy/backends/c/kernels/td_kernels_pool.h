/* AVERAGE_POOL_2D, MAX_POOL_2D and MEAN. */
#ifndef TD_KERNELS_POOL_H
#define TD_KERNELS_POOL_H

#include "td_kernels.h"

typedef struct {
    int32_t images, in_h, in_w, channels, out_h, out_w;
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
    int32_t low, high;
} td_pool_shape;

/* The part of a window that lies inside the input; padding never counts. */
typedef struct {
    int32_t top, bottom, left, right;
} td_pool_window;

static TD_INLINE td_pool_window td_pool_clip(const td_pool_shape *s, int32_t oy, int32_t ox)
{
    const int32_t iy = oy * s->stride_h - s->pad_top;
    const int32_t ix = ox * s->stride_w - s->pad_left;
    td_pool_window w;
    w.top = iy < 0 ? 0 : iy;
    w.left = ix < 0 ? 0 : ix;
    w.bottom = iy + s->kernel_h > s->in_h ? s->in_h : iy + s->kernel_h;
    w.right = ix + s->kernel_w > s->in_w ? s->in_w : ix + s->kernel_w;
    return w;
}

static TD_INLINE int32_t td_average(const td_pool_shape *s, const int8_t *x, const td_pool_window *w)
{
    const int32_t count = (w->bottom - w->top) * (w->right - w->left);
    int32_t sum = 0;
    for (int32_t row = w->top; row < w->bottom; row++) {
        for (int32_t column = w->left; column < w->right; column++) {
            sum += x[(row * s->in_w + column) * s->channels];
        }
    }
    /* Half away from zero. */
    return sum > 0 ? (sum + count / 2) / count : (sum - count / 2) / count;
}

static TD_INLINE int32_t td_maximum(const td_pool_shape *s, const int8_t *x, const td_pool_window *w)
{
    int32_t best = INT8_MIN;
    for (int32_t row = w->top; row < w->bottom; row++) {
        for (int32_t column = w->left; column < w->right; column++) {
            const int32_t v = x[(row * s->in_w + column) * s->channels];
            best = v > best ? v : best;
        }
    }
    return best;
}

static TD_INLINE void td_pool_2d(const td_pool_shape *s, int32_t average, const int8_t *x, int8_t *y)
{
    for (int32_t image = 0; image < s->images; image++) {
        for (int32_t oy = 0; oy < s->out_h; oy++) {
            for (int32_t ox = 0; ox < s->out_w; ox++) {
                const td_pool_window w = td_pool_clip(s, oy, ox);
                for (int32_t c = 0; c < s->channels; c++) {
                    const int32_t v = average ? td_average(s, x + c, &w) : td_maximum(s, x + c, &w);
                    *y++ = (int8_t)td_clamp(v, s->low, s->high);
                }
            }
        }
        x += s->in_h * s->in_w * s->channels;
    }
}

static TD_INLINE void td_average_pool_2d(const td_pool_shape *s, const int8_t *x, int8_t *y)
{
    td_pool_2d(s, 1, x, y);
}

static TD_INLINE void td_max_pool_2d(const td_pool_shape *s, const int8_t *x, int8_t *y)
{
    td_pool_2d(s, 0, x, y);
}

/* The input as [kept0][summed0][kept1][summed1][kept2]; `offset` is -zero_point * summed0 * summed1. */
typedef struct {
    int32_t kept0, summed0, kept1, summed1, kept2;
    int32_t offset, multiplier, shift;
    td_output out;
} td_mean_shape;

static TD_INLINE void td_mean(const td_mean_shape *s, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < s->kept0; i++) {
        for (int32_t j = 0; j < s->kept1; j++) {
            for (int32_t k = 0; k < s->kept2; k++) {
                int32_t sum = s->offset;
                for (int32_t a = 0; a < s->summed0; a++) {
                    for (int32_t b = 0; b < s->summed1; b++) {
                        sum += x[(((i * s->summed0 + a) * s->kept1 + j) * s->summed1 + b) * s->kept2 + k];
                    }
                }
                *y++ = (int8_t)td_requantize(sum, s->multiplier, s->shift, &s->out);
            }
        }
    }
}

#endif
