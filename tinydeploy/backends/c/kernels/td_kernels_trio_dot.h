/* Dot products of six pixels with one output channel at a time, three products in two words.
 *
 * The lanes of a block are four words for each place of the window: two of pixels 0 to 2, two of 3 to 5.
 * The weights of a layer are one stream of words. For each channel: the words of its requantization, then its
 * weights, four in a word, the first in the low byte. A window whose sums could leave 21 bits goes in
 * several segments; each has `steps` weights, a multiple of 4. */
#ifndef TD_KERNELS_TRIO_DOT_H
#define TD_KERNELS_TRIO_DOT_H

#include "td_kernels_trio.h"

enum { TD_TRIO_PIXELS = 6, TD_TRIO_WORDS = 4 };

typedef struct {
    int32_t steps, segments, outputs;
    td_level_shape level;
} td_trio_dot_shape;

#if TD_TRIO_LOOPS

/* Two words of lanes at a time leave r7 to builds that keep a frame pointer. */
#if defined(__clang__)
#define TD_TRIO_LANES              \
    "ldm %[x]!, {r0, r1}\n"        \
    "muls r0, %[v], r0\n"          \
    "muls r1, %[v], r1\n"          \
    "add r8, r0\n"                 \
    "add r9, r1\n"                 \
    "ldm %[x]!, {r0, r1}\n"        \
    "muls r0, %[v], r0\n"          \
    "muls r1, %[v], r1\n"          \
    "add r10, r0\n"                \
    "add r11, r1\n"
#define TD_TRIO_CLOBBERED "r0", "r1", "cc", "memory"
#else
#define TD_TRIO_LANES                  \
    "ldm %[x]!, {r0, r1, r2, r3}\n"    \
    "muls r0, %[v], r0\n"              \
    "muls r1, %[v], r1\n"              \
    "muls r2, %[v], r2\n"              \
    "muls r3, %[v], r3\n"              \
    "add r8, r0\n"                     \
    "add r9, r1\n"                     \
    "add r10, r2\n"                    \
    "add r11, r3\n"
#define TD_TRIO_CLOBBERED "r0", "r1", "r2", "r3", "cc", "memory"
#endif

/* Four weights: 43 instructions for 24 products. */
#define TD_TRIO_STEPS          \
    "ldm %[w]!, {%[four]}\n"   \
    "sxtb %[v], %[four]\n"     \
    TD_TRIO_LANES              \
    "lsls %[v], %[four], #16\n" \
    "asrs %[v], %[v], #24\n"   \
    TD_TRIO_LANES              \
    "lsls %[v], %[four], #8\n" \
    "asrs %[v], %[v], #24\n"   \
    TD_TRIO_LANES              \
    "asrs %[v], %[four], #24\n" \
    TD_TRIO_LANES

#define TD_TRIO_SUM(steps)                                                                        \
    __asm__ volatile(".syntax unified\n"                                                          \
                     "1:\n" steps "cmp %[x], %[end]\n"                                            \
                     "bne 1b\n"                                                                   \
                     : [x] "+l"(x), [w] "+l"(w), [v] "=&l"(weight), [four] "=&l"(four), "+h"(a0), \
                       "+h"(b0), "+h"(a1), "+h"(b1)                                               \
                     : [end] "h"(end)                                                             \
                     : TD_TRIO_CLOBBERED)

/* Adds the sums of six pixels over one segment; returns the weights behind these. */
static TD_INLINE const int32_t *td_trio_sum(int32_t steps, const uint32_t *x, const int32_t *w,
                                            td_trio_sums *first, td_trio_sums *second)
{
    register const uint32_t *end __asm__("r12") = x + TD_TRIO_WORDS * steps;
    register uint32_t a0 __asm__("r8") = TD_TRIO_A;
    register uint32_t b0 __asm__("r9") = TD_TRIO_B;
    register uint32_t a1 __asm__("r10") = TD_TRIO_A;
    register uint32_t b1 __asm__("r11") = TD_TRIO_B;
    int32_t weight, four;
    if (steps % 8 == 0) {
        TD_TRIO_SUM(TD_TRIO_STEPS TD_TRIO_STEPS);
    } else {
        TD_TRIO_SUM(TD_TRIO_STEPS);
    }
    td_trio_add(first, (td_trio){ a0, b0 });
    td_trio_add(second, (td_trio){ a1, b1 });
    return w;
}

#else

static TD_INLINE const int32_t *td_trio_sum(int32_t steps, const uint32_t *x, const int32_t *w,
                                            td_trio_sums *first, td_trio_sums *second)
{
    td_trio t = { TD_TRIO_A, TD_TRIO_B };
    td_trio u = t;
    for (int32_t i = 0; i < steps; i += 4) {
        uint32_t four = (uint32_t)*w++;
        for (int32_t k = 0; k < 4; k++) {
            const uint32_t weight = (uint32_t)(int32_t)(int8_t)(uint8_t)four;
            t.a += weight * x[0];
            t.b += weight * x[1];
            u.a += weight * x[2];
            u.b += weight * x[3];
            x += TD_TRIO_WORDS;
            four >>= 8;
        }
    }
    td_trio_add(first, t);
    td_trio_add(second, u);
    return w;
}

#endif

/* Widens `count` values of three pixels to lanes; those of the other three pixels stand between them. */
static TD_INLINE void td_trio_widen(const int8_t *x0, const int8_t *x1, const int8_t *x2, int32_t count,
                                    uint32_t *to)
{
    for (int32_t i = 0; i < count; i++) {
        const td_trio t = td_trio_of(x0[i], x1[i], x2[i]);
        to[0] = t.a;
        to[1] = t.b;
        to += TD_TRIO_WORDS;
    }
}

/* The lanes behind the last place of the window meet weights of 0, but must be there. */
static TD_INLINE void td_trio_fill(const td_trio_dot_shape *s, int32_t depth, uint32_t *lanes)
{
    for (int32_t i = TD_TRIO_WORDS * depth; i < TD_TRIO_WORDS * s->steps * s->segments; i++) {
        lanes[i] = 0;
    }
}

/* All output channels of the first `pixels` of six pixels; pixel p goes to y + p * outputs. */
static TD_INLINE void td_trio_dot(const td_trio_dot_shape *s, int32_t pixels, const uint32_t *lanes,
                                  const int32_t *w, int8_t *y)
{
    for (int32_t o = 0; o < s->outputs; o++) {
        td_trio_sums first = { 0, 0, 0 };
        td_trio_sums second = { 0, 0, 0 };
        const int32_t *const scale = w;
        w += td_level_words(&s->level);
        for (int32_t segment = 0; segment < s->segments; segment++) {
            w = td_trio_sum(s->steps, lanes + segment * TD_TRIO_WORDS * s->steps, w, &first, &second);
        }
        td_trio_levels(&s->level, scale, &first);
        td_trio_store(first, pixels, s->outputs, y);
        td_trio_levels(&s->level, scale, &second);
        td_trio_store(second, pixels - 3, s->outputs, y + 3 * s->outputs);
        y++;
    }
}

#endif
