/* The caches in front of the flash: fully associative, the least recently used line given up. */
#ifndef TD_CACHE_H
#define TD_CACHE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define NOT_HELD (-2)
#define NOBODY (-1)

/* A cache that holds any line of the flash in any of its places and gives up the least recently used one. */
typedef struct {
    int32_t *place;       /* of each line of the flash, NOT_HELD where it is not in the cache */
    int32_t *newer, *older; /* of each place, NOBODY at the ends */
    int32_t *line;        /* of each place, NOBODY where it is empty */
    int32_t places, used, newest, oldest;
    uint32_t lines;
} td_cache;

static int cache_open(td_cache *c, uint32_t lines, int32_t places)
{
    c->lines = lines;
    c->places = places;
    if (places == 0)
        return 1;
    c->place = malloc(lines * sizeof *c->place);
    c->line = malloc((size_t)places * sizeof *c->line);
    c->newer = malloc((size_t)places * sizeof *c->newer);
    c->older = malloc((size_t)places * sizeof *c->older);
    return c->place && c->line && c->newer && c->older;
}

static void cache_reset(td_cache *c)
{
    if (c->places == 0)
        return;
    for (uint32_t i = 0; i < c->lines; i++)
        c->place[i] = NOT_HELD;
    c->used = 0;
    c->newest = c->oldest = NOBODY;
}

static void cache_close(td_cache *c)
{
    free(c->place);
    free(c->line);
    free(c->newer);
    free(c->older);
}

static void make_newest(td_cache *c, int32_t p)
{
    c->older[p] = c->newest;
    c->newer[p] = NOBODY;
    if (c->newest >= 0)
        c->newer[c->newest] = p;
    c->newest = p;
    if (c->oldest < 0)
        c->oldest = p;
}

static void take_out(td_cache *c, int32_t p)
{
    if (c->newer[p] >= 0)
        c->older[c->newer[p]] = c->older[p];
    else
        c->newest = c->older[p];
    if (c->older[p] >= 0)
        c->newer[c->older[p]] = c->newer[p];
    else
        c->oldest = c->newer[p];
}

/* Whether a line had to be fetched. */
static int cache_miss(td_cache *c, uint32_t line)
{
    if (c->places == 0)
        return 1;
    int32_t p = c->place[line];
    if (p >= 0) {
        if (p != c->newest) {
            take_out(c, p);
            make_newest(c, p);
        }
        return 0;
    }
    if (c->used < c->places) {
        p = c->used++;
    } else {
        p = c->oldest;
        take_out(c, p);
        c->place[c->line[p]] = NOT_HELD;
    }
    c->line[p] = (int32_t)line;
    c->place[line] = p;
    make_newest(c, p);
    return 1;
}

#endif
