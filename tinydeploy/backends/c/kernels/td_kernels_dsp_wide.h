/* CONV_2D and FULLY_CONNECTED on the DSP extension with weights of 16 bits, which planes of signs with several
 * coefficients add up to: two channels and four pixels at a time, 11 instructions for 16 products. The weights of
 * some outputs are unpacked into working memory and used for all pixels. */
#ifndef TD_KERNELS_DSP_WIDE_H
#define TD_KERNELS_DSP_WIDE_H

#include "td_kernels_dsp_stored.h"

/* Fields of 1 or 2 bits stand for step * field + low. The fields of a plane are as those of td_dsp_fields, and
 * take `plane_words` words. */
typedef struct {
    td_dsp_fields fields;
    int32_t planes, plane_words;
} td_dsp_wide_fields;

/* The lanes of one channel: of its fields, in bytes 0 and 2, the lower bit counts `once`, the upper one twice. */
static TD_INLINE uint32_t td_dsp_wide_lanes(int32_t bits, uint32_t fields, int32_t once)
{
    const uint32_t lanes = (fields & 0x00010001u) * ((uint32_t)once & 0xffffu);
    return bits == 1 ? lanes : td_add_halves(lanes, (fields >> 1 & 0x00010001u) * ((uint32_t)(2 * once) & 0xffffu));
}

/* Two words of lanes of channel A and two of B, by turns, plus what the planes before have left there; sums wrap,
 * and the last one fits. */
static TD_INLINE void td_dsp_add_plane(const td_dsp_fields *f, td_dsp_two_words v, int32_t a, int32_t b, int32_t *to)
{
    to[0] = (int32_t)td_add_halves((uint32_t)to[0], td_dsp_wide_lanes(f->bits, v.first >> 8, a));
    to[1] = (int32_t)td_add_halves((uint32_t)to[1], td_dsp_wide_lanes(f->bits, v.first, b));
    to[2] = (int32_t)td_add_halves((uint32_t)to[2], td_dsp_wide_lanes(f->bits, v.second >> 8, a));
    to[3] = (int32_t)td_add_halves((uint32_t)to[3], td_dsp_wide_lanes(f->bits, v.second, b));
}

/* The weights of a pair of channels; `coefficients` are those of both, [channel][plane]. */
static TD_INLINE void td_dsp_unpack_wide(const td_dsp_wide_fields *f, const int32_t *fields,
                                         const int16_t *coefficients, int32_t first, int32_t words, int32_t *to)
{
    uint32_t low_a = 0;
    uint32_t low_b = 0;
    for (int32_t p = 0; p < f->planes; p++) {
        low_a += (uint32_t)(f->fields.low * coefficients[p]);
        low_b += (uint32_t)(f->fields.low * coefficients[p + f->planes]);
    }
    low_a = td_pack_low(low_a, low_a);
    low_b = td_pack_low(low_b, low_b);
    for (int32_t i = 0; i < words; i += 2) {
        to[0] = to[2] = (int32_t)low_a;
        to[1] = to[3] = (int32_t)low_b;
        for (int32_t p = 0; p < f->planes; p++) {
            const td_dsp_two_words v = td_dsp_fields_at(&f->fields, fields + p * f->plane_words, first + i);
            td_dsp_add_plane(&f->fields, v, f->fields.step * coefficients[p],
                             f->fields.step * coefficients[p + f->planes], to);
        }
        to += 4;
    }
}

#if TD_DSP_LOOPS

#ifdef TD_DSP_FEW_REGISTERS
#define TD_DSP_WIDE_STEP               \
    "ldr %[a], [%[p]], #4\n"           \
    "ldr %[b], [%[p]], #4\n"           \
    "ldr %[x], [%[q]], #4\n"           \
    "smlad %0, %[x], %[a], %0\n"       \
    "smlad %4, %[x], %[b], %4\n"       \
    "ldr %[x], [%[q]], #4\n"           \
    "smlad %1, %[x], %[a], %1\n"       \
    "smlad %5, %[x], %[b], %5\n"       \
    "ldr %[x], [%[q]], #4\n"           \
    "smlad %2, %[x], %[a], %2\n"       \
    "smlad %6, %[x], %[b], %6\n"       \
    "ldr %[x], [%[q]], #4\n"           \
    "smlad %3, %[x], %[a], %3\n"       \
    "smlad %7, %[x], %[b], %7\n"
#else
#define TD_DSP_WIDE_STEP               \
    "ldrd %[a], %[b], [%[p]], #8\n"    \
    "ldrd %[x], %[z], [%[q]], #8\n"    \
    "smlad %0, %[x], %[a], %0\n"       \
    "smlad %4, %[x], %[b], %4\n"       \
    "smlad %1, %[z], %[a], %1\n"       \
    "smlad %5, %[z], %[b], %5\n"       \
    "ldrd %[x], %[z], [%[q]], #8\n"    \
    "smlad %2, %[x], %[a], %2\n"       \
    "smlad %6, %[x], %[b], %6\n"       \
    "smlad %3, %[z], %[a], %3\n"       \
    "smlad %7, %[z], %[b], %7\n"
