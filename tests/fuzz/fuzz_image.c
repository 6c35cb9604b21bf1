/* SPDX-License-Identifier: MIT
 * fuzz_image.c - any bytes as an image: size and pixels, which must agree. */
#include "host.h"

#define MAX_PIXELS (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const struct burin_codec *c = burin_plugin_main(&fuzz_host)->codecs[0];
    int width = 0, height = 0;
    struct burin_pixels pixels;
    c->probe(data, n);
    int sized = c->size_of(data, n, &width, &height);
    if (c->decode(data, n, MAX_PIXELS, &pixels) != 0)
        return 0;
    if (sized != 0 || pixels.width != width || pixels.height != height)
        abort();
    volatile uint8_t sum = 0;
    size_t bytes = (size_t)width * (size_t)height * (size_t)pixels.channels;
    for (size_t i = 0; i < bytes; i++)
        sum = (uint8_t)(sum + pixels.data[i]);
    host_free(pixels.data);
    return 0;
}
