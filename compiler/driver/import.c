/* heddle import: a checkpoint folder's family and configuration as one spec, to read, to change, to train. */
#include "driver.h"
#include <string.h>
#include <sys/stat.h>

static const char takes_config[] = "local config = hd.checkpoint()\n";

int hd_command_import(const hd_options *o)
{
    struct stat s;
    if (!o->out) hd_fail((hd_where){ 0 }, "import needs -o SPEC.lua");
    if (!stat(o->out, &s) && !S_ISREG(s.st_mode)) hd_fail((hd_where){ o->out, 0 }, "is no regular file; give the spec's file name");
    if (stat(o->spec, &s) || !S_ISDIR(s.st_mode)) hd_fail((hd_where){ o->spec, 0 }, "is no checkpoint folder: one that holds config.json and *.safetensors");
    if (o->defines) hd_fail((hd_where){ 0 }, "import: -D sets keys of a build; give it to build, emit, check, info or view of the spec");
    const hd_graph *g = hd_load(o);
    const char *path = hd_format("%s/%s.lua", hd_folders_find()->families, g->family);
    size_t bytes;
    const char *family = hd_read_file(path, &bytes), *at = family ? strstr(family, takes_config) : NULL;
    if (!at) hd_fail((hd_where){ path, 0 }, "cannot be read, or does not begin with: %s", takes_config);
    hd_text out = { 0 };
    hd_text_add(&out, "-- Made by heddle import from %s; weights are read under the checkpoint's own names.\n", o->spec);
    hd_text_addn(&out, family, (size_t)(at - family));
    hd_text_add(&out, "local config = hd.checkpoint %s\n", g->config_text);
    hd_text_add(&out, "%s", at + strlen(takes_config));
    hd_write_file(o->out, out.data, out.length);
    return 0;
}
