/* CONV_2D 3x3 with stride 1 on the DSP extension as exact integer Winograd F(2x2,3x3): 16 products where the
 * sum has 36 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015).
 *
 * U = (2G) g (2G)^T comes with the weights; V = B^T d B is made here from 4x4 inputs; A^T (U V) A is then four
 * times each of 2x2 sums, without any rounding. |V| <= 512 and |U| <= 1152 fit int16. Sums wrap; the exporter
 * proved that four times a sum of products is inside int32, and so what is left in the end is exact. */
#ifndef TD_KERNELS_DSP_WINOGRAD_H
#define TD_KERNELS_DSP_WINOGRAD_H

#include "td_kernels_dsp.h"

/* `tiles` tiles of a row are made at a time, a multiple of 4; `unroll` is 2, 4 or 8 and divides in_c / 2. */
typedef struct {
    int32_t images, in_h, in_w, in_c, out_h, out_w, outputs;
    int32_t pad_top, pad_left;
    int32_t in_zero_point;
    int32_t tiles, unroll;
    td_dsp_output out;
} td_dsp_winograd_shape;

/* One word of a 4x4 input: four channels of a pixel, or the zero point where it is outside. */
static TD_INLINE uint32_t td_winograd_load(const td_dsp_winograd_shape *s, const int8_t *x, int32_t row,
                                           int32_t column, int32_t inside, uint32_t zero)
{
    if (inside || (row >= 0 && row < s->in_h && column >= 0 && column < s->in_w)) {
        return td_load_word(x + (row * s->in_w + column) * s->in_c);
    }
    return zero;
}

/* B^T applied to four values; the results are `step` words apart. */
static TD_INLINE void td_winograd_step(uint32_t d0, uint32_t d1, uint32_t d2, uint32_t d3, int32_t *to,
                                       int32_t step)
{
    to[0] = (int32_t)td_subtract_halves(d0, d2);
    to[step] = (int32_t)td_add_halves(d1, d2);
    to[2 * step] = (int32_t)td_subtract_halves(d2, d1);
    to[3 * step] = (int32_t)td_subtract_halves(d1, d3);
}

/* A row of four values of each kind of lane. */
static TD_INLINE void td_winograd_row(const int32_t *even, const int32_t *odd, int32_t step, int32_t *v)
{
    td_winograd_step((uint32_t)even[0], (uint32_t)even[1], (uint32_t)even[2], (uint32_t)even[3], v, step);
    td_winograd_step((uint32_t)odd[0], (uint32_t)odd[1], (uint32_t)odd[2], (uint32_t)odd[3], v + 4, step);
}

/* Four channels of one tile: 16 values of V for the lanes (0, 2) at `v`, for (1, 3) four words behind. The
 * next of the 16 is `step` words on. */
static TD_INLINE void td_winograd_tile(const td_dsp_winograd_shape *s, const int8_t *x, int32_t iy, int32_t ix,
                                       int32_t inside, int32_t step, int32_t *v)
{
    const uint32_t zero = ((uint32_t)s->in_zero_point & 0xffu) * 0x01010101u;
    int32_t even[16];
    int32_t odd[16];
    for (int32_t column = 0; column < 4; column++) {
        const uint32_t d0 = td_winograd_load(s, x, iy, ix + column, inside, zero);
        const uint32_t d1 = td_winograd_load(s, x, iy + 1, ix + column, inside, zero);
        const uint32_t d2 = td_winograd_load(s, x, iy + 2, ix + column, inside, zero);
        const uint32_t d3 = td_winograd_load(s, x, iy + 3, ix + column, inside, zero);
        td_winograd_step(td_even_bytes(d0), td_even_bytes(d1), td_even_bytes(d2), td_even_bytes(d3),
                         even + column, 4);
        td_winograd_step(td_odd_bytes(d0), td_odd_bytes(d1), td_odd_bytes(d2), td_odd_bytes(d3), odd + column, 4);
    }
    td_winograd_row(even, odd, step, v);
    td_winograd_row(even + 4, odd + 4, step, v + 4 * step);
    td_winograd_row(even + 8, odd + 8, step, v + 8 * step);
    td_winograd_row(even + 12, odd + 12, step, v + 12 * step);
}

