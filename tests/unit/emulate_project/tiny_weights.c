#include "tiny_weights.h"

#define ROW(a) (a), -(a), (a) + 1, 3, -5, (a) / 2, 7, -(a) / 3
#define ROWS(a) ROW(a), ROW(a + 3), ROW(a + 5), ROW(a + 9), ROW(a + 11), ROW(a + 17), ROW(a + 21), ROW(a + 30)
const int8_t tiny_01_weights[64 * 8] = {ROWS(1), ROWS(4), ROWS(9), ROWS(16), ROWS(25), ROWS(36), ROWS(49), ROWS(64)};

#define BIAS(a) (a), -2 * (a), 31 * (a), 5, -77, 1000 - (a), 12, -3
const int32_t tiny_01_bias[64] = {BIAS(1), BIAS(4), BIAS(9), BIAS(16), BIAS(25), BIAS(36), BIAS(49), BIAS(64)};

/* Nothing refers to this one: it must not be in the firmware. */
const int8_t tiny_02_unused[100] = {1, 2, 3};
