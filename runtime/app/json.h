/* JSON text, written. */
#ifndef HD_JSON_H
#define HD_JSON_H

#include <stdio.h>

static inline void hd_json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') fprintf(out, "\\%c", *text);
        else if ((unsigned char)*text < 0x20) fprintf(out, "\\u%04x", (unsigned)(unsigned char)*text);
        else fputc(*text, out);
    }
    fputc('"', out);
}

#endif
