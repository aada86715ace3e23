/* The calls of an entry as C: one line for each step, and a loop where the same few steps repeat over pieces of memory that lie
 * equally far apart, as chunks of rows do. A million positions in 32 chunks are then no longer to read, or to compile, than one. */
#include "emit.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST = 64,      /* steps that repeat together */
       LEAST = 3,         /* repetitions worth a loop */
       UNASKED = 8 };     /* calls in a row without a look at the cancel flag: about a layer's */

static const char ask[] = "if (hd_cancelled(memory->cancel)) return HD_CANCELLED;\n";

/* An argument's text around its offset; without one, all is head. */
typedef struct parts { size_t head; int64_t number; const char *tail; } parts;

static parts split(const char *text)
{
    size_t end = strlen(text);
    while (end > 0 && !isdigit((unsigned char)text[end - 1])) end--;
    size_t start = end;
    while (start > 0 && isdigit((unsigned char)text[start - 1])) start--;
    /* an offset, S(64) or name + 64; no other number is ever changed */
    const bool offset = start > 1 && (text[end] == ')' ? text[start - 1] == '(' : text[start - 1] == ' ' && text[start - 2] == '+');
    if (start == end || end - start > 18 || !offset) return (parts){ strlen(text), 0, "" };
    return (parts){ start, strtoll(text + start, NULL, 10), text + end };
}

/* Whether b is a with another offset; *distance is the difference. */
static bool alike(const char *a, const char *b, int64_t *distance)
{
    const parts x = split(a), y = split(b);
    *distance = y.number - x.number;
    return x.head == y.head && !memcmp(a, b, x.head) && !strcmp(x.tail, y.tail);
}

/* Whether call b is call a at other places, as far on as from b to c (NULL: anywhere). */
static bool follows(const hd_call *a, const hd_call *b, const hd_call *c)
{
    if (strcmp(a->kernel, b->kernel) || a->arguments != b->arguments) return false;
    for (int k = 0; k < a->arguments; k++) {
        int64_t first, second;
        if (!alike(a->argument[k], b->argument[k], &first) || (c && (!alike(b->argument[k], c->argument[k], &second) || first != second))) return false;
    }
    return true;
}

/* How often the `length` calls from `at` on repeat with equal distances. */
static int repetitions(const hd_call *at, int length, int left)
{
    for (int times = 1; ; times++)
        for (int i = 0; i < length; i++) {
            const int next = times * length + i;
            if ((times + 1) * length > left || !follows(&at[next - length], &at[next], NULL) || (times > 1 && !follows(&at[next - 2 * length], &at[next - length], &at[next]))) return times;
        }
}

static void add_call(hd_text *out, const char *indent, const hd_call *call, const hd_call *next)
{
    hd_text_add(out, "%s/* %s */\n%s%s(&run", indent, call->comment, indent, call->kernel);
    for (int k = 0; k < call->arguments; k++) {
        int64_t distance = 0;
        if (next) alike(call->argument[k], next->argument[k], &distance);
        if (!distance) {
            hd_text_add(out, ", %s", call->argument[k]);
            continue;
        }
        const parts p = split(call->argument[k]);
        hd_text_add(out, ", %.*s%" PRId64 " %c INT64_C(%" PRId64 ") * i%s", (int)p.head, call->argument[k], p.number, distance < 0 ? '-' : '+', distance < 0 ? -distance : distance, p.tail);
    }
    hd_text_add(out, ");\n");
}

int hd_emit_calls(hd_text *out, const hd_call *call, int calls, int most)
{
    int k = 0;
    for (int lines = 0, unasked = UNASKED; k < calls && lines < most; ) {
        int length = 1, times = 1;
        for (int n = 1; n <= LONGEST && LEAST * n <= calls - k && times == 1; n++) {
            const int r = repetitions(&call[k], n, calls - k);
            if (r >= LEAST) length = n, times = r;
        }
        const bool loop = times > 1, may_stop = call[k + length * times - 1].may_stop;
        unasked += length;
        if (may_stop && !loop && unasked > UNASKED) hd_text_add(out, "    %s", ask), unasked = length;
        if (may_stop && loop) unasked = 0;
        if (loop) {
            hd_text_add(out, "    for (int i = 0; i < %d; i++) {\n", times);
            if (may_stop) hd_text_add(out, "        %s", ask);
            for (int i = 0; i < length; i++) add_call(out, "        ", &call[k + i], &call[k + length + i]);
            hd_text_add(out, "    }\n");
        } else {
            add_call(out, "    ", &call[k], NULL);
        }
        k += length * times;
        lines += length;
    }
    return k;
}