/* V of `count` tiles from tile column `tx` on: [group of four tiles][16][word of channels][tile]. */
static TD_INLINE void td_winograd_input(const td_dsp_winograd_shape *s, const int8_t *x, int32_t ty, int32_t tx,
                                        int32_t count, int32_t *v)
{
    const int32_t step = 2 * s->in_c;
    const int32_t iy = 2 * ty - s->pad_top;
    const int32_t rows_inside = iy >= 0 && iy + 4 <= s->in_h;
    for (int32_t t = 0; t < count; t++) {
        const int32_t ix = 2 * (tx + t) - s->pad_left;
        int32_t *const to = v + t / 4 * 16 * step + t % 4;
        if (rows_inside && ix >= 0 && ix + 4 <= s->in_w) {
            for (int32_t c = 0; c < s->in_c; c += 4) {
                td_winograd_tile(s, x + c, iy, ix, 1, step, to + 2 * c);
            }
        } else {
            for (int32_t c = 0; c < s->in_c; c += 4) {
                td_winograd_tile(s, x + c, iy, ix, 0, step, to + 2 * c);
            }
        }
    }
}

#if TD_DSP_LOOPS

/* A word of two output channels times the words of four tiles. */
#ifdef TD_DSP_FEW_REGISTERS
#define TD_WINOGRAD_WORD(i)                  \
    "ldr %[a], [%[p], #8*" #i "]\n"          \
    "ldr %[b], [%[p], #8*" #i "+4]\n"        \
    "ldr %[x], [%[q], #16*" #i "]\n"         \
    "smlad %0, %[x], %[a], %0\n"             \
    "smlad %4, %[x], %[b], %4\n"             \
    "ldr %[x], [%[q], #16*" #i "+4]\n"       \
    "smlad %1, %[x], %[a], %1\n"             \
    "smlad %5, %[x], %[b], %5\n"             \
    "ldr %[x], [%[q], #16*" #i "+8]\n"       \
    "smlad %2, %[x], %[a], %2\n"             \
    "smlad %6, %[x], %[b], %6\n"             \
    "ldr %[x], [%[q], #16*" #i "+12]\n"      \
    "smlad %3, %[x], %[a], %3\n"             \
    "smlad %7, %[x], %[b], %7\n"
#define TD_WINOGRAD_SECOND
#else
#define TD_WINOGRAD_WORD(i)                  \
    "ldr %[a], [%[p], #8*" #i "]\n"          \
    "ldr %[b], [%[p], #8*" #i "+4]\n"        \
    "ldr %[x], [%[q], #16*" #i "]\n"         \
    "ldr %[z], [%[q], #16*" #i "+4]\n"       \
    "smlad %0, %[x], %[a], %0\n"             \
    "smlad %4, %[x], %[b], %4\n"             \
    "smlad %1, %[z], %[a], %1\n"             \
    "smlad %5, %[z], %[b], %5\n"             \
    "ldr %[x], [%[q], #16*" #i "+8]\n"       \
    "ldr %[z], [%[q], #16*" #i "+12]\n"      \
    "smlad %2, %[x], %[a], %2\n"             \
    "smlad %6, %[x], %[b], %6\n"             \
    "smlad %3, %[z], %[a], %3\n"             \
    "smlad %7, %[z], %[b], %7\n"
#define TD_WINOGRAD_SECOND , [z] "=&r"(second)
#endif

