/* ADD, MUL, RELU, QUANTIZE, LOGISTIC: element by element; the output may be the place of an input. */
#ifndef TD_KERNELS_ELEMENTWISE_H
#define TD_KERNELS_ELEMENTWISE_H

#include "td_kernels.h"

/* Output sizes, and the step of each operand along each axis: 0 where it is broadcast. */
typedef struct {
    int32_t size[4];
    int32_t step_a[4];
    int32_t step_b[4];
} td_broadcast;

typedef struct {
    td_broadcast shape;
    int32_t zero_point_a, zero_point_b;
    int32_t multiplier_a, shift_a, multiplier_b, shift_b;
    int32_t multiplier, shift;
    td_output out;
} td_add_shape;

/* Both inputs are widened by 20 bits and brought to a common scale before they are added. */
static TD_INLINE int32_t td_add_one(const td_add_shape *s, int32_t a, int32_t b)
{
    const int32_t wide = (int32_t)1 << 20;
    const int32_t scaled_a = td_scale((a - s->zero_point_a) * wide, s->multiplier_a, s->shift_a);
    const int32_t scaled_b = td_scale((b - s->zero_point_b) * wide, s->multiplier_b, s->shift_b);
    return td_requantize(scaled_a + scaled_b, s->multiplier, s->shift, &s->out);
}

static TD_INLINE void td_add(const td_add_shape *s, const int8_t *a, const int8_t *b, int8_t *y)
{
    const td_broadcast *d = &s->shape;
    for (int32_t i = 0; i < d->size[0]; i++) {
        for (int32_t j = 0; j < d->size[1]; j++) {
            for (int32_t k = 0; k < d->size[2]; k++) {
                const int8_t *from_a = a + i * d->step_a[0] + j * d->step_a[1] + k * d->step_a[2];
                const int8_t *from_b = b + i * d->step_b[0] + j * d->step_b[1] + k * d->step_b[2];
                for (int32_t n = 0; n < d->size[3]; n++) {
                    *y++ = (int8_t)td_add_one(s, from_a[n * d->step_a[3]], from_b[n * d->step_b[3]]);
                }
            }
        }
    }
}

typedef struct {
    td_broadcast shape;
    int32_t zero_point_a, zero_point_b;
    int32_t multiplier, shift;
    td_output out;
} td_mul_shape;

static TD_INLINE void td_mul(const td_mul_shape *s, const int8_t *a, const int8_t *b, int8_t *y)
{
    const td_broadcast *d = &s->shape;
    for (int32_t i = 0; i < d->size[0]; i++) {
        for (int32_t j = 0; j < d->size[1]; j++) {
            for (int32_t k = 0; k < d->size[2]; k++) {
                const int8_t *from_a = a + i * d->step_a[0] + j * d->step_a[1] + k * d->step_a[2];
                const int8_t *from_b = b + i * d->step_b[0] + j * d->step_b[1] + k * d->step_b[2];
                for (int32_t n = 0; n < d->size[3]; n++) {
                    const int32_t product = (from_a[n * d->step_a[3]] - s->zero_point_a) *
                                            (from_b[n * d->step_b[3]] - s->zero_point_b);
                    *y++ = (int8_t)td_requantize(product, s->multiplier, s->shift, &s->out);
                }
            }
        }
    }
}

/* A change of scale, zero point or signedness, with a clamp; `unsigned_in` and `unsigned_out` mark uint8. */
typedef struct {
    int32_t elements;
    int32_t unsigned_in, unsigned_out;
    int32_t zero_point;
    int32_t multiplier, shift;
    td_output out;
} td_rescale_shape;

static TD_INLINE void td_rescale(const td_rescale_shape *s, const void *x, void *y)
{
    const int8_t *from = (const int8_t *)x;
    int8_t *to = (int8_t *)y;
    for (int32_t i = 0; i < s->elements; i++) {
        const int32_t v = s->unsigned_in ? (int32_t)(uint8_t)from[i] : (int32_t)from[i];
        const int32_t q = td_requantize(v - s->zero_point, s->multiplier, s->shift, &s->out);
        to[i] = (int8_t)(s->unsigned_out && q > INT8_MAX ? q - 256 : q);
    }
}

/* Any function of one int8: table[i] holds the value for i - 128. */
static TD_INLINE void td_lookup(int32_t elements, const int8_t *table, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < elements; i++) {
        y[i] = table[x[i] + 128];
    }
}

#endif