#endif

/* The end of the loop waits in memory, for there is no register left. */
#define TD_DSP_WIDE(steps)                                                                                  \
    __asm__ volatile("1:\n" steps "ldr %[a], %[end]\n"                                                      \
                     "cmp %[q], %[a]\n"                                                                     \
                     "bne 1b\n"                                                                             \
                     : "+r"(a0), "+r"(a1), "+r"(a2), "+r"(a3), "+r"(b0), "+r"(b1), "+r"(b2), "+r"(b3),       \
                       [p] "+r"(w), [q] "+r"(x), [a] "=&r"(wa), [b] "=&r"(wb),                              \
                       [x] "=&r"(first)TD_DSP_SECOND                                                        \
                     : [end] "m"(end)                                                                       \
                     : "cc", "memory")

#define TD_DSP_WIDE_TWO TD_DSP_WIDE_STEP TD_DSP_WIDE_STEP

static TD_INLINE const int32_t *td_dsp_wide_sum_4(const td_dsp_dot_shape *s, const int32_t *x, const int32_t *w,
                                                  td_dsp_sums *sums)
{
    const int32_t *const end = x + 4 * s->words;
    int32_t a0 = w[0];
    int32_t b0 = w[1];
    int32_t a1 = a0, a2 = a0, a3 = a0, b1 = b0, b2 = b0, b3 = b0;
    uint32_t wa, wb, first;
#ifndef TD_DSP_FEW_REGISTERS
    uint32_t second;
#endif
    w += 2;
    if (s->words % 8 == 0) {
        TD_DSP_WIDE(TD_DSP_WIDE_TWO TD_DSP_WIDE_TWO TD_DSP_WIDE_TWO TD_DSP_WIDE_TWO);
    } else if (s->words % 6 == 0) {
        TD_DSP_WIDE(TD_DSP_WIDE_TWO TD_DSP_WIDE_TWO TD_DSP_WIDE_TWO);
    } else if (s->words % 4 == 0) {
        TD_DSP_WIDE(TD_DSP_WIDE_TWO TD_DSP_WIDE_TWO);
    } else {
        TD_DSP_WIDE(TD_DSP_WIDE_TWO);
    }
    *sums = (td_dsp_sums){ a0, a1, a2, a3, b0, b1, b2, b3 };
    return w;
}

#else

static TD_INLINE const int32_t *td_dsp_wide_sum_4(const td_dsp_dot_shape *s, const int32_t *x, const int32_t *w,
                                                  td_dsp_sums *sums)
{
    int32_t a[4] = { w[0], w[0], w[0], w[0] };
    int32_t b[4] = { w[1], w[1], w[1], w[1] };
    w += 2;
    for (int32_t i = 0; i < s->words; i++) {
        for (int32_t p = 0; p < 4; p++) {
            const uint32_t v = (uint32_t)*x++;
            a[p] = td_smlad(v, (uint32_t)w[0], a[p]);
            b[p] = td_smlad(v, (uint32_t)w[1], b[p]);
        }
        w += 2;
    }
    *sums = (td_dsp_sums){ a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3] };
    return w;
}

#endif

static TD_INLINE const int32_t *td_dsp_wide_sum_1(const td_dsp_dot_shape *s, const int32_t *x, const int32_t *w,
                                                  td_dsp_sums *sums)
{
    int32_t a = w[0];
    int32_t b = w[1];
    w += 2;
    for (const int32_t *const end = x + s->words; x < end;) {
        const uint32_t v = (uint32_t)*x++;
        a = td_smlad(v, (uint32_t)*w++, a);
        b = td_smlad(v, (uint32_t)*w++, b);
    }
    *sums = (td_dsp_sums){ a, 0, 0, 0, b, 0, 0, 0 };
    return w;
}