#define TD_WINOGRAD_TWO TD_WINOGRAD_WORD(0) TD_WINOGRAD_WORD(1)
#define TD_WINOGRAD_FOUR TD_WINOGRAD_TWO TD_WINOGRAD_WORD(2) TD_WINOGRAD_WORD(3)
#define TD_WINOGRAD_EIGHT \
    TD_WINOGRAD_FOUR TD_WINOGRAD_WORD(4) TD_WINOGRAD_WORD(5) TD_WINOGRAD_WORD(6) TD_WINOGRAD_WORD(7)

/* The end of the loop waits in memory, for there is no register left. */
#define TD_WINOGRAD_LOOP(words, count)                                                                      \
    __asm__ volatile("1:\n" words "add %[p], #8*" #count "\n"                                                \
                     "add %[q], #16*" #count "\n"                                                            \
                     "ldr %[a], %[end]\n"                                                                   \
                     "cmp %[q], %[a]\n"                                                                     \
                     "bne 1b\n"                                                                             \
                     : "+r"(a0), "+r"(a1), "+r"(a2), "+r"(a3), "+r"(b0), "+r"(b1), "+r"(b2), "+r"(b3),       \
                       [p] "+r"(u), [q] "+r"(v), [a] "=&r"(first), [b] "=&r"(other),                        \
                       [x] "=&r"(word)TD_WINOGRAD_SECOND                                                    \
                     : [end] "m"(end)                                                                       \
                     : "cc", "memory")

/* One of the 16 products of matrices: two output channels of four tiles. */
static TD_INLINE void td_winograd_dot(const td_dsp_winograd_shape *s, const int32_t *u, const int32_t *v,
                                      int32_t *m)
{
    const int32_t *const end = v + 2 * s->in_c;
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
    uint32_t first, other, word;
#ifndef TD_DSP_FEW_REGISTERS
    uint32_t second;
#endif
    if (s->unroll == 8) {
        TD_WINOGRAD_LOOP(TD_WINOGRAD_EIGHT, 8);
    } else if (s->unroll == 4) {
        TD_WINOGRAD_LOOP(TD_WINOGRAD_FOUR, 4);
    } else {
        TD_WINOGRAD_LOOP(TD_WINOGRAD_TWO, 2);
    }
    m[0] = a0;
    m[1] = a1;
    m[2] = a2;
    m[3] = a3;
    m[4] = b0;
    m[5] = b1;
    m[6] = b2;
    m[7] = b3;
}

#else

static TD_INLINE void td_winograd_dot(const td_dsp_winograd_shape *s, const int32_t *u, const int32_t *v,
                                      int32_t *m)
{
    for (int32_t i = 0; i < 8; i++) {
        m[i] = 0;
    }
    for (int32_t k = 0; k < s->in_c / 2; k++) {
        for (int32_t t = 0; t < 4; t++) {
            m[t] = td_smlad((uint32_t)v[4 * k + t], (uint32_t)u[2 * k], m[t]);
            m[4 + t] = td_smlad((uint32_t)v[4 * k + t], (uint32_t)u[2 * k + 1], m[4 + t]);
        }
    }
}

#endif

typedef struct {
    uint32_t first, second;
} td_winograd_pair;

/* A^T applied to four values, of which the last two of the matrix are negative. */
static TD_INLINE td_winograd_pair td_winograd_sums(uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3)
{
    return (td_winograd_pair){ m0 + m1 + m2, m1 - m2 - m3 };
}

static TD_INLINE td_winograd_pair td_winograd_column(const int32_t *m)
{
    return td_winograd_sums((uint32_t)m[0], (uint32_t)m[32], (uint32_t)m[64], (uint32_t)m[96]);
}

/* `sum` is four times a sum of products; `bias` is doubled. */
static TD_INLINE int8_t td_winograd_output(const td_dsp_winograd_shape *s, uint32_t sum, int32_t bias,
                                           td_dsp_scale scale)
{
    return td_dsp_requantize(((int32_t)sum >> 1) + bias, scale, &s->out);
}

