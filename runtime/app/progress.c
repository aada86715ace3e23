/* The progress line (progress.h). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "progress.h"

#include <stdarg.h>
#include <unistd.h>

#include "app.h"

static FILE *shown;          /* stream that holds a progress text now */
static double shown_at;

bool hd_progress_terminal(FILE *stream) { return isatty(fileno(stream)); }

void hd_progress_show(FILE *stream, const char *format, ...)
{
    double now = hd_app_seconds();
    if (!hd_progress_terminal(stream) || (shown && now - shown_at < 0.1)) return;
    va_list list;
    va_start(list, format);
    fputs("\r", stream);
    vfprintf(stream, format, list);
    fputs("\033[K", stream);
    va_end(list);
    fflush(stream);
    shown = stream;
    shown_at = now;
}

void hd_progress_end(void)
{
    if (!shown) return;
    fputs("\r\033[K", shown);
    fflush(shown);
    shown = NULL;
}

const char *hd_progress_time(double seconds, char *text, size_t bytes)
{
    long s = seconds < 0 || seconds > 1e9 ? 0 : (long)(seconds + 0.5);
    if (s >= 3600) snprintf(text, bytes, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(text, bytes, "%ld:%02ld", s / 60, s % 60);
    return text;
}
