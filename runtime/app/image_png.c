/* PNG by libpng's simplified interface (media.h). A file of its own, so that only programs whose tokens are pixels carry the library. */
#include "media.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

static char said[sizeof ((png_image *)0)->message];

static const char *reason(png_image *image)
{
    memcpy(said, image->message, sizeof said);
    png_image_free(image);
    return said;
}

static png_image image_of(int64_t width, int64_t height, int channels)
{
    return (png_image){ .version = PNG_IMAGE_VERSION, .width = (png_uint_32)width, .height = (png_uint_32)height, .format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB };
}

static const char *image_write(const unsigned char *pixels, int64_t width, int64_t height, int channels, void **file, size_t *bytes)
{
    png_image image = image_of(width, height, channels);
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    *file = malloc(size);
    if (!*file) return "out of memory";
    if (!png_image_write_to_memory(&image, *file, &size, 0, pixels, 0, NULL)) {
        free(*file);
        return reason(&image);
    }
    *bytes = size;
    return NULL;
}

static const char *image_read(const void *file, size_t bytes, int channels, unsigned char **pixels, int64_t *width, int64_t *height)
{
    png_image image = { .version = PNG_IMAGE_VERSION };
    if (!png_image_begin_read_from_memory(&image, file, bytes)) return reason(&image);
    image.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
    const size_t size = PNG_IMAGE_SIZE(image);
    *pixels = size < (size_t)1 << 30 ? malloc(size) : NULL;
    *width = image.width, *height = image.height;
    if (!*pixels) {
        png_image_free(&image);
        return "it is too large";
    }
    const png_color black = { 0, 0, 0 };
    if (png_image_finish_read(&image, &black, *pixels, 0, NULL)) return NULL;
    free(*pixels);
    return reason(&image);
}

const hd_image_library hd_image_png = { image_write, image_read };
