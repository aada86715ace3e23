/* sample --interactive: a conversation, line by line. */
#ifndef HD_INTERACTIVE_H
#define HD_INTERACTIVE_H

#include "continuation.h"

/* Reads lines of standard input until it ends; the model continues each. What was said stays in the cache: only new tokens are computed.
 * opening: text that the conversation begins with, or "". before, after: put around every line; before NULL: a line break, but for
 * the first line. On a terminal with a prompt, and Ctrl-C ends a reply instead of the program. */
void hd_interactive(hd_generator *, const hd_sample_settings *, const char *opening, const char *before, const char *after);

#endif
