/* Sums of a product in double precision, for the file that defines M, N, K, LD_A, TRANS_A, LD_B, TRANS_B, STRIDE_A and STRIDE_B:
 * A is [M][K], or [K][M] if TRANS_A, B is [K][N], or [N][K] if TRANS_B, LD elements between rows; items are STRIDE elements apart. */
static double reference_sum[N];

static inline void reference_row(const float *a, const float *b, ptrdiff_t item, ptrdiff_t row)
{
    const float *x = a + STRIDE_A * item + (TRANS_A ? row : (ptrdiff_t)LD_A * row), *y = b + STRIDE_B * item;
    const ptrdiff_t step = TRANS_A ? LD_A : 1;
    memset(reference_sum, 0, sizeof reference_sum);
    if (TRANS_B)
        for (ptrdiff_t j = 0; j < N; j++)
            for (ptrdiff_t e = 0; e < K; e++) reference_sum[j] += (double)x[step * e] * (double)y[(ptrdiff_t)LD_B * j + e];
    else
        for (ptrdiff_t e = 0; e < K; e++)
            for (ptrdiff_t j = 0; j < N; j++) reference_sum[j] += (double)x[step * e] * (double)y[(ptrdiff_t)LD_B * e + j];
}

/* The next HD_VL of them, and how many there are. */
static inline hd_f reference_vector(ptrdiff_t column, int *lanes)
{
    float t[HD_VL] = { 0 };
    *lanes = N - column < HD_VL ? (int)(N - column) : HD_VL;
    for (int lane = 0; lane < *lanes; lane++) t[lane] = (float)reference_sum[column + lane];
    return hd_load(t);
}

#define HD_AT(p) (lanes == HD_VL ? hd_load(p) : hd_load_part((p), lanes))
#define HD_PUT(p, v) do { if (lanes == HD_VL) hd_store((p), (v)); else hd_store_part((p), (v), lanes); } while (0)
#define HD_SQUARES(v) ((void)0)
