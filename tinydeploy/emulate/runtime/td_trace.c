/* Counts what an emulated core executes: blocks, taken branches, and misses of the caches in front of its flash.
 *
 * The emulator calls td_on_block and td_on_read directly, which is much faster than hooks in Python. The
 * same counts, in Python, are those of tinydeploy/emulate/cycles/pure.py; a test holds the two together.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "td_cache.h"

typedef struct {
    uint32_t address, size;
    int32_t owner, pad;
    uint64_t times, taken;
} td_block;

typedef struct {
    uint64_t fetch_misses, fetch_next, reads, read_misses;
} td_flash;

typedef struct {
    uint32_t base, displacement, words_bytes, literal; /* register ids of the emulator, 0 where there is none */
    int32_t index, shift, condition, bytes;
} td_access;

typedef struct {
    /* What td_open was given. */
    uint32_t (*spans)[2]; /* the first address of each stretch of code, and the first behind it */
    uint32_t span_count, span_halfwords;
    uint32_t flash_start, flash_end, line_shift;
    int32_t owner_count, first_owner;
    int16_t *owners; /* of each halfword of all stretches; NOBODY inherits */
    int unified;
    /* State. */
    int32_t current;
    td_block *blocks;
    uint32_t block_mask, block_count;
    int32_t previous;
    uint32_t previous_end;
    uint32_t last_line;
    int failed;
    uint64_t halfwords, limit; /* executed, and after how many the run is stopped */
    int (*stop)(void *);
    td_cache instructions, data;
    td_flash *flash;
    /* The second way: addresses computed in front of each load. */
    int32_t *access_at; /* of each halfword of the code, NOBODY where there is none */
    td_access *accesses;
    int (*reg_read)(void *, int, void *);
    int flags_register;
} td_trace;

void td_reset(td_trace *t)
{
    t->current = t->first_owner;
    memset(t->blocks, 0, ((size_t)t->block_mask + 1) * sizeof *t->blocks);
    memset(t->flash, 0, (size_t)t->owner_count * sizeof *t->flash);
    t->block_count = 0;
    t->previous = NOBODY;
    t->last_line = UINT32_MAX - 1;
    t->failed = 0;
    t->halfwords = 0;
    cache_reset(&t->instructions);
    cache_reset(&t->data);
}

void td_close(td_trace *t)
{
    if (t == NULL)
        return;
    cache_close(&t->instructions);
    cache_close(&t->data);
    free(t->spans);
    free(t->owners);
    free(t->blocks);
    free(t->flash);
    free(t->access_at);
    free(t->accesses);
    free(t);
}

/* instruction_places and data_places are numbers of lines; a line of 0 bytes leaves the caches out. */
td_trace *td_open(const uint32_t (*spans)[2], uint32_t span_count, const int16_t *owners, int32_t owner_count,
                  int32_t first_owner, uint32_t flash_start, uint32_t flash_end, uint32_t line_bytes,
                  int32_t instruction_places, int32_t data_places, int32_t unified)
{
    td_trace *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    uint32_t halfwords = 0, lines = 1;
    for (uint32_t i = 0; i < span_count; i++)
        halfwords += (spans[i][1] - spans[i][0]) / 2;
    t->span_count = span_count;
    t->span_halfwords = halfwords;
    t->limit = UINT64_MAX;
    t->owner_count = owner_count;
    t->first_owner = first_owner;
    t->unified = unified;
    if (line_bytes) {
        while ((1u << t->line_shift) < line_bytes)
            t->line_shift++;
        t->flash_start = flash_start;
        t->flash_end = flash_end;
        lines = ((flash_end - flash_start) >> t->line_shift) + 2;
    } else {
        instruction_places = data_places = 0;
    }
    t->block_mask = (1u << 12) - 1;
    t->spans = malloc(((size_t)span_count + 1) * sizeof *spans);
    t->owners = malloc(((size_t)halfwords + 1) * sizeof *owners);
    t->blocks = calloc((size_t)t->block_mask + 1, sizeof *t->blocks);
    t->flash = calloc((size_t)owner_count, sizeof *t->flash);
    int ok = cache_open(&t->instructions, lines, instruction_places);
    ok = cache_open(&t->data, lines, unified ? 0 : data_places) && ok;
    if (!ok || !t->spans || !t->owners || !t->blocks || !t->flash) {
        td_close(t);
        return NULL;
    }
    memcpy(t->spans, spans, span_count * sizeof *spans);
    memcpy(t->owners, owners, halfwords * sizeof *owners);
    td_reset(t);
    return t;
}

