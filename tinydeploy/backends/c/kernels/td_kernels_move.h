/* PAD, CONCATENATION and plain copies. */
#ifndef TD_KERNELS_MOVE_H
#define TD_KERNELS_MOVE_H

#include "td_kernels.h"

/* int8 or uint8. */
static TD_INLINE void td_copy(int32_t elements, const void *x, void *y)
{
    const int8_t *from = (const int8_t *)x;
    int8_t *to = (int8_t *)y;
    for (int32_t i = 0; i < elements; i++) {
        to[i] = from[i];
    }
}

/* `blocks` runs of `block` values, written `pitch` values apart: one input of a concatenation. */
typedef struct {
    int32_t blocks, block, pitch;
} td_blocks;

static TD_INLINE void td_copy_blocks(const td_blocks *s, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < s->blocks; i++) {
        td_copy(s->block, x + i * s->block, y + i * s->pitch);
    }
}

typedef struct {
    td_blocks shape;
    int32_t zero_point, multiplier, shift;
    td_output out;
} td_rescale_blocks_shape;

static TD_INLINE void td_rescale_blocks(const td_rescale_blocks_shape *s, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < s->shape.blocks; i++) {
        for (int32_t j = 0; j < s->shape.block; j++) {
            const int32_t v = x[i * s->shape.block + j] - s->zero_point;
            y[i * s->shape.pitch + j] = (int8_t)td_requantize(v, s->multiplier, s->shift, &s->out);
        }
    }
}

/* Input sizes and the padding around them, outermost axis first. */
typedef struct {
    int32_t size[4];
    int32_t before[4];
    int32_t after[4];
    int32_t fill;
} td_pad_shape;

static TD_INLINE int8_t *td_fill(int8_t *y, int32_t elements, int32_t value)
{
    for (int32_t i = 0; i < elements; i++) {
        *y++ = (int8_t)value;
    }
    return y;
}

static TD_INLINE void td_pad(const td_pad_shape *s, const int8_t *x, int8_t *y)
{
    const int32_t line = s->before[3] + s->size[3] + s->after[3];
    const int32_t plane = (s->before[2] + s->size[2] + s->after[2]) * line;
    const int32_t volume = (s->before[1] + s->size[1] + s->after[1]) * plane;
    y = td_fill(y, s->before[0] * volume, s->fill);
    for (int32_t i = 0; i < s->size[0]; i++) {
        y = td_fill(y, s->before[1] * plane, s->fill);
        for (int32_t j = 0; j < s->size[1]; j++) {
            y = td_fill(y, s->before[2] * line, s->fill);
            for (int32_t k = 0; k < s->size[2]; k++) {
                y = td_fill(y, s->before[3], s->fill);
                td_copy(s->size[3], x, y);
                x += s->size[3];
                y = td_fill(y + s->size[3], s->after[3], s->fill);
            }
            y = td_fill(y, s->after[2] * line, s->fill);
        }
        y = td_fill(y, s->after[1] * plane, s->fill);
    }
    (void)td_fill(y, s->after[0] * volume, s->fill);
}

#endif
