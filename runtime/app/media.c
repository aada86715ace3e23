/* Tokens as pixels and as samples of sound (media.h). Reading is the nearest token: of what writing gives, the token itself. */
#include "media.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

bool hd_media(void) { return hd_model.image || hd_model.sound; }
const char *hd_media_suffix(void) { return hd_model.image ? ".png" : ".wav"; }

/* Tokens of a pixel; of a row, in the order of tokens. */
static int64_t pixel_tokens(const hd_image_info *image) { return image->colours ? 1 : image->channels; }
static int64_t row_tokens(const hd_image_info *image) { return image->width * (image->planar ? 1 : pixel_tokens(image)); }

int64_t hd_media_tokens(void)
{
    const hd_image_info *image = hd_model.image;
    return image ? image->width * image->height * pixel_tokens(image) : hd_model.length;
}

void hd_media_check(const char *path)
{
    const char *suffix = hd_media_suffix();
    const size_t bytes = strlen(path), end = strlen(suffix);
    if (bytes <= end || strcmp(path + bytes - end, suffix) != 0)
        hd_app_fail("%s: %s makes %s; name a file that ends in %s", path, hd_model.name, hd_model.image ? "images" : "sound", suffix);
}

/* ---- images ---- */

/* The token of channel `channel` of pixel `at`. */
static int64_t token_of(const hd_image_info *image, int64_t at, int channel)
{
    return image->planar ? channel * image->width * image->height + at : at * image->channels + channel;
}

unsigned char *hd_media_pixels(const int32_t *tokens, int64_t count)
{
    const hd_image_info *image = hd_model.image;
    const int64_t pixels = image->width * image->height;
    const int channels = image->channels;
    unsigned char *out = hd_app_alloc((size_t)(pixels * channels));
    for (int64_t i = 0; i < pixels; i++)
        for (int c = 0; c < channels; c++) {
            const int64_t at = image->colours ? i : token_of(image, i, c);
            if (at >= count || tokens[at] < 0) continue;
            if (!image->colours) out[i * channels + c] = (unsigned char)tokens[at];
            else if (tokens[at] < image->colours) out[i * channels + c] = image->palette[tokens[at] * channels + c];
        }
    return out;
}

static int32_t nearest_colour(const hd_image_info *image, const unsigned char *pixel)
{
    int32_t best = 0;
    for (int32_t i = 0, least = INT32_MAX; i < image->colours; i++) {
        int32_t distance = 0;
        for (int c = 0; c < image->channels; c++) {
            const int d = pixel[c] - image->palette[i * image->channels + c];
            distance += d * d;
        }
        if (distance < least) least = distance, best = i;
    }
    return best;
}

static int64_t read_image(const char *path, hd_file_map file, int64_t rows, int32_t **tokens)
{
    const hd_image_info *image = hd_model.image;
    unsigned char *pixels;
    int64_t width, height;
    const char *error = image->library->read(file.data, file.bytes, image->channels, &pixels, &width, &height);
    if (error) hd_app_fail("%s: not a PNG that can be read: %s", path, error);
    if (width != image->width || height > image->height)
        hd_app_fail("%s: it has %lld x %lld pixels, %s makes %lld x %lld; valid: that width, and at most that height", path, (long long)width, (long long)height, hd_model.name,
                    (long long)image->width, (long long)image->height);
    if (image->planar && height != image->height)
        hd_app_fail("%s: it has %lld rows; the tokens of %s are one plane of %lld rows after the other: valid: that height", path, (long long)height, hd_model.name, (long long)image->height);
    const int64_t all = width * height * pixel_tokens(image), kept = rows ? rows * row_tokens(image) : all;
    *tokens = hd_app_alloc((size_t)all * sizeof **tokens);
    for (int64_t i = 0; i < width * height; i++)
        if (image->colours) (*tokens)[i] = nearest_colour(image, pixels + i * image->channels);
        else for (int c = 0; c < image->channels; c++) (*tokens)[token_of(image, i, c)] = pixels[i * image->channels + c];
    free(pixels);
    for (int64_t i = 0; i < all; i++)
        if ((*tokens)[i] >= hd_model.ids) hd_app_fail("%s: it has the value %d; the tokens of %s are 0 to %lld", path, (*tokens)[i], hd_model.name, (long long)hd_model.ids - 1);
    return kept < all ? kept : all;
}

/* ---- sound ---- */

