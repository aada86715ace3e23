/* What the commands of a generated program share: failing, time, memory, the model's entries. */
#ifndef HD_APP_H
#define HD_APP_H

#include "hd_model.h"
#include "options.h"

/* Prints one line on stderr and exits with status 1. Messages start with the user's file or flag and end with what would
 * have been valid. A half-written temporary file is removed on the way. */
_Noreturn void hd_app_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
double hd_app_seconds(void);                             /* monotonic */
const char *hd_app_text(const char *format, ...) __attribute__((format(printf, 1, 2)));   /* malloc'ed; fails when memory is out */
void *hd_app_alloc(size_t bytes);                        /* zeroed, small things; fails when memory is out */

/* Threads: those of the affinity mask unless --threads says otherwise. */
int hd_app_processors(void);
enum { HD_MAX_THREADS = 1024 };

/* Counter-based random bits: a good hash of (seed, a, b), the same on every machine. */
uint64_t hd_app_random(uint64_t seed, uint64_t a, uint64_t b);
static inline double hd_app_unit(uint64_t bits) { return (double)(bits >> 11) * 0x1p-53; }   /* [0, 1) */

/* Entries and tensors by name. hd_app_entry fails, naming the model's entries; hd_app_find returns -1. */
const hd_entry_info *hd_app_entry(const char *name);
const hd_entry_info *hd_app_entry_or_null(const char *name);
int hd_app_find(const hd_tensor *tensors, int count, const char *name);
int hd_app_need(const hd_entry_info *, const char *name, bool output);     /* index among inputs, or among outputs; fails */
int64_t hd_app_elements(int rank, const int64_t *size);
const char *hd_app_shape(int rank, const int64_t *size);                   /* "[4, 256]", malloc'ed */
size_t hd_app_tensor_bytes(const hd_tensor *);
bool hd_app_language_model(void);
void hd_app_need_language_model(const char *command);
bool hd_app_bytes(void);                                                   /* tokens are bytes: vocab <= 256, and no tokenizer */
const char *hd_app_unit_name(void);                                        /* "byte" or "token" */

/* Areas that live as long as the program: one mapping, so that rounding to huge pages is paid once. */
typedef struct hd_area { const char *name; size_t bytes; void **where; } hd_area;
size_t hd_app_areas_bytes(const hd_area *, int count);                     /* what hd_app_map_areas makes resident at most */
void hd_app_map_areas(const hd_area *, int count);                         /* zeroed, 64-byte aligned, huge pages advised */

/* Buffers for an entry's tensors inside one block: sets tensor[inputs then outputs]. Returns the bytes the block needs. */
size_t hd_app_tensors_bytes(const hd_entry_info *);
void hd_app_bind_tensors(const hd_entry_info *, void *block, void **tensor);
size_t hd_app_scratch_bytes(const hd_entry_info *, int threads);

/* The weights as entries that do not train read them: bytes of the area (0 where the entry does not), and its making, which
 * follows every change of the weights. */
size_t hd_app_packed_bytes(const hd_entry_info *);
void hd_app_pack(const hd_entry_info *, const hd_memory *, const hd_threads *);

/* Calls the entry; fails with its reason if it refuses. */
void hd_app_call(const hd_entry_info *, const hd_memory *, const hd_threads *, void *const *tensor, int sequences, int used);

struct hd_pool;
struct hd_pool *hd_app_pool(int threads);                                  /* fails with a message */

/* The commands, of which hd_model_commands lists those that the program has: argv[0] is the command's name. */
int hd_command_train(int argc, char **argv);
int hd_command_eval(int argc, char **argv);
int hd_command_sample(int argc, char **argv);
int hd_command_run(int argc, char **argv);
int hd_command_info(int argc, char **argv);
int hd_command_bench(int argc, char **argv);
int hd_command_attention(int argc, char **argv);
int hd_command_tokenize(int argc, char **argv);

/* The memory of training: what train maps and info prints. where pointers may be NULL for info. */
enum { HD_TRAIN_AREAS = 6 };
typedef struct hd_train_memory { void *weights, *state, *scratch, *tensors, *average, *best; } hd_train_memory;
int hd_train_areas(hd_area *, hd_train_memory *, int threads, bool averaging);

#endif