/* td_dsp_dot for such weights. */
static TD_INLINE void td_dsp_wide_dot(const td_dsp_dot_shape *s, int32_t pixels, const int32_t *x, const int32_t *w,
                                      int8_t *y)
{
    const int32_t pitch = s->pitch;
    for (int32_t o = 0; o < s->outputs; o += 2) {
        td_dsp_sums sums;
        w = pixels == 4 ? td_dsp_wide_sum_4(s, x, w, &sums) : td_dsp_wide_sum_1(s, x, w, &sums);
        const td_dsp_scale a = td_dsp_next_scale(s, &w);
        const td_dsp_scale b = td_dsp_next_scale(s, &w);
        y[0] = td_dsp_requantize(2 * sums.wide0, a, &s->out);
        if (pixels == 4) {
            y[pitch] = td_dsp_requantize(2 * sums.wide1, a, &s->out);
            y[2 * pitch] = td_dsp_requantize(2 * sums.wide2, a, &s->out);
            y[3 * pitch] = td_dsp_requantize(2 * sums.wide3, a, &s->out);
        }
        if (o + 1 < s->outputs) {
            y[1] = td_dsp_requantize(2 * sums.narrow0, b, &s->out);
            if (pixels == 4) {
                y[pitch + 1] = td_dsp_requantize(2 * sums.narrow1, b, &s->out);
                y[2 * pitch + 1] = td_dsp_requantize(2 * sums.narrow2, b, &s->out);
                y[3 * pitch + 1] = td_dsp_requantize(2 * sums.narrow3, b, &s->out);
            }
        }
        y += 2;
    }
}

/* `block` outputs, an even number unless it is all of them, are unpacked at a time. A fully connected layer is a
 * convolution of 1x1 over one row of pixels. */
typedef struct {
    td_dsp_conv_2d_shape conv;
    td_dsp_wide_fields wide;
    int32_t block, pair_words;
} td_dsp_wide_conv_2d_shape;

static TD_INLINE void td_dsp_wide_image(const td_dsp_conv_2d_shape *s, const int32_t *weights, const int8_t *x,
                                        int8_t *y, int32_t *lanes, int8_t *bytes)
{
    const int32_t pixels = s->out_h * s->out_w;
    int32_t pixel = 0;
    for (; pixel + 4 <= pixels; pixel += 4) {
        for (int32_t p = 0; p < 4; p++) {
            td_dsp_window(s, x, pixel + p, 4, lanes + p, bytes);
        }
        td_dsp_wide_dot(&s->dot, 4, lanes, weights, y);
        y += 4 * s->dot.pitch;
    }
    for (; pixels % 4 && pixel < pixels; pixel++) {
        td_dsp_window(s, x, pixel, 1, lanes, bytes);
        td_dsp_wide_dot(&s->dot, 1, lanes, weights, y);
        y += s->dot.pitch;
    }
}

/* For each pair two biases, the weights, two scales unless all channels have them in common. */
static TD_INLINE void td_dsp_unpack_wide_pairs(const td_dsp_wide_conv_2d_shape *s, const td_dsp_stored *w,
                                               const int16_t *coefficients, int32_t first, int32_t pairs, int32_t *to)
{
    const td_dsp_dot_shape *const dot = &s->conv.dot;
    for (int32_t pair = first; pair < first + pairs; pair++) {
        to[0] = w->bias[2 * pair];
        to[1] = w->bias[2 * pair + 1];
        td_dsp_unpack_wide(&s->wide, w->fields, coefficients + 2 * pair * s->wide.planes, pair * dot->words, dot->words,
                           to + 2);
        to += 2 + 2 * dot->words;
        if (!dot->common) {
            to = td_dsp_put_scale(td_dsp_scale_of(&s->wide.fields, w, 2 * pair, &dot->out), to);
            to = td_dsp_put_scale(td_dsp_scale_of(&s->wide.fields, w, 2 * pair + 1, &dot->out), to);
        }
    }
}

/* `scratch` holds the unpacked constants of a block, then the lanes of four pixels, or of one where an image has
 * fewer, and the bytes of a window where in_c is no multiple of 4. */
static TD_INLINE void td_dsp_wide_conv_2d(const td_dsp_wide_conv_2d_shape *s, const td_dsp_stored *w,
                                          const int16_t *coefficients, const int8_t *x, int8_t *y, int8_t *scratch)
{
    int32_t *const stream = (int32_t *)(void *)scratch;
    int32_t *const lanes = stream + (s->block + 1) / 2 * s->pair_words;
    const int32_t group = s->conv.out_h * s->conv.out_w >= 4 ? 4 : 1;
    int8_t *const bytes = (int8_t *)(void *)(lanes + group * s->conv.dot.words);
    const int32_t outputs = s->conv.dot.outputs;
    for (int32_t o = 0; o < outputs; o += s->block) {
        td_dsp_conv_2d_shape part = s->conv;
        part.dot.outputs = outputs - o < s->block ? outputs - o : s->block;
        td_dsp_unpack_wide_pairs(s, w, coefficients, o / 2, (part.dot.outputs + 1) / 2, stream);
        for (int32_t image = 0; image < s->conv.images; image++) {
            td_dsp_wide_image(&part, stream, x + image * s->conv.in_h * s->conv.in_w * s->conv.in_c,
                              y + image * s->conv.out_h * s->conv.out_w * part.dot.pitch + o, lanes, bytes);
        }
    }
}

#endif
