/* memcpy, memset, memmove and, on Arm, their __aeabi_ names for a link without a C library.
 *
 * Each function lies in a section of its own, so that a model pays only for those that it references.
 * Whole words are moved where the core allows it: a byte loop would make a large copy look five times as
 * dear as it is with the C library that a real firmware links. */
#include <stddef.h>
#include <stdint.h>

#if defined(__ARM_FEATURE_UNALIGNED)
/* Alignment 1 keeps the compiler from joining two of these into an LDRD or LDM, which fault when unaligned. */
typedef uint32_t __attribute__((aligned(1), may_alias)) word;
#define WORDS_ALLOWED(a, b) 1
#else
typedef uint32_t __attribute__((may_alias)) word;
#define WORDS_ALLOWED(a, b) ((((uintptr_t)(a) | (uintptr_t)(b)) & 3u) == 0)
#endif

#define ALIAS(target) __attribute__((alias(#target)))

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    uint8_t *d = (uint8_t *)to;
    const uint8_t *s = (const uint8_t *)from;
    if (WORDS_ALLOWED(d, s)) {
        for (; count >= 16; count -= 16, d += 16, s += 16) {
            const uint32_t a = ((const word *)s)[0], b = ((const word *)s)[1];
            const uint32_t c = ((const word *)s)[2], e = ((const word *)s)[3];
            ((word *)d)[0] = a;
            ((word *)d)[1] = b;
            ((word *)d)[2] = c;
            ((word *)d)[3] = e;
        }
        for (; count >= 4; count -= 4, d += 4, s += 4) {
            *(word *)d = *(const word *)s;
        }
    }
    for (; count > 0; count--) {
        *d++ = *s++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t count)
{
    uint8_t *d = (uint8_t *)to;
    const uint8_t *s = (const uint8_t *)from;
    if ((uintptr_t)d - (uintptr_t)s >= count) {
        return memcpy(to, from, count);
    }
    d += count;
    s += count;
    if (WORDS_ALLOWED(d, s)) {
        for (; count >= 4; count -= 4) {
            d -= 4;
            s -= 4;
            *(word *)d = *(const word *)s;
        }
    }
    for (; count > 0; count--) {
        *--d = *--s;
    }
    return to;
}

void *memset(void *to, int value, size_t count)
{
    uint8_t *d = (uint8_t *)to;
    const uint32_t four = 0x01010101u * (uint8_t)value;
    if (WORDS_ALLOWED(d, 0)) {
        for (; count >= 16; count -= 16, d += 16) {
            ((word *)d)[0] = four;
            ((word *)d)[1] = four;
            ((word *)d)[2] = four;
            ((word *)d)[3] = four;
        }
        for (; count >= 4; count -= 4, d += 4) {
            *(word *)d = four;
        }
    }
    for (; count > 0; count--) {
        *d++ = (uint8_t)value;
    }
    return to;
}

#if defined(__arm__)

/* The run-time ABI swaps memset's last two arguments. */
void __aeabi_memset(void *to, size_t count, int value)
{
    (void)memset(to, value, count);
}

void __aeabi_memclr(void *to, size_t count)
{
    (void)memset(to, 0, count);
}

void __aeabi_memset4(void *to, size_t count, int value) ALIAS(__aeabi_memset);
void __aeabi_memset8(void *to, size_t count, int value) ALIAS(__aeabi_memset);
void __aeabi_memclr4(void *to, size_t count) ALIAS(__aeabi_memclr);
void __aeabi_memclr8(void *to, size_t count) ALIAS(__aeabi_memclr);
void *__aeabi_memcpy(void *restrict to, const void *restrict from, size_t count) ALIAS(memcpy);
void *__aeabi_memcpy4(void *restrict to, const void *restrict from, size_t count) ALIAS(memcpy);
void *__aeabi_memcpy8(void *restrict to, const void *restrict from, size_t count) ALIAS(memcpy);
void *__aeabi_memmove(void *to, const void *from, size_t count) ALIAS(memmove);
void *__aeabi_memmove4(void *to, const void *from, size_t count) ALIAS(memmove);
void *__aeabi_memmove8(void *to, const void *from, size_t count) ALIAS(memmove);

#endif
