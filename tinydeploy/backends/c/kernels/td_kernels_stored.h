/* Weights of fewer than eight bits, as they lie in flash, and how they become integers again. */
#ifndef TD_KERNELS_STORED_H
#define TD_KERNELS_STORED_H

#include "td_kernels.h"

/* A field of `bits` bits stands for step * field + low, or for an entry of a table. Fields follow each other
 * from the low bits of a byte to its high ones, without a gap. With `planes` of them, each plane is a stream
 * of its own, and a weight is the sum of coefficient * what the field of the plane stands for. */
typedef struct {
    int32_t bits, step, low;
    int32_t planes;      /* 0 where the fields are the weights themselves */
    int32_t plane_bytes; /* from one plane to the next */
    int32_t size;        /* bytes of an unpacked weight, by what the exporter proved: 1, 2 or 4 */
} td_form;

typedef struct {
    const uint8_t *fields;
    const int8_t *table;         /* of a codebook, else NULL */
    const int16_t *coefficients; /* [output][plane] */
} td_stored;

static TD_INLINE int32_t td_unpacked(const int8_t *weights, int32_t i, int32_t size)
{
    if (size == 1) {
        return weights[i];
    }
    return size == 2 ? ((const int16_t *)(const void *)weights)[i] : ((const int32_t *)(const void *)weights)[i];
}

static TD_INLINE void td_put_unpacked(int8_t *weights, int32_t i, int32_t size, int32_t v)
{
    if (size == 1) {
        weights[i] = (int8_t)v;
    } else if (size == 2) {
        ((int16_t *)(void *)weights)[i] = (int16_t)v;
    } else {
        ((int32_t *)(void *)weights)[i] = v;
    }
}

/* `count` weights of one plane, times its coefficient, from field number `first` on. They are added to what
 * the planes before have left in `to`; sums wrap, and the last one fits. */
static TD_INLINE void td_unpack_plane(const td_form *f, const uint8_t *fields, const int8_t *table, int32_t first,
                                      int32_t count, int32_t coefficient, int32_t later, int8_t *to)
{
    const int32_t position = first * f->bits;
    const uint32_t mask = ((uint32_t)1 << f->bits) - 1u;
    const uint8_t *from = fields + (position >> 3);
    uint32_t buffer = (uint32_t)*from++ >> (position & 7);
    int32_t have = 8 - (position & 7);
    for (int32_t i = 0; i < count; i++) {
        if (have < f->bits) {
            buffer |= (uint32_t)*from++ << have;
            have += 8;
        }
        const int32_t field = (int32_t)(buffer & mask);
        buffer >>= f->bits;
        have -= f->bits;
        int32_t v = table != NULL ? table[field] : f->step * field + f->low;
        if (f->planes) {
            v = coefficient * v + (later ? td_unpacked(to, i, f->size) : 0);
        }
        td_put_unpacked(to, i, f->size, v);
    }
}

/* The `depth` weights of output number `output`. */
static TD_INLINE void td_unpack(const td_form *f, const td_stored *w, int32_t output, int32_t depth, int8_t *to)
{
    if (f->planes == 0) {
        td_unpack_plane(f, w->fields, w->table, output * depth, depth, 1, 0, to);
        return;
    }
    for (int32_t p = 0; p < f->planes; p++) {
        td_unpack_plane(f, w->fields + p * f->plane_bytes, NULL, output * depth, depth,
                        w->coefficients[output * f->planes + p], p, to);
    }
}

#endif