void td_set_limit(td_trace *t, uint64_t limit, int (*stop)(void *))
{
    t->limit = limit;
    t->stop = stop;
}

/* Whether the limit stopped the run. */
int32_t td_stopped(const td_trace *t)
{
    return t->halfwords > t->limit;
}

/* The number of the halfword at an address among those of all stretches, NOBODY where it is in none. */
static int32_t position_of(const td_trace *t, uint32_t address)
{
    uint32_t before = 0;
    for (uint32_t i = 0; i < t->span_count; i++) {
        uint32_t start = t->spans[i][0], end = t->spans[i][1];
        if (address >= start && address < end)
            return (int32_t)(before + (address - start) / 2);
        before += (end - start) / 2;
    }
    return NOBODY;
}

static uint32_t slot_of(const td_trace *t, uint32_t address, uint32_t size, int32_t owner)
{
    uint32_t hash = (address >> 1) * 2654435761u ^ size * 40503u ^ (uint32_t)owner * 2246822519u;
    uint32_t slot = (hash ^ hash >> 15) & t->block_mask;
    while (t->blocks[slot].times &&
           (t->blocks[slot].address != address || t->blocks[slot].size != size || t->blocks[slot].owner != owner))
        slot = (slot + 1) & t->block_mask;
    return slot;
}

/* Doubles the table of blocks; `previous` is an index into it and is found again. */
static void grow(td_trace *t)
{
    td_block *old = t->blocks;
    uint32_t old_mask = t->block_mask;
    td_block *blocks = calloc(2 * ((size_t)old_mask + 1), sizeof *blocks);
    td_block last = {0};
    if (blocks == NULL) {
        t->failed = 1;
        return;
    }
    if (t->previous >= 0)
        last = old[t->previous];
    t->blocks = blocks;
    t->block_mask = 2 * old_mask + 1;
    for (uint32_t i = 0; i <= old_mask; i++)
        if (old[i].times)
            t->blocks[slot_of(t, old[i].address, old[i].size, old[i].owner)] = old[i];
    if (t->previous >= 0)
        t->previous = (int32_t)slot_of(t, last.address, last.size, last.owner);
    free(old);
}

static int in_flash(const td_trace *t, uint32_t address, uint32_t size)
{
    return address >= t->flash_start && address < t->flash_end && size <= t->flash_end - address;
}

static void fetch_lines(td_trace *t, uint32_t address, uint32_t size)
{
    if (!in_flash(t, address, size))
        return;
    uint32_t first = (address - t->flash_start) >> t->line_shift;
    uint32_t last = (address + size - 1 - t->flash_start) >> t->line_shift;
    for (uint32_t line = first; line <= last; line++) {
        if (line == t->last_line)
            continue;
        if (cache_miss(&t->instructions, line)) {
            t->flash[t->current].fetch_misses++;
            if (line == t->last_line + 1)
                t->flash[t->current].fetch_next++;
        }
        t->last_line = line;
    }
}

void td_on_block(void *uc, uint64_t address64, uint32_t size, void *user)
{
    td_trace *t = user;
    uint32_t address = (uint32_t)address64;
    if (t->failed)
        return;
    int32_t position = position_of(t, address);
    if (position >= 0 && t->owners[position] >= 0)
        t->current = t->owners[position];
    if (t->previous >= 0 && address != t->previous_end)
        t->blocks[t->previous].taken++;
    if (2 * t->block_count > t->block_mask)
        grow(t);
    if (t->failed)
        return;
    uint32_t slot = slot_of(t, address, size, t->current);
    td_block *block = &t->blocks[slot];
    if (block->times++ == 0) {
        block->address = address;
        block->size = size;
        block->owner = t->current;
        t->block_count++;
    }
    t->previous = (int32_t)slot;
    t->previous_end = address + size;
    if (t->flash_end)
        fetch_lines(t, address, size);
    t->halfwords += size / 2;
    if (t->halfwords > t->limit)
        t->stop(uc);
}

