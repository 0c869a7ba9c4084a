/* AVERAGE_POOL_2D, MAX_POOL_2D and MEAN on the DSP extension: four channels at a time, at least four of them. */
#ifndef TD_KERNELS_DSP_POOL_H
#define TD_KERNELS_DSP_POOL_H

#include "td_kernels_dsp.h"
#include "td_kernels_pool.h"

/* So many int8 values fit an int16 sum. */
enum { TD_DSP_MOST_TERMS = 255 };

#if TD_DSP

/* Each half of `sums` and an even byte of v, or an odd one. */
static TD_INLINE uint32_t td_add_even_bytes(uint32_t sums, uint32_t v)
{
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2" : "=r"(result) : "r"(sums), "r"(v));
    return result;
}

static TD_INLINE uint32_t td_add_odd_bytes(uint32_t sums, uint32_t v)
{
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(result) : "r"(sums), "r"(v));
    return result;
}

/* The larger one of each byte; both instructions in one piece, for the flags that SSUB8 sets are no "cc". */
static TD_INLINE uint32_t td_larger_bytes(uint32_t a, uint32_t b)
{
    uint32_t result;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(result) : "r"(a), "r"(b) : "cc");
    return result;
}

#else

static TD_INLINE uint32_t td_add_even_bytes(uint32_t sums, uint32_t v)
{
    return td_add_halves(sums, td_even_bytes(v));
}

static TD_INLINE uint32_t td_add_odd_bytes(uint32_t sums, uint32_t v)
{
    return td_add_halves(sums, td_odd_bytes(v));
}

static TD_INLINE uint32_t td_larger_bytes(uint32_t a, uint32_t b)
{
    uint32_t result = 0;
    for (int32_t i = 0; i < 32; i += 8) {
        const uint32_t left = a >> i & 0xffu;
        const uint32_t right = b >> i & 0xffu;
        result |= ((int8_t)(uint8_t)left >= (int8_t)(uint8_t)right ? left : right) << i;
    }
    return result;
}

#endif

/* Sums of four channels side by side; the packed ones hold at most TD_DSP_MOST_TERMS terms. */
typedef struct {
    uint32_t even, odd;
    int32_t whole0, whole1, whole2, whole3;
} td_dsp_sums_of_four;

static TD_INLINE void td_dsp_unpack_sums(td_dsp_sums_of_four *sums)
{
    sums->whole0 += (int16_t)(uint16_t)sums->even;
    sums->whole1 += (int16_t)(uint16_t)sums->odd;
    sums->whole2 += (int16_t)(uint16_t)(sums->even >> 16);
    sums->whole3 += (int16_t)(uint16_t)(sums->odd >> 16);
    sums->even = 0;
    sums->odd = 0;
}

/* Adds `count` words, `step` bytes apart. `most` is what all calls together may add; where the packed sums
 * could not hold that, they are unpacked in between. */
static TD_INLINE void td_dsp_add_words(td_dsp_sums_of_four *sums, const int8_t *x, int32_t step, int32_t count,
                                       int32_t most)
{
    for (int32_t left = count; left > 0; left -= TD_DSP_MOST_TERMS) {
        const int32_t now = most <= TD_DSP_MOST_TERMS || left < TD_DSP_MOST_TERMS ? left : TD_DSP_MOST_TERMS;
        const int8_t *const end = x + now * step;
        uint32_t even = sums->even;
        uint32_t odd = sums->odd;
        do {
            const uint32_t v = td_load_word(x);
            even = td_add_even_bytes(even, v);
            odd = td_add_odd_bytes(odd, v);
            x += step;
        } while (x != end);
        sums->even = even;
        sums->odd = odd;
        if (most > TD_DSP_MOST_TERMS) {
            td_dsp_unpack_sums(sums);
        }
    }
}

/* Whether no window leaves the image, so that the divisor is a constant. */
static TD_INLINE int32_t td_dsp_pools_inside(const td_pool_shape *s)
{
    return s->pad_top == 0 && s->pad_left == 0 && (s->out_h - 1) * s->stride_h + s->kernel_h <= s->in_h &&
           (s->out_w - 1) * s->stride_w + s->kernel_w <= s->in_w;
}

