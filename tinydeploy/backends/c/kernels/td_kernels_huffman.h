/* Codebook indices out of a canonical Huffman code, for the kernels that read them; done once, at start-up.
 *
 * Coded indices are one byte with the number of code lengths, one byte for each length from 1 on with how many
 * codes have it, and the bits, from the low bits of a byte to its high ones. No table is built: the codes of a
 * length follow each other, and those of the next one follow the last of them with a zero behind. The table of
 * a codebook is in the order of the codes, so that the number of a code is the index. */
#ifndef TD_KERNELS_HUFFMAN_H
#define TD_KERNELS_HUFFMAN_H

#include "td_kernels.h"

typedef struct {
    const uint8_t *counts; /* of the codes of each length */
    const uint8_t *from;   /* the bits */
    uint32_t bits;         /* those read and not used yet, below a bit that stands where they end */
} td_huffman;

static TD_INLINE td_huffman td_huffman_at(const uint8_t *coded)
{
    return (td_huffman){ coded + 1, coded + 1 + coded[0], 1u };
}

/* The exporter made the code complete, so every sequence of bits has a code at its start. */
static TD_INLINE uint32_t td_huffman_next(td_huffman *h)
{
    const uint8_t *count = h->counts;
    uint32_t place = 0, first = 0; /* place: from the first code of this length on */
    for (;;) {
        if (h->bits == 1u) {
            h->bits = (uint32_t)*h->from++ | 0x100u;
        }
        place = 2u * place + (h->bits & 1u);
        h->bits >>= 1;
        if (place < *count) {
            return first + place;
        }
        place -= *count;
        first += *count++;
    }
}

/* `count` indices of `bits` bits, 1 to 7, side by side as td_unpack_plane reads them. */
static TD_INLINE void td_huffman_stream(const uint8_t *coded, int32_t count, int32_t bits, uint8_t *to)
{
    td_huffman h = td_huffman_at(coded);
    uint32_t buffer = 0;
    int32_t have = 0;
    for (int32_t i = 0; i < count; i++) {
        buffer |= td_huffman_next(&h) << have;
        have += bits;
        if (have >= 8) {
            *to++ = (uint8_t)(buffer & 0xffu);
            buffer >>= 8;
            have -= 8;
        }
    }
    if (have > 0) {
        *to = (uint8_t)buffer;
    }
}

/* `words` words of four indices each, laid out as td_kernels_dsp_stored.h says. */
static TD_INLINE void td_huffman_words(const uint8_t *coded, int32_t words, int32_t bits, int32_t *to)
{
    td_huffman h = td_huffman_at(coded);
    for (int32_t i = 0; i < words; i++) {
        uint32_t four = 0;
        for (int32_t shift = 0; shift < 32; shift += 8) {
            four |= td_huffman_next(&h) << shift;
        }
        uint32_t *at = (uint32_t *)(void *)to;
        for (int32_t part = 4; part > 0; part >>= 1) {
            if (bits & part) {
                const int32_t place = part * i & 7;
                const uint32_t piece = (four & (0x01010101u * (((uint32_t)1 << part) - 1u))) << place;
                uint32_t *const word = at + (part * i >> 3);
                *word = place == 0 ? piece : *word | piece;
                at += (part * words + 7) >> 3;
                four >>= part;
            }
        }
    }
}

#endif