static void read_lines(td_trace *t, uint32_t address, uint32_t size)
{
    if (!in_flash(t, address, size))
        return;
    uint32_t first = (address - t->flash_start) >> t->line_shift;
    uint32_t last = (address + size - 1 - t->flash_start) >> t->line_shift;
    td_cache *cache = t->unified ? &t->instructions : &t->data;
    t->flash[t->current].reads++;
    for (uint32_t line = first; line <= last; line++)
        t->flash[t->current].read_misses += (uint64_t)cache_miss(cache, line);
}

void td_on_read(void *uc, int type, uint64_t address, int size, int64_t value, void *user)
{
    (void)uc, (void)type, (void)value;
    read_lines(user, (uint32_t)address, (uint32_t)size);
}

/* Gives the loads whose addresses td_on_instruction computes; access_at has an entry for each halfword of code. */
int td_set_accesses(td_trace *t, const int32_t *access_at, const td_access *accesses, int32_t count,
                    int (*reg_read)(void *, int, void *), int32_t flags_register)
{
    size_t halfwords = t->span_halfwords;
    t->access_at = malloc((halfwords + 1) * sizeof *access_at);
    t->accesses = malloc(((size_t)count + 1) * sizeof *accesses);
    if (t->access_at == NULL || t->accesses == NULL)
        return 0;
    memcpy(t->access_at, access_at, halfwords * sizeof *access_at);
    memcpy(t->accesses, accesses, (size_t)count * sizeof *accesses);
    t->reg_read = reg_read;
    t->flags_register = flags_register;
    return 1;
}

static uint32_t register_of(const td_trace *t, void *uc, int32_t id)
{
    uint64_t value = 0;
    t->reg_read(uc, id, &value);
    return (uint32_t)value;
}

/* Conditions are numbered as in the architecture: EQ NE HS LO MI PL VS VC HI LS GE LT GT LE AL. */
static int passes(uint32_t flags, int32_t condition)
{
    int n = flags >> 31 & 1, z = flags >> 30 & 1, c = flags >> 29 & 1, v = flags >> 28 & 1;
    const int holds[8] = {z, c, n, v, c && !z, n == v, n == v && !z, 1};
    return holds[condition >> 1] != (condition & 1);
}

void td_on_instruction(void *uc, uint64_t address64, uint32_t size, void *user)
{
    td_trace *t = user;
    uint32_t address = (uint32_t)address64;
    (void)size;
    int32_t position = position_of(t, address);
    if (position < 0 || t->access_at[position] < 0)
        return;
    const td_access *a = &t->accesses[t->access_at[position]];
    uint32_t target = a->literal + a->displacement;
    if (a->condition < 14 && !passes(register_of(t, uc, t->flags_register), a->condition))
        return;
    if (a->base)
        target += register_of(t, uc, (int32_t)a->base);
    if (a->index)
        target += register_of(t, uc, a->index) << a->shift;
    for (int32_t done = 0; done < a->bytes; done += (int32_t)a->words_bytes)
        read_lines(t, target + (uint32_t)done, a->words_bytes);
}

/* -1 where memory ran out during the run, else the number of blocks. */
int32_t td_count(const td_trace *t)
{
    return t->failed ? -1 : (int32_t)t->block_count;
}

void td_results(const td_trace *t, td_block *blocks, td_flash *flash)
{
    for (uint32_t i = 0; i <= t->block_mask; i++)
        if (t->blocks[i].times)
            *blocks++ = t->blocks[i];
    memcpy(flash, t->flash, (size_t)t->owner_count * sizeof *flash);
}
