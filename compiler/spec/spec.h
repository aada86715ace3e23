/* The front end: evaluates a model description (a Lua program) and gives the graph it builds.
 *
 * A spec is code from somewhere, so it runs in a forked child with nothing but strings, tables and arithmetic, under limits
 * that no pcall and no string function can dodge (sandbox.c). The graph lies in the shared arena (base.h) and is simply
 * there when the child has ended. */
#ifndef HD_SPEC_H
#define HD_SPEC_H

#include "../graph/graph.h"

/* Evaluates the spec at `path`. override: "key=value" texts of -D flags, for the spec's hd.config. library_folder: where
 * heddle.lua lies. Any mistake in the spec is one line "file:line: message" on stderr and exit status 1. */
hd_graph *hd_spec_load(const char *path, int overrides, const char *const *override, const char *library_folder);

/* The same of a checkpoint folder of the Hugging Face hub: config.json names its family, whose spec lies in `families` (models/hf).
 * graph->family and graph->config_text then say what it was made from. */
hd_graph *hd_checkpoint_load(const char *folder, const char *families, int overrides, const char *const *override, const char *library_folder);

/* What a spec may use. Lowered by tests, so that they need not wait for the real ones. */
typedef struct hd_spec_limits {
    int64_t memory_bytes;      /* of Lua's values, and again of the graph's nodes */
    int64_t instructions;      /* of the Lua machine */
    int seconds;               /* of processor time; three times that on the clock */
} hd_spec_limits;
extern hd_spec_limits hd_spec_limit;

#endif
