/* Runs a model on the machine that compiled it: samples from stdin, for each its status and outputs to stdout.
 *
 * Arguments: "arena" or "outside", and the offset of outside buffers from a multiple of 16. Outside buffers are
 * allocated to the byte, so that a sanitizer sees any access beside them. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "@NAME@.h"

#define INPUTS @INPUTS@
#define OUTPUTS @OUTPUTS@

static const size_t sizes[INPUTS + OUTPUTS] = {@SIZES@};

static int run(void *const *places)
{
#if INPUTS == 1 && OUTPUTS == 1
    return @NAME@_run(places[0], places[1]);
#else
    /* struct NAME_io is the pointers one behind the other, whatever its members are called. */
    struct @NAME@_io io;
    char as_large[sizeof io == (INPUTS + OUTPUTS) * sizeof(void *) ? 1 : -1];
    (void)as_large;
    memcpy(&io, places, sizeof io);
    return @NAME@_run(&io);
#endif
}

int main(int argc, char **argv)
{
    void *places[INPUTS + OUTPUTS] = {@PLACES@};
    if (argc != 3) {
        return 2;
    }
    if (strcmp(argv[1], "outside") == 0) {
        const size_t offset = (size_t)atoi(argv[2]);
        for (int i = 0; i < INPUTS + OUTPUTS; i++) {
            char *block = malloc(offset + sizes[i]);
            if (block == NULL) {
                return 2;
            }
            places[i] = block + offset;
        }
    }
    for (;;) {
        for (int i = 0; i < INPUTS; i++) {
            if (fread(places[i], 1, sizes[i], stdin) != sizes[i]) {
                return i == 0 && feof(stdin) ? fflush(stdout) : 2;
            }
        }
        const int32_t status = run(places);
        fwrite(&status, sizeof status, 1, stdout);
        for (int i = INPUTS; i < INPUTS + OUTPUTS; i++) {
            fwrite(places[i], 1, sizes[i], stdout);
        }
    }
}
