/* SIGN: -1 or +1 by a threshold, one byte an element. */
#ifndef TD_KERNELS_SIGN_H
#define TD_KERNELS_SIGN_H

#include "td_kernels.h"

static TD_INLINE void td_sign(int32_t n, int32_t threshold, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < n; i++) {
        y[i] = x[i] >= threshold ? 1 : -1;
    }
}

#endif
