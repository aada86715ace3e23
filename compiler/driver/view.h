/* heddle view: one page about a model. view.c puts it together from parts; a part draws from its own top (y = 0) downwards,
 * PAGE_WIDTH wide, and returns its height. Everything is SVG without script or outside references: what moves in the HTML form
 * is one small script of view.c that reads the rows the masks embed. */
#ifndef HD_VIEW_H
#define HD_VIEW_H

#include "driver.h"
#include "../pattern/pattern.h"

enum { HD_PAGE_WIDTH = 1120, HD_PAGE_MARGIN = 40, HD_PAGE_COLOURS = 8 };

/* ---- view_page.c: text and shapes ---- */

/* Adds bytes as XML text: markup becomes entities, what XML forbids (control characters, broken UTF-8) becomes U+FFFD. */
void hd_page_escape(hd_text *, const char *bytes);
/* A line of text whose baseline starts at (x, y). `looks` are classes of the style below. The formatted text is escaped. */
void hd_page_text(hd_text *, double x, double y, const char *looks, const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Lines of at most `characters`, cut at spaces, 18 apart, the first with its baseline at y. Returns the next line's y. */
double hd_page_lines(hd_text *, double x, double y, const char *looks, int characters, const char *text);
/* At most `characters` of text, the rest as an ellipsis. */
const char *hd_page_clip(const char *text, int characters);
void hd_page_rect(hd_text *, double x, double y, double width, double height, const char *looks);
/* The same with a tooltip, which browsers show without a script. */
void hd_page_rect_about(hd_text *, double x, double y, double width, double height, const char *looks, const char *format, ...) __attribute__((format(printf, 7, 8)));
const char *hd_page_count(int64_t);        /* 12,288 */
const char *hd_page_share(double);         /* 13.1 %, 0.012 % */
const char *hd_page_bytes(double);         /* 24.2 MB */
const char *hd_page_flops(double);         /* 2.42 Gflop */
const char *hd_page_time(double seconds);  /* 310 us */
extern const char hd_page_style[];

/* A picture: for each value but 0 one path with these attributes, made of the runs of pixels that have it, each a line of
 * width 1 whose middle is at the row's number. */
void hd_pixels_draw(hd_text *, const unsigned char *pixel, int64_t rows, int64_t columns, const char *(*attributes)(int value));

/* ---- view_cover.c: what a cover says of rows and areas, without ever going through all pairs ---- */

/* Where each query stands in each family, so that a row of a long pattern is found at once. */
typedef struct hd_rows { const hd_cover *cover; int32_t **group; } hd_rows;
bool hd_rows_fit(const hd_cover *);          /* the index takes no unreasonable memory */
hd_rows hd_rows_make(const hd_cover *);
void hd_rows_free(hd_rows *);
/* Keys of query i in family f, ascending, as progressions appended to the list. */
typedef struct hd_row { int items, capacity; hd_progression *item; int64_t keys; } hd_row;
void hd_rows_get(const hd_rows *, int family, int64_t i, hd_row *);
/* Of all families, sorted by start. */
void hd_rows_all(const hd_rows *, int64_t i, hd_row *);

/* A cover of listed rows has no families. There the colour of a pair says for how many of the 16 neighbouring queries that a vector
 * holds its key is read: shares 0 (all) to 4 (one alone), from what kernels compute in full to what they compute mostly in vain. */
enum { HD_SHARES = 5 };
extern const struct hd_share { const char *what; int colour; } hd_share[HD_SHARES];
void hd_cover_shares(const hd_cover *, int64_t pairs[HD_SHARES]);      /* kept pairs of each; covers that list rows only */

/* family of each pair of the window [q0, q0 + queries) x [k0, k0 + keys), plus 1; 0 where the pattern keeps nothing. Listed
 * rows: the colour of the pair's share, plus 1. */
void hd_cover_pixels(const hd_cover *, int64_t q0, int64_t queries, int64_t k0, int64_t keys, unsigned char *pixel);
/* Kept pairs of each cell: the plane is cut into rows x columns cells, position p of n lying in cell floor(p * cells / n).
 * counts[family (or colour of the share) mod planes][row][column], added to. */
void hd_cover_density(const hd_cover *, int planes, int rows, int columns, int64_t *counts);

/* ---- view_graph.c: which nodes the page is about ---- */

/* The entry that is drawn: "forward", or the first one. live[node id]: the entry's outputs need the node. */
const hd_entry *hd_diagram_entry(const hd_graph *, bool **live);

/* ---- the parts ---- */

/* One attention pattern with all who use it. */
typedef struct hd_use { const hd_pattern *pattern; const hd_cover *cover; hd_where where; int nodes, heads; const char *first, *last; } hd_use;

/* data: JavaScript object of the rows for the script (NULL: none is wanted); query: row to mark, or -1. */
double hd_mask_draw(hd_text *, const hd_use *, int number, int64_t query, hd_text *data);

/* Which pairs a query of the last layer reaches through `hops` layers, counted from the last (hop 1). layer[l] reads all its
 * covers (heads) at once; all are n x n. missing[h]: pairs of the wanted ones (causal: j <= i; else all) still out of reach
 * after h + 1 hops, where residual connections keep what a layer's input held; missing_plain: the same without them.
 * first (NULL or [n][n]): hop that reaches the pair first, 0 for none. Bits of n * n pairs: for short lengths. */
typedef struct hd_layer { int covers; const hd_cover *const *cover; } hd_layer;
void hd_reach_exact(const hd_layer *layer, int layers, int hops, int64_t n, bool causal, int64_t *missing, int64_t *missing_plain, unsigned char *first);
/* Nothing to say (0) for a model without self-attention. */
double hd_reach_draw(hd_text *, const hd_graph *, const hd_use *, int uses);

double hd_diagram_draw(hd_text *, const hd_graph *);
double hd_memory_draw(hd_text *, const hd_model *);
double hd_kernels_draw(hd_text *, const hd_model *);

#endif
