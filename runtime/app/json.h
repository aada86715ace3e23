/* JSON text out, by Jansson: a line for each value, numbers with nine digits. */
#ifndef HD_JSON_H
#define HD_JSON_H

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "app.h"

/* A number; null where JSON has none. */
static inline json_t *hd_json_real(double value) { return isfinite(value) ? json_real(value) : json_null(); }

/* Text that people chose: a path need not be UTF-8, its other bytes become '?'. */
static inline json_t *hd_json_text(const char *text)
{
    json_t *whole = json_string(text);
    if (whole) return whole;
    char *plain = (char *)(uintptr_t)hd_app_text("%s", text);
    for (char *c = plain; *c; c++)
        if ((unsigned char)*c >= 0x80) *c = '?';
    return json_string(plain);
}

/* Takes the value: prints it on one line, then frees it. A failed write shows in ferror(out). */
static inline void hd_json_print(FILE *out, json_t *value)
{
    if (!value) hd_app_fail("out of memory");
    (void)json_dumpf(value, out, JSON_REAL_PRECISION(9));
    fputc('\n', out);
    json_decref(value);
}

#endif