/* 2x2 outputs of one channel and one tile, as far as they are inside. `c` holds twice the bias, multiplier,
 * offset and shift. */
static TD_INLINE void td_winograd_store(const td_dsp_winograd_shape *s, const int32_t *c, const int32_t *m,
                                        int32_t rows, int32_t columns, int8_t *y)
{
    const int32_t bias = c[0];
    const td_dsp_scale scale = { c[1], c[2], c[3] };
    const int32_t down = s->out_w * s->outputs;
    const td_winograd_pair c0 = td_winograd_column(m);
    const td_winograd_pair c1 = td_winograd_column(m + 8);
    const td_winograd_pair c2 = td_winograd_column(m + 16);
    const td_winograd_pair c3 = td_winograd_column(m + 24);
    const td_winograd_pair top = td_winograd_sums(c0.first, c1.first, c2.first, c3.first);
    const td_winograd_pair bottom = td_winograd_sums(c0.second, c1.second, c2.second, c3.second);
    y[0] = td_winograd_output(s, top.first, bias, scale);
    if (s->out_w % 2 == 0 || columns > 1) {
        y[s->outputs] = td_winograd_output(s, top.second, bias, scale);
    }
    if (s->out_h % 2 == 0 || rows > 1) {
        y[down] = td_winograd_output(s, bottom.first, bias, scale);
        if (s->out_w % 2 == 0 || columns > 1) {
            y[down + s->outputs] = td_winograd_output(s, bottom.second, bias, scale);
        }
    }
}

/* All channels of a block of tiles whose V is there. */
static TD_INLINE void td_winograd_outputs(const td_dsp_winograd_shape *s, const int32_t *weights, const int32_t *v,
                                          int32_t *m, int32_t count, int32_t rows, int32_t columns, int8_t *y)
{
    const int32_t step = 2 * s->in_c;
    for (int32_t o = 0; o < s->outputs; o += 2) {
        for (int32_t i = 0; i < 16; i++) {
            for (int32_t t = 0; t < count; t += 4) {
                td_winograd_dot(s, weights, v + (4 * t + i) * step, m + 32 * t + 8 * i);
            }
            weights += s->in_c;
        }
        for (int32_t t = 0; t < count; t++) {
            const int32_t *const from = m + t / 4 * 128 + t % 4;
            const int32_t width = columns - 2 * t;
            td_winograd_store(s, weights, from, rows, width, y + 2 * t * s->outputs + o);
            if (o + 1 < s->outputs) {
                td_winograd_store(s, weights + 4, from + 4, rows, width, y + 2 * t * s->outputs + o + 1);
            }
        }
        weights += 8;
    }
}

/* in_c is a multiple of 4. `weights`: for each pair of output channels U, [16][word of channels][channel of
 * the pair], and four constants of each. `scratch` holds 32 * in_c words for each four tiles of a block, and
 * 128 words more. */
static TD_INLINE void td_dsp_winograd(const td_dsp_winograd_shape *s, const int32_t *weights, const int8_t *x,
                                      int8_t *y, int8_t *scratch)
{
    int32_t *const v = (int32_t *)(void *)scratch;
    int32_t *const m = v + 8 * s->tiles * s->in_c;
    const int32_t across = (s->out_w + 1) / 2;
    for (int32_t image = 0; image < s->images; image++) {
        for (int32_t ty = 0; 2 * ty < s->out_h; ty++) {
            for (int32_t tx = 0; tx < across; tx += s->tiles) {
                const int32_t count = across - tx < s->tiles ? across - tx : s->tiles;
                td_winograd_input(s, x, ty, tx, count, v);
                td_winograd_outputs(s, weights, v, m, count, s->out_h - 2 * ty, s->out_w - 2 * tx,
                                    y + (2 * ty * s->out_w + 2 * tx) * s->outputs);
            }
        }
        x += s->in_h * s->in_w * s->in_c;
        y += s->out_h * s->out_w * s->outputs;
    }
}

#endif
