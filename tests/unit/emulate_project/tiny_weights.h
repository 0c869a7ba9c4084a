#ifndef TINY_WEIGHTS_H
#define TINY_WEIGHTS_H
#include <stdint.h>

extern const int8_t tiny_01_weights[64 * 8];
extern const int32_t tiny_01_bias[64];

#endif
