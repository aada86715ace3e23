/* Tokens that are pixels or samples of sound, as files: PNG by libpng, WAV by libsndfile. */
#ifndef HD_MEDIA_H
#define HD_MEDIA_H

#include "app.h"

/* The libraries are linked into the programs that have such tokens only, so they are reached through the model's table. Functions
 * return NULL, or what went wrong; what they give out is malloc'ed. */
typedef struct hd_image_library {
    const char *(*write)(const unsigned char *pixels, int64_t width, int64_t height, int channels, void **file, size_t *bytes);
    /* pixels [height][width][channels], converted to `channels` if the file has others (grey by luminance, transparent parts on black) */
    const char *(*read)(const void *file, size_t bytes, int channels, unsigned char **pixels, int64_t *width, int64_t *height);
} hd_image_library;
extern const hd_image_library hd_image_png;

typedef struct hd_sound_library {
    const char *(*write)(const int16_t *samples, int64_t count, int64_t rate, bool eight_bits, void **file, size_t *bytes);
    /* the first channel alone */
    const char *(*read)(const void *file, size_t bytes, int16_t **samples, int64_t *count, int64_t *rate);
} hd_sound_library;
extern const hd_sound_library hd_sound_sndfile;

bool hd_media(void);                                     /* the model's tokens are such */
const char *hd_media_suffix(void);                       /* ".png" or ".wav" */
int64_t hd_media_tokens(void);                           /* of an image; of a sound as many as the model has positions */
/* Fails unless `path` ends in the suffix. */
void hd_media_check(const char *path);
/* The bytes of a sample as its model's tokens stand for them: [height][width][channels] of an image, black where tokens are missing;
 * int16 of a sound. malloc'ed. */
unsigned char *hd_media_pixels(const int32_t *tokens, int64_t count);
int16_t *hd_media_samples(const int32_t *tokens, int64_t count);
/* Writes a file that appears when it is whole. Several images: side by side, in as many rows as columns or one fewer. */
void hd_media_write(const char *path, int64_t samples, const int32_t *const *tokens, const int64_t *counts);
/* The tokens of a file, malloc'ed: of an image the first `rows` rows (0: all), of a sound all. Fails with "path: ..." where its size,
 * channels or rate are not the model's. */
int64_t hd_media_read(const char *path, int64_t rows, int32_t **tokens);

#endif
