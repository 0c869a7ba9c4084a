/* A hand-written stand-in for an exported model: 256 bytes in, 64 bytes out, two layers. */
#ifndef TINY_H
#define TINY_H
#include <stdint.h>

#define TINY_ARENA_SIZE 321
#define TINY_INPUT_SIZE 256
#define TINY_OUTPUT_SIZE 64

int8_t *tiny_input(void);
int8_t *tiny_output(void);
int tiny_run(const int8_t *input, int8_t *output);

#endif
