/* What the kernels for the DSP extension (Armv7E-M, Armv8-M with DSP) share: the instructions that C has no
 * word for, word loads, and the requantization. Elsewhere the same functions are plain C with equal results,
 * so that the very code that runs on the core is tested on any machine. */
#ifndef TD_KERNELS_DSP_H
#define TD_KERNELS_DSP_H

#include "td_kernels.h"

/* TD_DSP: the compiler takes GNU inline assembly and the core has the DSP extension. */
#if defined(__GNUC__) && defined(__thumb2__) && defined(__ARM_FEATURE_DSP)
#define TD_DSP 1
#else
#define TD_DSP 0
#endif

/* TD_DSP_LOOPS: inner loops in assembly. They need nearly all registers, which only an optimised build can
 * give; TD_DSP_FEW_REGISTERS makes do with 13, for builds that keep a frame pointer. */
#if TD_DSP && defined(__OPTIMIZE__)
#define TD_DSP_LOOPS 1
#else
#define TD_DSP_LOOPS 0
#endif
#if defined(__clang__) && !defined(TD_DSP_FEW_REGISTERS)
#define TD_DSP_FEW_REGISTERS
#endif

#if TD_DSP

/* A word at any address: LDR and STR take one, unlike LDM and LDRD, which `packed` keeps away. */
typedef struct __attribute__((packed, may_alias)) {
    uint32_t word;
} td_any_word;

static TD_INLINE uint32_t td_load_word(const int8_t *from)
{
    return ((const td_any_word *)(const void *)from)->word;
}

static TD_INLINE void td_store_word(int8_t *to, uint32_t word)
{
    ((td_any_word *)(void *)to)->word = word;
}

/* acc + x.low * w.low + x.high * w.high, modulo 2^32. */
static TD_INLINE int32_t td_smlad(uint32_t x, uint32_t w, int32_t acc)
{
    int32_t result;
    __asm__ volatile("smlad %0, %1, %2, %3" : "=r"(result) : "r"(x), "r"(w), "r"(acc));
    return result;
}

/* acc + one half of x times one half of w; the letters say bottom or top. */
#define TD_DSP_HALVES(name)                                                                   \
    static TD_INLINE int32_t td_##name(uint32_t x, uint32_t w, int32_t acc)                   \
    {                                                                                         \
        int32_t result;                                                                       \
        __asm__ volatile(#name " %0, %1, %2, %3" : "=r"(result) : "r"(x), "r"(w), "r"(acc));           \
        return result;                                                                        \
    }
TD_DSP_HALVES(smlabb)
TD_DSP_HALVES(smlabt)
TD_DSP_HALVES(smlatb)
TD_DSP_HALVES(smlatt)

/* Bytes 0 and 2, or 1 and 3, as two int16. */
static TD_INLINE uint32_t td_even_bytes(uint32_t v)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1" : "=r"(result) : "r"(v));
    return result;
}

static TD_INLINE uint32_t td_odd_bytes(uint32_t v)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(v));
    return result;
}

/* Halves side by side: both low ones, or both high ones; `low` becomes the low half. */
static TD_INLINE uint32_t td_pack_low(uint32_t low, uint32_t high)
{
    uint32_t result;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(result) : "r"(low), "r"(high));
    return result;
}

static TD_INLINE uint32_t td_pack_high(uint32_t low, uint32_t high)
{
    uint32_t result;
    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(result) : "r"(high), "r"(low));
    return result;
}

