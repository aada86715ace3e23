/* Which of the program's variants runs (variant.h). */
#include "variant.h"

#include <stdlib.h>
#include <string.h>

#include "../core/hd_cpu.h"

const char *hd_variant_names(int level)
{
    const char *list = "";
    for (const hd_model_info *const *v = hd_model_variants; *v; v++)
        if ((*v)->level <= level) list = hd_app_text("%s%s%s", list, *list ? ", " : "", (*v)->target);
    return list;
}

void hd_variant_choose(void)
{
    const int level = hd_cpu_level();
    const char *wanted = getenv("HEDDLE_CPU"), *wrong = "no variant is called that";
    if (hd_model.level > level)      /* the plainest one */
        hd_app_fail("%s was compiled for %s, and this processor lacks some of its instructions; heddle build --target x86-64 makes a program for all", hd_model.name, hd_model.target);
    for (const hd_model_info *const *v = hd_model_variants; *v; v++) {
        if (wanted && *wanted && strcmp(wanted, (*v)->target)) continue;
        if ((*v)->level <= level) {
            hd_model_chosen = *v;
            return;
        }
        wrong = "this processor lacks some of its instructions";
    }
    hd_app_fail("HEDDLE_CPU=%s: %s; valid for %s here: %s", wanted, wrong, hd_model.name, hd_variant_names(level));
}
