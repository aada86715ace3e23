/* Stop strings: text that comes in pieces is passed on up to the first place where one of them stands, which may begin in one piece
 * and end in another. Bytes that may turn out to be the beginning of a stop string are held back until that is known. */
#ifndef HD_STOPS_H
#define HD_STOPS_H

#include <stdbool.h>
#include <stddef.h>

/* held: the longest end of the text so far that a stop string begins with; `hold` has room for the longest stop string. */
typedef struct hd_stops { int count; const char *const *text; size_t held; char *hold; bool hit; } hd_stops;

/* The strings, none empty, are the caller's and stay as they are. hold: room for hd_stops_room(...) bytes. */
size_t hd_stops_room(int count, const char *const *text);
void hd_stops_begin(hd_stops *, int count, const char *const *text, char *hold);

/* Reads the next `bytes` of the text and writes to `out`, which has room for bytes + hd_stops_room(...), what certainly comes before any
 * stop string. Returns how many; sets `hit` when a stop string is complete, and reads nothing after it. Of strings that end at the same
 * byte the one that begins first counts. */
size_t hd_stops_put(hd_stops *, const char *text, size_t bytes, char *out);
/* The text is at its end: what was held back. */
size_t hd_stops_end(hd_stops *, char *out);

#endif