/* Each half added to itself or to another's; no half may overflow. */
static TD_INLINE uint32_t td_add_halves(uint32_t a, uint32_t b)
{
    uint32_t result;
    __asm__("sadd16 %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

static TD_INLINE uint32_t td_subtract_halves(uint32_t a, uint32_t b)
{
    uint32_t result;
    __asm__("ssub16 %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

/* add + round(a * b / 2^32), ties upward. */
static TD_INLINE int32_t td_high_multiply_add(int32_t a, int32_t b, int32_t add)
{
    int32_t result;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(add));
    return result;
}

/* Compilers find SSAT only where the saturated value is used as an int. */
static TD_INLINE int32_t td_dsp_clamp(int32_t v, int32_t low, int32_t high)
{
    int32_t result;
    __asm__("ssat %0, #8, %1" : "=r"(result) : "r"(v));
    return low == INT8_MIN && high == INT8_MAX ? result : td_clamp(v, low, high);
}

#else

static TD_INLINE int32_t td_dsp_clamp(int32_t v, int32_t low, int32_t high)
{
    return td_clamp(v, low, high);
}

static TD_INLINE uint32_t td_load_word(const int8_t *from)
{
    return (uint32_t)(uint8_t)from[0] | (uint32_t)(uint8_t)from[1] << 8 | (uint32_t)(uint8_t)from[2] << 16 |
           (uint32_t)(uint8_t)from[3] << 24;
}

static TD_INLINE void td_store_word(int8_t *to, uint32_t word)
{
    for (int32_t i = 0; i < 4; i++) {
        to[i] = (int8_t)(uint8_t)(word >> (8 * i));
    }
}

static TD_INLINE int32_t td_low_half(uint32_t v)
{
    return (int16_t)(uint16_t)v;
}

static TD_INLINE int32_t td_high_half(uint32_t v)
{
    return (int16_t)(uint16_t)(v >> 16);
}

static TD_INLINE uint32_t td_halves(int32_t low, int32_t high)
{
    return ((uint32_t)low & 0xffffu) | (uint32_t)high << 16;
}

static TD_INLINE int32_t td_smlabb(uint32_t x, uint32_t w, int32_t acc)
{
    return (int32_t)((uint32_t)acc + (uint32_t)(td_low_half(x) * td_low_half(w)));
}

static TD_INLINE int32_t td_smlabt(uint32_t x, uint32_t w, int32_t acc)
{
    return (int32_t)((uint32_t)acc + (uint32_t)(td_low_half(x) * td_high_half(w)));
}

static TD_INLINE int32_t td_smlatb(uint32_t x, uint32_t w, int32_t acc)
{
    return (int32_t)((uint32_t)acc + (uint32_t)(td_high_half(x) * td_low_half(w)));
}

static TD_INLINE int32_t td_smlatt(uint32_t x, uint32_t w, int32_t acc)
{
    return (int32_t)((uint32_t)acc + (uint32_t)(td_high_half(x) * td_high_half(w)));
}

static TD_INLINE int32_t td_smlad(uint32_t x, uint32_t w, int32_t acc)
{
    return td_smlatt(x, w, td_smlabb(x, w, acc));
}

static TD_INLINE uint32_t td_even_bytes(uint32_t v)
{
    return td_halves((int8_t)(uint8_t)v, (int8_t)(uint8_t)(v >> 16));
}

static TD_INLINE uint32_t td_odd_bytes(uint32_t v)
{
    return td_even_bytes(v >> 8);
}

static TD_INLINE uint32_t td_pack_low(uint32_t low, uint32_t high)
{
    return (low & 0xffffu) | high << 16;
}

static TD_INLINE uint32_t td_pack_high(uint32_t low, uint32_t high)
{
    return low >> 16 | (high & 0xffff0000u);
}

static TD_INLINE uint32_t td_add_halves(uint32_t a, uint32_t b)
{
    return td_halves(td_low_half(a) + td_low_half(b), td_high_half(a) + td_high_half(b));
}

static TD_INLINE uint32_t td_subtract_halves(uint32_t a, uint32_t b)
{
    return td_halves(td_low_half(a) - td_low_half(b), td_high_half(a) - td_high_half(b));
}

static TD_INLINE int32_t td_high_multiply_add(int32_t a, int32_t b, int32_t add)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 31)) >> 32) + add;
}

#endif

/* How doubled accumulators become outputs. In the first two ways every shift is to the right, by 1 to 22
 * bits, and the exporter proved |acc| < 2^30 and |v| + |offset| inside int32, where v is the scaled
 * accumulator and offset = (zero_point << shift) + (1 << (shift - 1)).
 * TD_DSP_CLAMPED: the lower clamp is at the zero point or above. Ties of negative v would have to be rounded
 *     downwards, but what differs by that is clamped all the same.
 * TD_DSP_TIES: they are rounded downwards.
 * TD_DSP_ANY: any shift, to the left where it is positive; offset is the zero point.
 * TD_DSP_MIXED: likewise, and |acc| < 2^30 is proved of the accumulator shifted to the left. */
enum { TD_DSP_CLAMPED, TD_DSP_TIES, TD_DSP_ANY, TD_DSP_MIXED };

typedef struct {
    int32_t way, low, high;
} td_dsp_output;

typedef struct {
    int32_t multiplier, offset, shift;
} td_dsp_scale;

/* `doubled` is twice the accumulator: TensorFlow Lite's doubling multiply is then one instruction. */
static TD_INLINE int8_t td_dsp_requantize(int32_t doubled, td_dsp_scale s, const td_dsp_output *out)
{
    int32_t v;
    if (out->way == TD_DSP_CLAMPED) {
        v = td_high_multiply_add(doubled, s.multiplier, s.offset) >> s.shift;
    } else if (out->way == TD_DSP_TIES) {
        v = td_high_multiply_add(doubled, s.multiplier, 0);
        v = (v + (v >> 31) + s.offset) >> s.shift;
    } else if (out->way == TD_DSP_ANY) {
        v = td_scale(doubled / 2, s.multiplier, s.shift) + s.offset;
    } else if (s.shift >= 0) {
        v = td_high_multiply_add((int32_t)((uint32_t)doubled << s.shift), s.multiplier, s.offset);
    } else {
        /* The zero point is added before the last bit is shifted out, together with half of it. */
        v = td_high_multiply_add(doubled, s.multiplier, 0);
        v = (((v + (v >> 31)) >> ~s.shift) + 2 * s.offset + 1) >> 1;
    }
    return (int8_t)td_dsp_clamp(v, out->low, out->high);
}

#endif
