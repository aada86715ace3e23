/* One line that is rewritten in place on a terminal; nothing when the stream is a pipe or a file. */
#ifndef HD_PROGRESS_H
#define HD_PROGRESS_H

#include <stdbool.h>
#include <stdio.h>

bool hd_progress_terminal(FILE *);
/* Shows `format` in place of the last progress text, at most ten times a second. */
void hd_progress_show(FILE *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void hd_progress_end(void);           /* removes it, before anything else is printed */
const char *hd_progress_time(double seconds, char *text, size_t bytes);   /* "1:05", "2:03:09" */

#endif
