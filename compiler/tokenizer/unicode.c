/* Unicode for tokenizers: what libutf8proc knows, as tables and maps of single code points. */
#include "tokenizer.h"
#include "../../runtime/app/tokenizer_parts.h"
#include <utf8proc.h>

enum { POINTS = 0x110000, MOST = 32 };

static bool surrogate(uint32_t point) { return point >= 0xd800 && point < 0xe000; }

static bool white_space(uint32_t point, int category)
{
    return category == HD_ZS || category == HD_ZL || category == HD_ZP || (point >= 9 && point <= 13) || point == 0x85;
}

/* \w as regular expressions have it (Unicode Technical Standard 18): Alphabetic, marks, decimal numbers, connectors, joiners. Letters that are
 * alphabetic by Other_Alphabetic alone are marks, or these circled and squared ones. */
static bool word(uint32_t point, int category)
{
    const bool circled = (point >= 0x24b6 && point <= 0x24e9) || (point >= 0x1f130 && point <= 0x1f149) || (point >= 0x1f150 && point <= 0x1f169) ||
                         (point >= 0x1f170 && point <= 0x1f189);
    return (HD_MASK_LETTER | HD_MASK_MARK | HD_IN(HD_ND) | HD_IN(HD_NL) | HD_IN(HD_PC)) >> category & 1 || circled || point == 0x200c || point == 0x200d;
}

uint8_t *hd_unicode_classes(void)
{
    static uint8_t *class;
    if (class) return class;
    class = HD_NEW_ARRAY(uint8_t, POINTS);
    for (uint32_t p = 0; p < POINTS; p++) {
        const utf8proc_property_t *about = utf8proc_get_property((utf8proc_int32_t)p);
        const int category = surrogate(p) ? HD_CS : about->category;
        const int bound = about->boundclass;
        const bool extends = bound == UTF8PROC_BOUNDCLASS_EXTEND || bound == UTF8PROC_BOUNDCLASS_SPACINGMARK || bound == UTF8PROC_BOUNDCLASS_ZWJ;
        class[p] = (uint8_t)(category | (white_space(p, category) ? HD_CLASS_SPACE : 0) | (word(p, category) ? HD_CLASS_WORD : 0) | (extends ? HD_CLASS_EXTEND : 0));
    }
    return class;
}

uint8_t *hd_unicode_marks(void)
{
    uint8_t *mark = HD_NEW_ARRAY(uint8_t, POINTS);
    for (uint32_t p = 0; p < POINTS; p++) mark[p] = (uint8_t)utf8proc_get_property((utf8proc_int32_t)p)->combining_class;
    return mark;
}

static uint32_t decompose(uint32_t point, bool compatible, uint32_t *out)
{
    int bound = 0;
    utf8proc_int32_t part[MOST];
    const utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)point, part, MOST, compatible ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE, &bound);
    if (n < 0 || n > MOST || surrogate(point)) return out[0] = point, 1;
    for (int i = 0; i < n; i++) out[i] = (uint32_t)part[i];
    return (uint32_t)n;
}

/* One code point each, but for I with a dot, as Rust's to_lowercase. */
static uint32_t lower(uint32_t point, uint32_t *out)
{
    if (point == 0x130) return out[0] = 'i', out[1] = 0x307, 2;
    return out[0] = surrogate(point) ? point : (uint32_t)utf8proc_tolower((utf8proc_int32_t)point), 1;
}

uint32_t *hd_unicode_map(hd_step_of *step, uint32_t (*of)(uint32_t, const void *, uint32_t *), const void *how)
{
    uint32_t nothing = 0;                         /* the place of the empty string, which many have in common */
    step->map = HD_NEW_ARRAY(uint32_t, POINTS);
    for (uint32_t p = 0; p < POINTS; p++) {
        uint32_t out[4 * MOST];
        if (surrogate(p)) continue;
        const uint32_t n = of(p, how, out);
        if (n == 1 && out[0] == p) continue;
        if (n == 3 && out[0] == ' ' && out[1] == p && out[2] == ' ') {
            step->map[p] = HD_MAP_PADDED;
            continue;
        }
        if (!n && nothing) {
            step->map[p] = nothing;
            continue;
        }
        char text[1 + 16 * MOST];
        size_t bytes = 1;
        for (uint32_t i = 0; i < n && bytes < 252; i++) bytes += hd_utf8_write(out[i], (unsigned char *)text + bytes);
        text[0] = (char)(bytes - 1);
        step->map[p] = (uint32_t)step->map_text.length + 1;
        if (!n) nothing = step->map[p];
        hd_text_addn(&step->map_text, text, bytes);
    }
    return step->map;
}

static bool chinese(uint32_t p)
{
    return (p >= 0x4e00 && p <= 0x9fff) || (p >= 0x3400 && p <= 0x4dbf) || (p >= 0x20000 && p <= 0x2a6df) || (p >= 0x2a700 && p <= 0x2b73f) || (p >= 0x2b740 && p <= 0x2b81f) ||
           (p >= 0x2b820 && p <= 0x2ceaf) || (p >= 0xf900 && p <= 0xfaff) || (p >= 0x2f800 && p <= 0x2fa1f);
}

