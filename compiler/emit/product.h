/* Matrix products: what one is, and how its tiles, blocks and slots are chosen from the sizes and the target's caches.
 *
 * The choice is a closed form, no search: it must be good already, `heddle tune` refines it. The members below are the
 * parameters of templates/product.c.tmpl and templates/pack.c.tmpl under the same names. */
#ifndef HD_PRODUCT_H
#define HD_PRODUCT_H

#include "../driver/target.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How B lies in memory. */
typedef enum hd_product_kind {
    HD_B_PACKED,               /* panels [ceil(n / nr)][k][nr] made by pack.c.tmpl, nr = nv * vl, zeros beyond n */
    HD_B_NATURAL,              /* [k][n], ld_b elements between rows */
    HD_B_TRANSPOSED            /* [n][k], ld_b elements between rows */
} hd_product_kind;

/* The machine a kernel is for. */
typedef struct hd_product_target {
    int vl;                    /* floats per vector: 16, 8 or 4 */
    int registers;             /* vector registers: 32 or 16 */
    int64_t l1, l2, l3;        /* bytes of data cache for each core */
    int threads;               /* hint: at most so many will run it; more slots than this are cut, so that they balance */
} hd_product_target;
hd_product_target hd_product_target_of(const hd_target *);

/* out[m,n] = sum over k of A[m,k] B[k,n], `batch` times. The caller sets the first part, hd_product_choose the second. */
typedef struct hd_product {
    int64_t m, n, k;           /* elements, >= 1 */
    int64_t batch;             /* >= 1; slots are cut over it too */
    int64_t ld_a, ld_b;        /* elements between rows as stored; ld_b is not used when packed */
    bool trans_a;              /* A is stored [k][m], else [m][k] */
    hd_product_kind b_kind;
    int nv_packed;             /* packed only: vectors per panel if another product already packed B, 0: choose */

    int mr, nv;                /* register tile: rows by vectors */
    int64_t kc, mc, nc;        /* blocks: sum over k in steps of kc; rows of a slot; columns whose panels are reused from L2 */
    int64_t slots_m, slots_n;  /* the cut of one item of the batch */
    int64_t slots;             /* batch * slots_m * slots_n */
    bool copy_a;               /* trans_a: A is copied into local panels; else it is read in place */
    int ahead;                 /* panels are fetched into L1 this many steps of k ahead */
    size_t local_bytes;        /* scratch of each thread, a multiple of 64; 0 when nothing is copied or stored between */
    size_t packed_bytes;       /* packed: bytes of all panels of one B, a multiple of 64; else 0 */
} hd_product;

/* Fills the second part. Errors: none; sizes must be positive (asserted). */
void hd_product_choose(hd_product *product, const hd_product_target *target);
/* Scratch that the blocks now in `product` need: for choices made elsewhere (tuning records). */
size_t hd_product_local_bytes(const hd_product *product, int vl);
/* Cycles (two multiply-adds of a vector each) that one core takes for all slots of a chosen product, its operands in L2. */
double hd_product_cycles(const hd_product *product, const hd_product_target *target);

#endif