/* What the tokens 0 to 255 stand for. */
static void decode_table(hd_sound_encoding encoding, int16_t table[256])
{
    for (int t = 0; t < 256; t++) {
        if (encoding == HD_SOUND_LINEAR8) {
            table[t] = (int16_t)((t - 128) * 256);
        } else if (encoding == HD_SOUND_MU_LAW) {            /* sign(x) (256^|x| - 1) / 255, x = 2 t / 255 - 1 */
            const double x = 2 * t / 255.0 - 1;
            table[t] = (int16_t)lrint(copysign(expm1(fabs(x) * log(256)) / 255, x) * 32767);
        } else {                                             /* ITU-T G.711: bits inverted; sign, exponent of 3 bits, mantissa of 4; bias 132 */
            const int u = ~t & 0xff, size = (((u & 15) << 3) + 132) << (u >> 4 & 7);
            table[t] = (int16_t)(u & 0x80 ? 132 - size : size - 132);
        }
    }
}

int16_t *hd_media_samples(const int32_t *tokens, int64_t count)
{
    int16_t table[256], *out = hd_app_alloc((size_t)count * sizeof *out);
    decode_table(hd_model.sound->encoding, table);
    for (int64_t i = 0; i < count; i++) out[i] = tokens[i] >= 0 && tokens[i] < 256 ? table[tokens[i]] : 0;
    return out;
}

static int64_t read_sound(const char *path, hd_file_map file, int64_t kept, int32_t **tokens)
{
    const hd_sound_info *sound = hd_model.sound;
    int16_t *samples, table[256];
    int64_t count, rate;
    const char *error = sound->library->read(file.data, file.bytes, &samples, &count, &rate);
    if (error) hd_app_fail("%s: not a sound file that can be read: %s", path, error);
    if (rate != sound->rate) hd_app_fail("%s: it has %lld samples a second, %s has %lld; sox %s -r %lld OUT.wav converts it", path, (long long)rate, hd_model.name, (long long)sound->rate, path, (long long)sound->rate);
    if (kept && kept < count) count = kept;
    decode_table(sound->encoding, table);
    const int codes = hd_model.ids < 256 ? (int)hd_model.ids : 256;
    *tokens = hd_app_alloc((size_t)count * sizeof **tokens);
    for (int64_t i = 0; i < count; i++) {
        int best = 0;
        for (int t = 1; t < codes; t++)
            if (abs(samples[i] - table[t]) < abs(samples[i] - table[best])) best = t;
        (*tokens)[i] = best;
    }
    free(samples);
    return count;
}

int64_t hd_media_read(const char *path, int64_t rows, int32_t **tokens)
{
    const hd_file_map file = hd_file_open(path);
    const int64_t count = hd_model.image ? read_image(path, file, rows, tokens) : read_sound(path, file, rows, tokens);
    hd_file_close(file);
    return count;
}

/* ---- writing ---- */

static const char *write_images(int64_t samples, const int32_t *const *tokens, const int64_t *counts, void **file, size_t *bytes)
{
    const hd_image_info *image = hd_model.image;
    int64_t columns = 1;
    while (columns * columns < samples) columns++;
    const int64_t rows = (samples + columns - 1) / columns, row = image->width * image->channels;
    unsigned char *canvas = hd_app_alloc((size_t)(columns * rows * row * image->height));
    for (int64_t i = 0; i < samples; i++) {
        unsigned char *pixels = hd_media_pixels(tokens[i], counts[i]);
        for (int64_t y = 0; y < image->height; y++)
            memcpy(canvas + ((i / columns * image->height + y) * columns + i % columns) * row, pixels + y * row, (size_t)row);
        free(pixels);
    }
    const char *error = image->library->write(canvas, columns * image->width, rows * image->height, image->channels, file, bytes);
    free(canvas);
    return error;
}

static const char *write_sound(const int32_t *tokens, int64_t count, void **file, size_t *bytes)
{
    const hd_sound_info *sound = hd_model.sound;
    int16_t *samples = hd_media_samples(tokens, count);
    const char *error = sound->library->write(samples, count, sound->rate, sound->encoding == HD_SOUND_LINEAR8, file, bytes);
    free(samples);
    return error;
}

void hd_media_write(const char *path, int64_t samples, const int32_t *const *tokens, const int64_t *counts)
{
    void *file;
    size_t bytes;
    const char *error = hd_model.image ? write_images(samples, tokens, counts, &file, &bytes) : write_sound(*tokens, *counts, &file, &bytes);
    if (error) hd_app_fail("%s: cannot be made: %s", path, error);
    hd_file_writer writer;
    hd_file_begin(&writer, path);
    hd_file_put(&writer, file, bytes);
    hd_file_commit(&writer);
    free(file);
}
