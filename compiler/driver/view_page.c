/* Text, numbers and shapes of the page (view.h). */
#include "view.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Colours are those of Okabe and Ito, which stay apart for colour-blind readers; lighter ones in the dark. Plain properties
 * rather than variables, so that viewers that are no browsers show them too. Looks: f0..f7 fill, s0..s7 stroke, k0..k11
 * strength; t text, m muted, h heading, u subheading, c code, e ends at x, i in the middle; q the marked query. */
const char hd_page_style[] =
    "svg{font:13px system-ui,-apple-system,\"Segoe UI\",Roboto,\"Helvetica Neue\",\"Liberation Sans\",Arial,sans-serif}"
    "text{fill:#1c1e21;font-variant-numeric:tabular-nums}.m{fill:#646a73}.z{font-size:11px}.h{font-size:21px;font-weight:650}.u{font-size:15px;font-weight:600}"
    ".big{font-size:34px;font-weight:700;letter-spacing:-.5px}.c{font-family:ui-monospace,\"SF Mono\",Menlo,Consolas,\"DejaVu Sans Mono\",monospace;font-size:12px}"
    ".e{text-anchor:end}.i{text-anchor:middle}.b{font-weight:600}"
    ".page{fill:#faf9f6}.card{fill:#fff;stroke:#dedcd5}.soft{fill:#f1efe9}.line{stroke:#dedcd5;fill:none}.axis{stroke:#a9abb0;fill:none}.edge{stroke:#8a8f98;fill:none;stroke-width:1.4}.tip{fill:#8a8f98}"
    ".bound{stroke:#1c1e21;stroke-width:1.5;stroke-dasharray:6 4;fill:none}.live{stroke:#1c1e21;stroke-width:1.2;fill:none;stroke-opacity:.75}"
    ".q{stroke:#d6006c;fill:none}.qf{fill:#d6006c}.px{shape-rendering:crispEdges;fill:none;stroke-width:1}.rect{shape-rendering:crispEdges}.gap{stroke:#fff;stroke-width:.6}"
    ".f0{fill:#0072b2}.f1{fill:#e69f00}.f2{fill:#009e73}.f3{fill:#cc79a7}.f4{fill:#56b4e9}.f5{fill:#d55e00}.f6{fill:#7a5195}.f7{fill:#8c8c8c}"
    ".s0{stroke:#0072b2}.s1{stroke:#e69f00}.s2{stroke:#009e73}.s3{stroke:#cc79a7}.s4{stroke:#56b4e9}.s5{stroke:#d55e00}.s6{stroke:#7a5195}.s7{stroke:#8c8c8c}"
    "@media (prefers-color-scheme:dark){text{fill:#e8e6e1}.m{fill:#9aa0a9}.page{fill:#16181b}.card{fill:#1e2125;stroke:#34383e}.soft{fill:#272b30}.line{stroke:#34383e}.axis{stroke:#6b7079}.edge{stroke:#7d838c}.tip{fill:#7d838c}"
    ".bound{stroke:#f4f2ee}.live{stroke:#f4f2ee}.q{stroke:#ff5ca8}.qf{fill:#ff5ca8}.gap{stroke:#1e2125}"
    ".f0{fill:#3d9be0}.f1{fill:#f0b23c}.f2{fill:#27bd91}.f3{fill:#e09bc3}.f4{fill:#8ccdf4}.f5{fill:#ee7d35}.f6{fill:#a98bd0}.f7{fill:#a3a6ab}"
    ".s0{stroke:#3d9be0}.s1{stroke:#f0b23c}.s2{stroke:#27bd91}.s3{stroke:#e09bc3}.s4{stroke:#8ccdf4}.s5{stroke:#ee7d35}.s6{stroke:#a98bd0}.s7{stroke:#a3a6ab}}";

/* Bytes of the UTF-8 character at s, which XML may hold; 0 for anything else. */
static int character(const unsigned char *s)
{
    if (*s < 0x80) return *s >= 0x20 && *s != 0x7f ? 1 : *s == '\t' || *s == '\n';
    const int bytes = *s >= 0xf0 && *s <= 0xf4 ? 4 : *s >= 0xe0 && *s < 0xf0 ? 3 : *s >= 0xc2 && *s < 0xe0 ? 2 : 0;
    uint32_t code = bytes ? *s & (0xffu >> (bytes + 1)) : 0;
    for (int i = 1; i < bytes; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (s[i] & 0x3fu);
    }
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    /* U+0080..9F are controls, U+202A..E and 2066..9 turn the reading direction of what follows */
    if (code < least[bytes] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) || (code & 0xfffe) == 0xfffe || code < 0xa0) return 0;
    if ((code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069)) return 0;
    return bytes;
}

void hd_page_escape(hd_text *out, const char *bytes)
{
    for (const unsigned char *s = (const unsigned char *)bytes; *s;) {
        const int n = character(s);
        if (n == 0) hd_text_add(out, "\xef\xbf\xbd"), s++;
        else if (*s == '&') hd_text_add(out, "&amp;"), s++;
        else if (*s == '<') hd_text_add(out, "&lt;"), s++;
        else if (*s == '>') hd_text_add(out, "&gt;"), s++;
        else if (*s == '"') hd_text_add(out, "&quot;"), s++;
        else if (*s == '\'') hd_text_add(out, "&#39;"), s++;
        else hd_text_addn(out, (const char *)s, (size_t)n), s += n;
    }
}