/* sum / count, half away from zero. */
static TD_INLINE int8_t td_dsp_divide(const td_pool_shape *s, int32_t sum, int32_t count)
{
    const int32_t v = (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
    return (int8_t)td_dsp_clamp(v, s->low, s->high);
}

static TD_INLINE void td_dsp_average(const td_pool_shape *s, const int8_t *x, const td_pool_window *w, int8_t *y)
{
    const int32_t most = s->kernel_h * s->kernel_w;
    const int32_t inside = td_dsp_pools_inside(s);
    const int32_t columns = inside ? s->kernel_w : w->right - w->left;
    const int32_t count = inside ? most : (w->bottom - w->top) * columns;
    td_dsp_sums_of_four sums = { 0, 0, 0, 0, 0, 0 };
    if (s->kernel_w == s->in_w && s->out_w == 1 && s->pad_left == 0) {
        td_dsp_add_words(&sums, x + w->top * s->in_w * s->channels, s->channels, count, most);
    } else {
        for (int32_t row = w->top; row < w->bottom; row++) {
            td_dsp_add_words(&sums, x + (row * s->in_w + w->left) * s->channels, s->channels, columns, most);
        }
    }
    td_dsp_unpack_sums(&sums);
    y[0] = td_dsp_divide(s, sums.whole0, count);
    y[1] = td_dsp_divide(s, sums.whole1, count);
    y[2] = td_dsp_divide(s, sums.whole2, count);
    y[3] = td_dsp_divide(s, sums.whole3, count);
}

static TD_INLINE void td_dsp_maximum(const td_pool_shape *s, const int8_t *x, const td_pool_window *w, int8_t *y)
{
    uint32_t best = 0x80808080u;
    for (int32_t row = w->top; row < w->bottom; row++) {
        const int8_t *from = x + (row * s->in_w + w->left) * s->channels;
        for (int32_t column = w->left; column < w->right; column++) {
            best = td_larger_bytes(td_load_word(from), best);
            from += s->channels;
        }
    }
    if (s->low == INT8_MIN && s->high == INT8_MAX) {
        td_store_word(y, best);
        return;
    }
    for (int32_t i = 0; i < 4; i++) {
        y[i] = (int8_t)td_clamp((int8_t)(uint8_t)(best >> (8 * i)), s->low, s->high);
    }
}

static TD_INLINE void td_dsp_pool_2d(const td_pool_shape *s, int32_t average, const int8_t *x, int8_t *y)
{
    for (int32_t image = 0; image < s->images; image++) {
        for (int32_t oy = 0; oy < s->out_h; oy++) {
            for (int32_t ox = 0; ox < s->out_w; ox++) {
                const td_pool_window w = td_pool_clip(s, oy, ox);
                for (int32_t next = 0; next < s->channels; next += 4) {
                    /* The last four channels may have some in them that are done. */
                    const int32_t c = next <= s->channels - 4 ? next : s->channels - 4;
                    if (average) {
                        td_dsp_average(s, x + c, &w, y + c);
                    } else {
                        td_dsp_maximum(s, x + c, &w, y + c);
                    }
                }
                y += s->channels;
            }
        }
        x += s->in_h * s->in_w * s->channels;
    }
}

static TD_INLINE void td_dsp_average_pool_2d(const td_pool_shape *s, const int8_t *x, int8_t *y)
{
    td_dsp_pool_2d(s, 1, x, y);
}

static TD_INLINE void td_dsp_max_pool_2d(const td_pool_shape *s, const int8_t *x, int8_t *y)
{
    td_dsp_pool_2d(s, 0, x, y);
}

static TD_INLINE int8_t td_dsp_mean_of(const td_mean_shape *s, int32_t sum)
{
    return (int8_t)td_requantize(sum + s->offset, s->multiplier, s->shift, &s->out);
}

/* td_mean where kept2 is at least 4. */
static TD_INLINE void td_dsp_mean(const td_mean_shape *s, const int8_t *x, int8_t *y)
{
    const int32_t most = s->summed0 * s->summed1;
    for (int32_t i = 0; i < s->kept0; i++) {
        for (int32_t j = 0; j < s->kept1; j++) {
            for (int32_t next = 0; next < s->kept2; next += 4) {
                const int32_t k = next <= s->kept2 - 4 ? next : s->kept2 - 4;
                const int8_t *from = x + ((i * s->summed0 * s->kept1 + j) * s->summed1) * s->kept2 + k;
                td_dsp_sums_of_four sums = { 0, 0, 0, 0, 0, 0 };
                if (s->summed1 == 1) {
                    td_dsp_add_words(&sums, from, s->kept1 * s->kept2, s->summed0, most);
                } else {
                    for (int32_t a = 0; a < s->summed0; a++) {
                        td_dsp_add_words(&sums, from, s->kept2, s->summed1, most);
                        from += s->kept1 * s->summed1 * s->kept2;
                    }
                }
                td_dsp_unpack_sums(&sums);
                y[k] = td_dsp_mean_of(s, sums.whole0);
                y[k + 1] = td_dsp_mean_of(s, sums.whole1);
                y[k + 2] = td_dsp_mean_of(s, sums.whole2);
                y[k + 3] = td_dsp_mean_of(s, sums.whole3);
            }
            y += s->kept2;
        }
    }
}

#endif
