/* Kernel instances: a template with its parameters, made once however many steps use it.
 *
 * Parameters are written as the text of a Lua table constructor; that text with the template's name is the instance's
 * identity. Instances are gathered into files of similar compile cost. */
#ifndef HD_KERNELS_H
#define HD_KERNELS_H

#include "../base/base.h"
#include "../driver/target.h"

typedef struct hd_kernel {
    const char *template_name;     /* "product": templates/product.c.tmpl */
    const char *name;              /* C function, with the model's prefix */
    const char *parameters;        /* Lua table fields, without name and vl */
    const char *signature;         /* "const hd_run *run, int rows, const float *a, ..." */
    int64_t local_bytes;           /* per thread */
    hd_where where;                /* the spec's line that first asked for it */
} hd_kernel;

typedef struct hd_kernels {
    const char *prefix;            /* of all names and files: the model's name; in programs of several variants with the variant's level, as in text_v3 */
    const hd_target *target;
    int count, capacity; hd_kernel **kernel;
    struct hd_tuning *tuning;      /* records that choices are taken from (tune/tune.h), or NULL */
} hd_kernels;

/* The instance of these parameters, shared if it exists. `coordinates` becomes part of the name: "2048x384x128_bias". */
hd_kernel *hd_kernel_get(hd_kernels *, const char *template_name, const char *coordinates, const char *signature,
                         const char *parameters, int64_t local_bytes, hd_where where);

/* Expands templates by templates/NAME.c.tmpl in `folder`. Opens one Lua state for all. */
typedef struct hd_expander hd_expander;
hd_expander *hd_expander_new(const char *template_folder, const char *library_folder);
char *hd_kernel_text(hd_expander *, const hd_kernels *, const hd_kernel *);

#endif