static char *formatted(const char *format, va_list list)
{
    va_list again;
    va_copy(again, list);
    const int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *text = hd_alloc((size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, format, list);
    return text;
}

void hd_page_text(hd_text *out, double x, double y, const char *looks, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    const char *text = formatted(format, list);
    va_end(list);
    hd_text_add(out, "<text x=\"%.6g\" y=\"%.6g\"", x, y);
    if (*looks) hd_text_add(out, " class=\"%s\"", looks);
    hd_text_add(out, ">");
    hd_page_escape(out, text);
    hd_text_add(out, "</text>\n");
}

const char *hd_page_clip(const char *text, int characters)
{
    int seen = 0;
    const char *cut = text;
    for (const char *s = text; *s; s++) {
        if (((unsigned char)*s & 0xc0) == 0x80) continue;
        if (seen == characters - 1) cut = s;
        if (seen++ == characters) return hd_format("%.*s\xe2\x80\xa6", (int)(cut - text), text);
    }
    return text;
}

double hd_page_lines(hd_text *out, double x, double y, const char *looks, int characters, const char *text)
{
    while (*text) {
        int seen = 0;
        const char *end = text, *space = NULL;
        for (; *end && seen <= characters; end++) {
            if (*end == ' ') space = end;
            seen += ((unsigned char)*end & 0xc0) != 0x80;
        }
        if (*end && space) end = space;
        hd_page_text(out, x, y, looks, "%.*s", (int)(end - text), text);
        text = *end == ' ' ? end + 1 : end;
        y += 18;
    }
    return y;
}

void hd_page_rect(hd_text *out, double x, double y, double width, double height, const char *looks)
{
    hd_text_add(out, "<rect x=\"%.6g\" y=\"%.6g\" width=\"%.6g\" height=\"%.6g\" class=\"%s\"/>\n", x, y, width, height, looks);
}

void hd_page_rect_about(hd_text *out, double x, double y, double width, double height, const char *looks, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    const char *text = formatted(format, list);
    va_end(list);
    hd_text_add(out, "<rect x=\"%.6g\" y=\"%.6g\" width=\"%.6g\" height=\"%.6g\" class=\"%s\"><title>", x, y, width, height, looks);
    hd_page_escape(out, text);
    hd_text_add(out, "</title></rect>\n");
}

const char *hd_page_count(int64_t value)
{
    char digits[32];
    const int n = snprintf(digits, sizeof digits, "%" PRId64, value < 0 ? -value : value);
    hd_text text = { 0 };
    hd_text_add(&text, "%s", value < 0 ? "-" : "");
    for (int i = 0; i < n; i++) hd_text_add(&text, "%s%c", i && (n - i) % 3 == 0 ? "," : "", digits[i]);
    return text.data;
}

/* Three digits that say something. */
static const char *three(double value)
{
    const int decimals = value >= 99.95 || value == 0 ? 0 : value >= 9.995 ? 1 : 2;
    return hd_format("%.*f", decimals, value);
}

const char *hd_page_share(double share)
{
    const double percent = 100 * share;
    if (share > 0 && percent < 0.1) return hd_format("%.2g %%", percent);
    if (share < 1 && percent > 99.9) return percent > 99.999 ? "just below 100 %" : hd_format("%.3f %%", percent);
    return hd_format("%s %%", three(percent));
}

static const char *scaled(double value, const char *const *unit, int units)
{
    int u = 0;
    while (value >= 999.5 && u + 1 < units) value /= 1000, u++;
    return hd_format("%s %s", u == 0 && value == floor(value) ? hd_format("%.0f", value) : three(value), unit[u]);
}

const char *hd_page_bytes(double bytes)
{
    static const char *const unit[] = { "bytes", "KB", "MB", "GB", "TB" };
    return scaled(bytes, unit, 5);
}

const char *hd_page_flops(double flops)
{
    static const char *const unit[] = { "flop", "Kflop", "Mflop", "Gflop", "Tflop", "Pflop" };
    return scaled(flops, unit, 6);
}

const char *hd_page_time(double seconds)
{
    static const char *const unit[] = { "ns", "\xc2\xb5s", "ms", "s" };
    if (seconds >= 7200) return hd_format("%s h", three(seconds / 3600));
    if (seconds >= 120) return hd_format("%s min", three(seconds / 60));
    return scaled(seconds * 1e9, unit, 4);
}

/* A path of runs: one short command for each. */
typedef struct run_path { hd_text *out; int64_t x, y; bool open; } run_path;

static void add_run(run_path *p, const char *attributes, int64_t x, int64_t y, int64_t count)
{
    if (!p->open) {
        hd_text_add(p->out, "<path %s d=\"M%" PRId64 " %" PRId64, attributes, x, y);
        p->open = true;
    } else if (y == p->y) {
        hd_text_add(p->out, "m%" PRId64 " 0", x - p->x);
    } else {
        hd_text_add(p->out, "m%" PRId64 " %" PRId64, x - p->x, y - p->y);
    }
    hd_text_add(p->out, "h%" PRId64, count);
    p->x = x + count, p->y = y;
}

static void end_runs(run_path *p)
{
    if (p->open) hd_text_add(p->out, "\"/>\n");
    p->open = false;
}

void hd_pixels_draw(hd_text *out, const unsigned char *pixel, int64_t rows, int64_t columns, const char *(*attributes)(int))
{
    for (int value = 1; value < 256; value++) {
        run_path path = { .out = out };
        if (!memchr(pixel, value, (size_t)(rows * columns))) continue;
        const char *looks = attributes(value);
        for (int64_t y = 0; y < rows; y++)
            for (int64_t x = 0, end; x < columns; x = end) {
                for (end = x + 1; end < columns && pixel[y * columns + end] == pixel[y * columns + x]; end++) { }
                if (pixel[y * columns + x] == value) add_run(&path, looks, x, y, end - x);
            }
        end_runs(&path);
    }
}