/* BERT's cleaning, blanks around Chinese characters, accents off, small letters: in this order, each on what the one before left. */
static uint32_t bert(uint32_t point, const void *how, uint32_t *out)
{
    const hd_bert *b = how;
    const unsigned class = hd_unicode_classes()[point];
    uint32_t n = 0, part[MOST], parts = 1;
    if (b->clean) {
        const bool control = point != '\t' && point != '\n' && point != '\r' && hd_class_in(class, HD_IN(HD_CC) | HD_IN(HD_CF) | HD_IN(HD_CN) | HD_IN(HD_CO) | HD_IN(HD_CS));
        if (!point || point == 0xfffd || control) return 0;
        if (class & HD_CLASS_SPACE) point = ' ';
    }
    const bool padded = b->chinese && chinese(point);
    if (padded) out[n++] = ' ';
    if (b->accents) parts = decompose(point, false, part);
    else part[0] = point;
    for (uint32_t i = 0; i < parts; i++) {
        if (b->accents && hd_class_in(hd_unicode_classes()[part[i]], HD_IN(HD_MN))) continue;
        if (b->lower) n += lower(part[i], out + n);
        else out[n++] = part[i];
    }
    if (padded) out[n++] = ' ';
    return n;
}

static uint32_t lower_map(uint32_t point, const void *how, uint32_t *out) { (void)how; return lower(point, out); }
static uint32_t accents_map(uint32_t point, const void *how, uint32_t *out)
{
    (void)how;
    return out[0] = point, !hd_class_in(hd_unicode_classes()[point], HD_MASK_MARK);
}
/* SentencePiece's older rules for translation. */
static uint32_t nmt_map(uint32_t p, const void *how, uint32_t *out)
{
    (void)how;
    if ((p >= 1 && p <= 8) || p == 0xb || (p >= 0xe && p <= 0x1f) || p == 0x7f || p == 0x8f || p == 0x9f) return 0;
    const bool blank = p == 9 || p == 0xa || p == 0xc || p == 0xd || p == 0x1680 || (p >= 0x200b && p <= 0x200f) || p == 0x2028 || p == 0x2029 || p == 0x2581 || p == 0xfeff ||
        p == 0xfffd;
    return out[0] = blank ? ' ' : p, 1;
}
static uint32_t form_map(uint32_t point, const void *how, uint32_t *out)
{
    if (point >= 0xac00 && point < 0xac00 + 11172) return out[0] = point, 1;      /* syllables: by arithmetic */
    return decompose(point, *(const bool *)how, out);
}

void hd_unicode_bert(hd_step_of *step, const hd_bert *b) { hd_unicode_map(step, bert, b); }
void hd_unicode_lower(hd_step_of *step) { hd_unicode_map(step, lower_map, NULL); }
void hd_unicode_accents(hd_step_of *step) { hd_unicode_map(step, accents_map, NULL); }
void hd_unicode_nmt(hd_step_of *step) { hd_unicode_map(step, nmt_map, NULL); }
void hd_unicode_form(hd_step_of *step, bool compatible) { hd_unicode_map(step, form_map, &compatible); }

/* A character composes if NFC keeps it: of the composite of its parts but the last, and that. */
int hd_unicode_pairs(uint32_t (**pairs)[3])
{
    int count = 0, capacity = 0;
    *pairs = NULL;
    for (uint32_t p = 0; p < 1 << 20; p++) {
        uint32_t part[MOST], n = decompose(p, false, part);
        if (n < 2 || (p >= 0xac00 && p < 0xac00 + 11172)) continue;
        utf8proc_int32_t whole[MOST], head[MOST];
        for (uint32_t i = 0; i < n; i++) whole[i] = head[i] = (utf8proc_int32_t)part[i];
        if (utf8proc_normalize_utf32(whole, n, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1 || whole[0] != (utf8proc_int32_t)p) continue;
        if (utf8proc_normalize_utf32(head, n - 1, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1) continue;
        *pairs = hd_grow(*pairs, count, &capacity, sizeof **pairs);
        (*pairs)[count][0] = (uint32_t)head[0], (*pairs)[count][1] = part[n - 1], (*pairs)[count][2] = p;
        count++;
    }
    return count;
}

uint32_t hd_byte_letter(unsigned char byte)
{
    if ((byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad)) return byte;
    /* the others, in order, from U+0100 on: 0..32, 127..160, 173 */
    return byte <= 32 ? 0x100u + byte : byte <= 160 ? 0x100u + 33 + byte - 127 : 0x100u + 67;
}

int hd_letter_byte(uint32_t point)
{
    if (point < 0x100) return hd_byte_letter((unsigned char)point) == point ? (int)point : -1;
    const uint32_t at = point - 0x100;
    return at <= 32 ? (int)at : at < 67 ? (int)(at - 33 + 127) : at == 67 ? 173 : -1;
}
