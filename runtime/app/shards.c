/* A checkpoint folder as one safetensors file: model.safetensors, or the shards that model.safetensors.index.json lists. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app.h"

static const char index_name[] = "model.safetensors.index.json";

/* The folder's only *.safetensors file, where there is no index. */
static const char *only_file(const char *folder)
{
    const char *whole = hd_app_text("%s/model.safetensors", folder), *found = NULL;
    if (access(whole, F_OK) == 0) return whole;
    DIR *dir = opendir(folder);
    if (!dir) hd_app_fail("%s: %s", folder, strerror(errno));
    int files = 0;
    for (struct dirent *entry; (entry = readdir(dir)); ) {
        const char *end = strrchr(entry->d_name, '.');
        if (!end || strcmp(end, ".safetensors") != 0) continue;
        found = hd_app_text("%s/%s", folder, entry->d_name);
        files++;
    }
    closedir(dir);
    if (files == 1) return found;
    hd_app_fail("%s: a folder that holds %s; weights are model.safetensors, or shards with %s, or one *.safetensors file", folder,
                files ? "several *.safetensors files without an index" : "no *.safetensors file", index_name);
}

/* The part with the file's name, opened when it is met first. */
static hd_safetensors *part_named(hd_safetensors *whole, const char *folder, const char *index, const char *name, const char *tensor)
{
    if (!name || !*name || strchr(name, '/') || name[0] == '.') hd_app_fail("%s: weight_map '%s' names no file of this folder", index, tensor);
    const char *path = hd_app_text("%s/%s", folder, name);
    for (int i = 0; i < whole->parts; i++)
        if (strcmp(whole->part[i]->path, path) == 0) return whole->part[i];
    if (access(path, F_OK) != 0) hd_app_fail("%s: shard %s is missing: it holds '%s' and others (%s)", folder, name, tensor, index_name);
    hd_safetensors **more = hd_app_alloc(((size_t)whole->parts + 1) * sizeof *more);
    for (int i = 0; i < whole->parts; i++) more[i] = whole->part[i];
    free(whole->part);
    whole->part = more;
    return whole->part[whole->parts++] = hd_safetensors_open(path);
}

hd_safetensors *hd_safetensors_open_folder(const char *folder)
{
    const char *index = hd_app_text("%s/%s", folder, index_name);
    if (access(index, F_OK) != 0) return hd_safetensors_open(only_file(folder));

    hd_file_map map = hd_file_open(index);
    json_error_t error;
    json_t *json = json_loadb((const char *)map.data, map.bytes, JSON_REJECT_DUPLICATES, &error), *names = json_object_get(json, "weight_map");
    hd_file_close(map);
    if (!json) hd_app_fail("%s: line %d: %s", index, error.line, error.text);
    if (!json_is_object(names) || !json_object_size(names)) hd_app_fail("%s: has no \"weight_map\" { tensor: file }", index);

    hd_safetensors *whole = hd_app_alloc(sizeof *whole);
    whole->path = folder;
    const char *tensor;
    json_t *name;
    json_object_foreach(names, tensor, name) {
        const hd_safetensors *part = part_named(whole, folder, index, json_string_value(name), tensor);
        if (!hd_safetensors_find(part, tensor)) hd_app_fail("%s: has no tensor '%s', which %s says it holds", part->path, tensor, index_name);
    }
    json_decref(json);
    for (int i = 0; i < whole->parts; i++) whole->count += whole->part[i]->count;
    whole->tensor = hd_app_alloc((size_t)whole->count * sizeof *whole->tensor);
    for (int i = 0, at = 0; i < whole->parts; at += whole->part[i++]->count)
        for (int k = 0; k < whole->part[i]->count; k++) whole->tensor[at + k] = whole->part[i]->tensor[k];
    hd_safetensors_sort(whole);
    for (int i = 1; i < whole->count; i++)
        if (strcmp(whole->tensor[i - 1].name, whole->tensor[i].name) == 0)
            hd_app_fail("%s: tensor '%s' is in two shards: %s and %s", folder, whole->tensor[i].name, whole->tensor[i - 1].path, whole->tensor[i].path);
    return whole;
}
