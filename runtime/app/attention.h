/* The attention weights of one prompt, as the command `attention` finds them and its page shows them. */
#ifndef HD_ATTENTION_PAGE_H
#define HD_ATTENTION_PAGE_H

#include "kept.h"

/* One head: its numbers over all weights, and the weights that are not small beside their row's largest. */
typedef struct hd_attention_head {
    int layer;                       /* index among the model's attention ops */
    int64_t head;
    int64_t *start;                  /* [used + 1]: query i has pairs start[i] .. start[i + 1], by key */
    int32_t *key;
    unsigned char *level;            /* weight = level / 255 of the row's largest, rounded; never 0 */
    uint16_t *largest;               /* [used]: the upper half of the float, rounded */
    int64_t room;                    /* pairs that key and level hold; where more would come, the small ones go */
    int floor;                       /* smallest level that is held for every row */
    float *grid;                     /* [side][side]: weights summed over squares of the matrix */
    double entropy, distance, sink;  /* means over queries with keys: bits; positions; share that goes to the sink */
    bool finite;
} hd_attention_head;

typedef struct hd_attention_view {
    const char *weights;             /* the file */
    const int32_t *token;            /* [used] */
    int64_t used, query, side;       /* query: the position first chosen; side: of the grids */
    int heads; hd_attention_head *head;
    const hd_kept *kept;             /* by pattern; rows 0 where no head has it */
    double bytes;                    /* the page may have */
} hd_attention_view;

/* Bytes that the page has for the rows of all heads, about. */
double hd_attention_rows_budget(const hd_attention_view *);
/* Writes the page, under a temporary name until it is whole: the weights at or above the lowest level, the same for all heads that hold
 * it, at which it fits. Returns its bytes. */
size_t hd_attention_page(const hd_attention_view *, const char *path);

#endif
