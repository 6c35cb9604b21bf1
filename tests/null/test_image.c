/* SPDX-License-Identifier: MIT
 * test_image.c - the image codec against damaged and hostile files, then scaling and writing. PNG
 * and BMP files are made here; tests/data/quadrants.jpg is 32 x 16: red, green over blue, white. */
#include "picture_file.h"
#include "plugin_test.h"

#include "data/data.h"

#define LIMIT (1u << 24)

static const char *save(const void *bytes, size_t n) { return put_file("case.png", bytes, n); }

static void refused(const char *what, const void *bytes, size_t n, const char *says)
{
    struct image i;
    fail("nothing was recorded");
    if (image_load(save(bytes, n), LIMIT, &i)) {
        print_error("%s was accepted\n", what);
        _fail(__FILE__, __LINE__);
    }
    assert_error("case.png");
    if (says) assert_error(says);
}

static struct image loaded(const char *what, const void *bytes, size_t n)
{
    struct image i;
    int width = 0, height = 0;
    const char *path = save(bytes, n);
    if (!image_load(path, LIMIT, &i) || !image_size(path, &width, &height)) {
        print_error("%s was refused: %s\n", what, burin_error());
        _fail(__FILE__, __LINE__);
    }
    assert_int_equal(width, i.width);
    assert_int_equal(height, i.height);
    return i;
}

static void pixel(const struct image *i, int x, int y, int r, int g, int b, int slack)
{
    const uint8_t *p = i->rgb + ((size_t)y * (size_t)i->width + (size_t)x) * 3;
    if (abs(p[0] - r) > slack || abs(p[1] - g) > slack || abs(p[2] - b) > slack) {
        print_error("pixel %d, %d: expected %d %d %d, got %d %d %d\n", x, y, r, g, b, p[0], p[1],
                    p[2]);
        _fail(__FILE__, __LINE__);
    }
}

/* ---- PNG ------------------------------------------------------------------------------------- */

static const uint8_t rgb_rows[] = { 0, 255, 0, 0, 0, 255, 0, 0, 0, 0, 255, 9, 9, 9 }; /* 2 x 2 */

static void good_png(struct str *s)
{
    png_begin(s, 2, 2, 8, 2, 0);
    png_pixels(s, rgb_rows, sizeof rgb_rows);
    png_end(s);
}

static void test_png_kinds(void **state)
{
    (void)state;
    struct str s = { 0 };
    good_png(&s);
    struct image i = loaded("rgb", s.data, s.len);
    pixel(&i, 1, 0, 0, 255, 0, 0);
    pixel(&i, 0, 1, 0, 0, 255, 0);
    image_finish(&i);
    str_add(&s, "PK\003\004 a zip archive");
    i = loaded("a zip behind it", s.data, s.len);
    image_finish(&i);

    png_begin(&s, 3, 1, 8, 4, 0); /* gray and alpha, over white */
    png_pixels(&s, "\0\0\377\0\0\144\200", 7);
    png_end(&s);
    i = loaded("gray alpha", s.data, s.len);
    pixel(&i, 0, 0, 0, 0, 0, 0);
    pixel(&i, 1, 0, 255, 255, 255, 0);
    pixel(&i, 2, 0, 177, 177, 177, 1);
    image_finish(&i);

    png_begin(&s, 4, 1, 1, 0, 0); /* one bit */
    png_pixels(&s, "\0\240", 2);
    png_end(&s);
    i = loaded("bits", s.data, s.len);
    pixel(&i, 0, 0, 255, 255, 255, 0);
    pixel(&i, 1, 0, 0, 0, 0, 0);
    image_finish(&i);

    png_begin(&s, 1, 1, 16, 2, 0);
    png_pixels(&s, "\0\377\377\200\0\1\0", 7);
    png_end(&s);
    i = loaded("16 bit", s.data, s.len);
    pixel(&i, 0, 0, 255, 128, 1, 1);
    image_finish(&i);

    png_begin(&s, 4, 1, 8, 3, 0); /* palette with alpha; the last index is beyond the palette */
    chunk(&s, "PLTE", "\377\0\0\0\377\0", 6);
    chunk(&s, "tRNS", "\0", 1);
    png_pixels(&s, "\0\0\1\2\377", 5);
    png_end(&s);
    i = loaded("palette", s.data, s.len);
    pixel(&i, 0, 0, 255, 255, 255, 0);
    pixel(&i, 1, 0, 0, 255, 0, 0);
    pixel(&i, 2, 0, 0, 0, 0, 0);
    pixel(&i, 3, 0, 0, 0, 0, 0);
    image_finish(&i);

    png_begin(&s, 1, 1, 8, 2, 1); /* interlaced, and a transparent color */
    chunk(&s, "tRNS", "\0\1\0\2\0\3", 6);
    png_pixels(&s, "\0\1\2\3", 4);
    png_end(&s);
    i = loaded("color key", s.data, s.len);
    pixel(&i, 0, 0, 255, 255, 255, 0);
    image_finish(&i);
    str_finish(&s);
}

static void bad_header(const char *what, uint32_t w, uint32_t h, int depth, int color,
                       int interlace, const char *says)
{
    struct str s = { 0 };
    png_begin(&s, w, h, depth, color, interlace);
    png_pixels(&s, rgb_rows, sizeof rgb_rows);
    png_end(&s);
    refused(what, s.data, s.len, says);
    str_finish(&s);
}

static void test_png_headers(void **state)
{
    (void)state;
    bad_header("zero width", 0, 2, 8, 2, 0, "0 x 2");
    bad_header("zero height", 2, 0, 8, 2, 0, "2 x 0");
    bad_header("2^31", 0x80000000u, 1, 8, 2, 0, "2147483648 x 1");
    bad_header("too wide", 65536, 1, 8, 2, 0, "65536 x 1");
    bad_header("65535 x 65535", 65535, 65535, 8, 2, 0, "more than the limit");
    bad_header("more than the file can hold", 4000, 4000, 8, 2, 0, "more than its");
    bad_header("taller than the pixels", 2, 3, 8, 2, 0, NULL);
    bad_header("wider than the pixels", 3, 2, 8, 2, 0, NULL);
    bad_header("depth 3", 2, 2, 3, 2, 0, "with 3 bits");
    bad_header("depth 4 rgb", 2, 2, 4, 2, 0, "with 4 bits");
    bad_header("color type 5", 2, 2, 8, 5, 0, "color type 5");
    bad_header("interlace 7", 2, 2, 8, 2, 7, "unknown method");
    bad_header("palette missing", 2, 2, 8, 3, 0, "palette");
}

static void test_png_chunks(void **state)
{
    (void)state;
    struct str s = { 0 };
    png_begin(&s, 2, 2, 8, 2, 0);
    png_end(&s);
    refused("no IDAT", s.data, s.len, "holds no pixels");

    png_begin(&s, 2, 2, 8, 3, 0);
    chunk(&s, "PLTE", "\1\2\3", 3);
    chunk(&s, "tRNS", "\1\2", 2);
    refused("tRNS too long", s.data, s.len, "bad tRNS");
    png_begin(&s, 2, 2, 8, 3, 0);
    chunk(&s, "PLTE", "\1\2\3\4", 4);
    refused("PLTE of 4 bytes", s.data, s.len, "bad palette");
    png_begin(&s, 2, 2, 8, 2, 0);
    chunk(&s, "ABCD", "", 0);
    refused("unknown critical chunk", s.data, s.len, "unknown feature \"ABCD\"");
    s.len = 0;
    str_add_bytes(&s, "\x89PNG\r\n\x1a\n", 8);
    chunk(&s, "CgBI", "abcd", 4);
    refused("Apple's", s.data, s.len, "Apple");
    png_begin(&s, 2, 2, 8, 2, 0);
    chunk(&s, "IDAT", "not deflate", 11);
    png_end(&s);
    refused("no deflate", s.data, s.len, "cannot be decoded");

    png_begin(&s, 2, 2, 8, 2, 0);
    chunk(&s, "tEXt", "a\0b", 3);
    chunk(&s, "iCCP", "damaged profile", 15);
    int n;
    uint8_t *packed = deflate_pack((uint8_t *)(uintptr_t)rgb_rows, sizeof rgb_rows, &n);
    for (int k = 0; k < n; k++) chunk(&s, "IDAT", packed + k, 1);
    deflate_free(packed);
    png_end(&s);
    struct image i = loaded("IDAT in single bytes", s.data, s.len);
    pixel(&i, 1, 0, 0, 255, 0, 0);
    image_finish(&i);

    good_png(&s);
    for (size_t k = 8; k < s.len;
         k++) { /* any changed byte breaks a length, a type or a checksum */
        s.data[k] ^= 0x10;
        refused("changed byte", s.data, s.len, NULL);
        s.data[k] ^= 0x10;
    }
    uint8_t *zeros = mem_alloc(16u << 20); /* a bomb: 16 MB for one pixel */
    png_begin(&s, 1, 1, 8, 2, 0);
    png_pixels(&s, zeros, 16u << 20);
    png_end(&s);
    mem_free(zeros);
    assert_true(s.len < 1u << 20);
    refused("bomb", s.data, s.len, "cannot be decoded");
    str_finish(&s);
}

/* A PNG of these chunks behind its header; then pixels and the end, unless it is refused before. */
struct piece {
    const char *type, *bytes;
    size_t n;
};
#define PIECE(type, bytes)            \
    {                                 \
        type, bytes, sizeof bytes - 1 \
    }

static void test_png_order(void **state)
{
    (void)state;
    static const char header[] = "\0\0\0\1\0\0\0\1\10\2\0\0\0";
    static const struct {
        const char *what, *says; /* NULL: taken */
        int color;
        struct piece piece[4];
    } cases[] = {
        { "two headers", "bad IHDR", 2, { PIECE("IHDR", header) } },
        { "two palettes", "bad palette", 3, { PIECE("PLTE", "123"), PIECE("PLTE", "123") } },
        { "a palette of nothing", "bad palette", 3, { PIECE("PLTE", "") } },
        { "a palette behind pixels",
          "bad palette",
          2,
          { PIECE("IDAT", "x"), PIECE("PLTE", "123") } },
        { "a palette that is not needed", NULL, 2, { PIECE("PLTE", "123") } },
        { "tRNS of gray", NULL, 0, { PIECE("tRNS", "\0\0") } },
        { "tRNS of gray, short", "bad tRNS", 0, { PIECE("tRNS", "\0") } },
        { "tRNS of colors, short", "bad tRNS", 2, { PIECE("tRNS", "\0\0\0\0") } },
        { "tRNS beside an alpha", "bad tRNS", 6, { PIECE("tRNS", "\0\0") } },
        { "tRNS before the palette", "bad tRNS", 3, { PIECE("tRNS", "\0") } },
        { "tRNS of nothing", "bad tRNS", 3, { PIECE("PLTE", "123"), PIECE("tRNS", "") } },
        { "two tRNS", "bad tRNS", 0, { PIECE("tRNS", "\0\0"), PIECE("tRNS", "\0\0") } },
        { "tRNS behind pixels", "bad tRNS", 0, { PIECE("IDAT", "x"), PIECE("tRNS", "\0\0") } },
        { "pixels in two places",
          "in two places",
          2,
          { PIECE("IDAT", "x"), PIECE("tEXt", "a\0b") } },
    };
    for (int i = 0; i < COUNT_OF(cases); i++) {
        struct str s = { 0 };
        png_begin(&s, 1, 1, 8, cases[i].color, 0);
        for (const struct piece *p = cases[i].piece; p->type; p++)
            chunk(&s, p->type, p->bytes, p->n);
        png_pixels(&s, "\0\0\0\0\0", cases[i].color == 2 ? 4 : cases[i].color == 6 ? 5 : 2);
        png_end(&s);
        if (cases[i].says) refused(cases[i].what, s.data, s.len, cases[i].says);
        else {
            struct image image = loaded(cases[i].what, s.data, s.len);
            image_finish(&image);
        }
        str_finish(&s);
    }
    bad_header("palette of 16 bits", 2, 2, 16, 3, 0, "with 16 bits");
    bad_header("gray of 3 bits", 2, 2, 3, 0, 0, "with 3 bits");
    bad_header("gray and alpha of 4 bits", 2, 2, 4, 4, 0, "with 4 bits");
    struct str s = { 0 };
    str_add_bytes(&s, "\x89PNG\r\n\x1a\n", 8);
    chunk(&s, "IHDR", header, 12);
    refused("a short header", s.data, s.len, "bad IHDR");
    good_png(&s);
    s.data[12] = '{';
    refused("no name of a chunk", s.data, s.len, "no chunk at byte 8");
    good_png(&s);
    s.data[8] = (char)0x80;
    refused("a chunk of 2^31 bytes", s.data, s.len, "claims 2147483661 bytes");
    str_finish(&s);
}

/* Every place to cut small files; every tenth of larger ones is among them. */
static void test_truncation(void **state)
{
    (void)state;
    struct str s = { 0 };
    good_png(&s);
    for (size_t n = 0; n < s.len; n++) refused("cut PNG", s.data, n, NULL);
    assert_true(file_read(test_data("quadrants.jpg"), 1 << 20, &s));
    for (size_t n = 0; n < s.len; n++) refused("cut JPEG", s.data, n, NULL);
    str_finish(&s);
}

static void test_foreign(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } files[] = {
        { "", 0, "empty" },
        { "GIF89a\1\0\1\0", 10, "a GIF image" },
        { "RIFF\0\0\0\0WEBPVP8 ", 16, "a WebP image" },
        { "\0\0\0\040ftypavif", 12, "an AVIF image" },
        { "\0\0\0\040ftypheic", 12, "a HEIC image" },
        { "8BPS\0\1", 6, "a Photoshop file" },
        { "II*\0\10\0\0\0", 8, "a TIFF image" },
        { "P6 1 1 255\nabc", 14, "no known image format" },
        { "#?RADIANCE\n", 11, "no known image format" },
        { "<svg>", 5, "an HTML or SVG document" },
    };
    for (int i = 0; i < COUNT_OF(files); i++)
        refused(files[i].says, files[i].bytes, files[i].n, files[i].says);
    struct image image;
    assert_false(image_load(in_folder(folder, "absent.png"), LIMIT, &image));
    assert_error("absent.png");
    assert_false(image_load(folder, LIMIT, &image));
    int w, h;
    assert_false(image_size(in_folder(folder, "absent.png"), &w, &h));
}

/* ---- JPEG ------------------------------------------------------------------------------------ */

/* The JPEG with an EXIF segment: orientation as a SHORT in IFD0, in either byte order. */
static void with_exif(struct str *out, const struct str *jpeg, int orientation, bool big,
                      int entries)
{
    uint8_t tiff[26] = { 0 };
    memcpy(tiff, big ? "MM\0*\0\0\0\10" : "II*\0\10\0\0\0", 8);
    tiff[big ? 9 : 8] = (uint8_t)entries;
    const uint8_t entry_be[12] = { 1, 0x12, 0, 3, 0, 0, 0, 1, 0, (uint8_t)orientation, 0, 0 };
    const uint8_t entry_le[12] = { 0x12, 1, 3, 0, 1, 0, 0, 0, (uint8_t)orientation, 0, 0, 0 };
    memcpy(tiff + 10, big ? entry_be : entry_le, 12);
    memcpy(tiff + 22, big ? "\0\0\0\10" : "\10\0\0\0", 4); /* "next directory": itself */
    out->len = 0;
    str_add_bytes(out, "\xff\xd8\xff\xe1\0\042Exif\0\0", 12);
    str_add_bytes(out, tiff, sizeof tiff);
    str_add_bytes(out, jpeg->data + 2, jpeg->len - 2);
}

static void test_orientation(void **state)
{
    (void)state;
    /* Where red, green, blue and white are when upright: 0 top left, 1 top right, 2 and 3 below. */
    static const char *const corners[10] = { "rgbw", "rgbw", "grwb", "wbgr", "bwrg",
                                             "rbgw", "brwg", "wgbr", "gwrb", "rgbw" };
    struct str jpeg = { 0 }, s = { 0 };
    assert_true(file_read(test_data("quadrants.jpg"), 1 << 20, &jpeg));
    for (int o = 0; o < 20; o++) {
        with_exif(&s, &jpeg, o % 10, o >= 10, 1);
        struct image i = loaded("orientation", s.data, s.len);
        bool turned = o % 10 >= 5 && o % 10 <= 8;
        assert_int_equal(i.width, turned ? 16 : 32);
        assert_int_equal(i.height, turned ? 32 : 16);
        for (int k = 0; k < 4; k++) {
            char c = corners[o % 10][k];
            pixel(&i, k % 2 ? i.width - 3 : 2, k / 2 ? i.height - 3 : 2,
                  c == 'r' || c == 'w' ? 255 : 0, c == 'g' || c == 'w' ? 255 : 0,
                  c == 'b' || c == 'w' ? 255 : 0, 12);
        }
        image_finish(&i);
    }
    with_exif(&s, &jpeg, 6, false, 255); /* more entries than there are */
    struct image i = loaded("exif count", s.data, s.len);
    assert_int_equal(i.width, 16);
    image_finish(&i);
    static const char *const offsets[] = { "\377\377\377\377", "\0\0\0\0", "\33\0\0\0",
                                           "\31\0\0\0" };
    for (int k = 0; k < COUNT_OF(offsets); k++) { /* the directory lies elsewhere */
        with_exif(&s, &jpeg, 6, false, 1);
        memcpy(s.data + 16, offsets[k], 4);
        i = loaded("exif offset", s.data, s.len);
        assert_int_equal(i.width, 32);
        image_finish(&i);
    }
    str_finish(&jpeg);
    str_finish(&s);
}

static void test_jpeg_damage(void **state)
{
    (void)state;
    struct str jpeg = { 0 }, s = { 0 };
    assert_true(file_read(test_data("quadrants.jpg"), 1 << 20, &jpeg));
    size_t sof = jpeg_marker(&jpeg, 0xc0), dqt = jpeg_marker(&jpeg, 0xdb),
           sos = jpeg_marker(&jpeg, 0xda);
    const struct {
        const char *what;
        size_t at;
        const char *bytes;
        size_t n;
        const char *says;
    } edits[] = {
        { "no SOI", 0, "\0\0", 2, "no known image format" },
        { "height 0", sof + 5, "\0\0", 2, "32 x 0" },
        { "width 0", sof + 7, "\0\0", 2, "0 x 16" },
        { "12 bits", sof + 4, "\14", 1, "12 bits" },
        { "5 channels", sof + 9, "\5", 1, "5 channels" },
        { "arithmetic", sof + 1, "\xc9", 1, "not supported" },
        { "65535 x 65535", sof + 5, "\377\377\377\377", 4, "more than the limit" },
        { "8000 x 2000", sof + 5, "\7\320\37\100", 4, "more than its" },
        { "no frame", sof + 1, "\xfe", 1, "no frame header" },
        { "no tables", dqt + 1, "\xfe", 1, NULL },
        { "segment of 1 byte", dqt + 2, "\0\1", 2, "cut off" },
        { "segment past the end", dqt + 2, "\377\377", 2, "cut off" },
        { "bad scan", sos + 4, "\11", 1, NULL },
    };
    for (int i = 0; i < COUNT_OF(edits); i++) {
        s.len = 0;
        str_add_bytes(&s, jpeg.data, jpeg.len);
        memcpy(s.data + edits[i].at, edits[i].bytes, edits[i].n);
        if (edits[i].says) refused(edits[i].what, s.data, s.len, edits[i].says);
        else {
            struct image image; /* garbage in, garbage or a refusal out; but nothing worse */
            if (image_load(save(s.data, s.len), LIMIT, &image)) image_finish(&image);
        }
    }
    s.len = 0; /* two frames */
    str_add_bytes(&s, jpeg.data, sos);
    str_add_bytes(&s, jpeg.data + sof, jpeg.len - sof);
    refused("two frames", s.data, s.len, "two frames");
    s.len = 0; /* a thousand scans */
    str_add_bytes(&s, jpeg.data, sos);
    for (int i = 0; i < 1000; i++) str_add_bytes(&s, jpeg.data + sos, jpeg.len - 2 - sos);
    str_add_bytes(&s, "\xff\xd9", 2);
    refused("a thousand scans", s.data, s.len, "too many scans");
    str_finish(&jpeg);
    str_finish(&s);
}

/* A PNG's eXIf chunk, before or behind the pixels, turns it as the same EXIF turns a JPEG. */
static void test_png_orientation(void **state)
{
    (void)state;
    const uint8_t rows[] = { 0, 255, 0, 0, 0, 255, 0, 0, 0, 255 }; /* red, green, blue */
    for (int o = 1; o <= 8; o++) {
        const uint8_t tiff[26] = { 'I', 'I', '*', 0, 8, 0, 0, 0,          1, 0, 0x12,
                                   1,   3,   0,   1, 0, 0, 0, (uint8_t)o, 0, 0, 0 };
        for (int behind = 0; behind < 2; behind++) {
            struct str s = { 0 };
            png_begin(&s, 3, 1, 8, 2, 0);
            if (!behind) chunk(&s, "eXIf", tiff, sizeof tiff);
            png_pixels(&s, rows, sizeof rows);
            if (behind) chunk(&s, "eXIf", tiff, sizeof tiff);
            png_end(&s);
            int w, h;
            struct image i = loaded("eXIf", s.data, s.len);
            assert_true(image_size(save(s.data, s.len), &w, &h));
            char *recipe = image_recipe(save(s.data, s.len));
            assert_non_null(strstr(recipe, "stb_image 1."));
            mem_free(recipe);
            assert_int_equal(w, o >= 5 ? 1 : 3);
            assert_int_equal(i.width, w);
            assert_int_equal(i.height, h);
            bool red_first = o == 1 || o == 4 || o == 5 || o == 6;
            pixel(&i, 0, 0, red_first ? 255 : 0, 0, red_first ? 0 : 255, 0);
            image_finish(&i);
            str_finish(&s);
        }
    }
}

/* ---- BMP ------------------------------------------------------------------------------------- */

static void test_bmp(void **state)
{
    (void)state;
    struct str s = { 0 };
    make_bmp(&s, 2, 2, 24, 0, 54, 16);
    struct image i = loaded("bmp", s.data, s.len);
    pixel(&i, 0, 1, 20, 10, 0, 0);
    image_finish(&i);
    make_bmp(&s, 2, -2, 24, 0, 54, 16);
    i = loaded("top-down bmp", s.data, s.len);
    pixel(&i, 0, 0, 20, 10, 0, 0);
    image_finish(&i);
    make_bmp(&s, 2, 2, 32, 0, 54, 16); /* the fourth byte of a pixel is no alpha */
    i = loaded("32-bit bmp", s.data, s.len);
    pixel(&i, 0, 1, 20, 10, 0, 0);
    image_finish(&i);
    make_bmp(&s, 2, 2, 24, 0, 54, 15);
    refused("cut bmp", s.data, s.len, "cut off");
    make_bmp(&s, 2, INT32_MIN, 24, 0, 54, 16);
    refused("INT_MIN rows", s.data, s.len, "2147483648");
    make_bmp(&s, -2, 2, 24, 0, 54, 16);
    refused("negative width", s.data, s.len, "-2 x 2");
    make_bmp(&s, 2, 2, 8, 1, 54, 16);
    refused("RLE", s.data, s.len, "compressed");
    make_bmp(&s, 2, 2, 0, 0, 54, 16);
    refused("0 bits", s.data, s.len, "of 0 bits");
    make_bmp(&s, 2, 2, 24, 0, 0xffffffff, 16);
    refused("offset past the end", s.data, s.len, "cut off");
    make_bmp(&s, 65535, 65535, 1, 0, 54, 16);
    refused("tiny file, large claim", s.data, s.len, NULL);
    str_finish(&s);
}

/* A field of `bytes` bytes. */
static void set_le(struct str *s, size_t at, uint32_t v, int bytes)
{
    for (int k = 0; k < bytes; k++) s->data[at + (size_t)k] = (char)(v >> 8 * k);
}

/* Every kind of header and of pixel, by 2 x 2 pixels in 16 bytes behind a palette or masks. */
static void test_bmp_kinds(void **state)
{
    (void)state;
    static const struct {
        uint32_t header, bits, packing, alpha_mask;
        const char *says;
    } cases[] = {
        { 12, 24, 0, 0, NULL },
        { 12, 8, 0, 0, NULL },
        { 40, 1, 0, 0, NULL },
        { 40, 4, 0, 0, NULL },
        { 40, 8, 0, 0, NULL },
        { 40, 16, 0, 0, NULL },
        { 40, 16, 3, 0, NULL },
        { 40, 32, 3, 0, NULL },
        { 56, 32, 0, 0, NULL },
        { 56, 32, 3, 0, "cannot be decoded" }, /* stb_image looks for the masks behind the header */
        { 56, 32, 3, 0xff000000u, "cannot be decoded" },
        { 108, 32, 3, 0xff000000u, NULL },
        { 124, 32, 3, 0xff000000u, NULL },
        { 124, 24, 0, 0, NULL },
        { 41, 24, 0, 0, "unknown header of 41 bytes" },
        { 64, 24, 0, 0, "unknown header of 64 bytes" },
        { 40, 2, 0, 0, "planes of 2 bits" },
        { 40, 24, 2, 0, "compressed" },
        { 40, 24, 4, 0, "compressed" },
    };
    for (int i = 0; i < COUNT_OF(cases); i++) {
        uint32_t header = cases[i].header, bits = cases[i].bits, masks = header == 40 ? 12 : 0;
        size_t behind = bits <= 8               ? 256 * (header == 12 ? 3u : 4u)
                        : cases[i].packing == 3 ? masks
                                                : 0;
        struct str s = { 0 };
        uint8_t zeros[1400] = { 0 };
        size_t pixels = 14 + header + behind;
        str_add_bytes(&s, zeros, pixels + 16);
        memcpy(s.data, "BM", 2);
        set_le(&s, 2, (uint32_t)s.len, 4);
        set_le(&s, 10, (uint32_t)pixels, 4);
        set_le(&s, 14, header, 4);
        int size = header == 12 ? 2 : 4;
        set_le(&s, 18, 2, size);
        set_le(&s, 18 + (size_t)size, 2, size);
        set_le(&s, 18 + 2 * (size_t)size, 1 | bits << 16, 4);
        if (header >= 40) set_le(&s, 30, cases[i].packing, 4);
        if (cases[i].packing == 3) {
            bool wide = bits == 32;
            set_le(&s, 54, wide ? 0xff0000 : 0x7c00, 4);
            set_le(&s, 58, wide ? 0xff00 : 0x3e0, 4);
            set_le(&s, 62, wide ? 0xff : 0x1f, 4);
            if (header >= 56) set_le(&s, 66, cases[i].alpha_mask, 4);
        }
        if (cases[i].says) refused(cases[i].says, s.data, s.len, cases[i].says);
        else {
            char what[48];
            snprintf(what, sizeof what, "BMP, header %u, bits %u", header, bits);
            struct image image = loaded(what, s.data, s.len);
            bool clear = cases[i].alpha_mask; /* black that is seen through, over white */
            pixel(&image, 1, 1, clear ? 255 : 0, clear ? 255 : 0, clear ? 255 : 0, 0);
            image_finish(&image);
        }
        str_finish(&s);
    }
    struct str s = { 0 };
    make_bmp(&s, 2, 2, 24, 0, 54, 16);
    refused("a BMP of 25 bytes", s.data, 25, "cut off");
    refused("a BMP of 53 bytes", s.data, 53, "cut off");
    set_le(&s, 26, 2, 2);
    refused("two planes", s.data, s.len, "2 planes");
    make_bmp(&s, 2, 2, 24, 0, 53, 16);
    refused("pixels in the header", s.data, s.len, "cut off");
    str_finish(&s);
}

/* What is no picture has neither size nor codec. */
static void test_no_picture(void **state)
{
    (void)state;
    int w, h;
    struct str s = { 0 };
    png_begin(&s, 0, 1, 8, 2, 0);
    assert_false(image_size(save(s.data, s.len), &w, &h));
    assert_error("case.png");
    assert_error("0 x 1");
    assert_null(image_recipe(in_folder(folder, "absent.png")));
    assert_null(image_recipe(save("x", 1)));
    assert_error("case.png");
    str_finish(&s);
}

/* ---- scaling and writing --------------------------------------------------------------------- */

static struct image gradient(int width, int height)
{
    struct image i = { .width = width,
                       .height = height,
                       .rgb = mem_alloc((size_t)width * (size_t)height * 3) };
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            uint8_t *p = i.rgb + ((size_t)y * (size_t)width + (size_t)x) * 3;
            p[0] = (uint8_t)(x * 7 + y);
            p[1] = (uint8_t)(y * 5);
            p[2] = (uint8_t)(x ^ y);
        }
    return i;
}

static void test_cover(void **state)
{
    (void)state;
    struct image in = gradient(64, 48), out;
    assert_true(image_cover(&in, 64, 48, &out)); /* the same size is the same picture */
    assert_memory_equal(in.rgb, out.rgb, 64 * 48 * 3);
    image_finish(&out);
    assert_true(image_cover(&in, 32, 24, &out)); /* half: the mean of four */
    for (int y = 0; y < 24; y++)
        for (int x = 0; x < 32; x++) {
            int sum = 0;
            for (int k = 0; k < 4; k++)
                sum += in.rgb[((2 * y + k / 2) * 64 + 2 * x + k % 2) * 3 + 2];
            assert_in_range(out.rgb[(y * 32 + x) * 3 + 2], (sum + 1) / 4, (sum + 3) / 4);
        }
    image_finish(&out);
    assert_true(image_cover(&in, 48, 48, &out)); /* only cropped: 8 columns off each side */
    for (int y = 0; y < 48; y++)
        assert_memory_equal(out.rgb + y * 48 * 3, in.rgb + (y * 64 + 8) * 3, 48 * 3);
    image_finish(&out);
    image_finish(&in);

    static const int sizes[][4] = { { 1, 1, 64, 64 },     { 1, 4000, 64, 64 },
                                    { 4000, 1, 64, 64 },  { 3, 2, 512, 768 },
                                    { 777, 333, 1, 1 },   { 640, 480, 512, 512 },
                                    { 100, 100, 101, 99 } };
    for (int k = 0; k < COUNT_OF(sizes); k++) { /* one color stays that color */
        in = (struct image){ .width = sizes[k][0],
                             .height = sizes[k][1],
                             .rgb = mem_alloc((size_t)sizes[k][0] * (size_t)sizes[k][1] * 3) };
        memset(in.rgb, 200, (size_t)in.width * (size_t)in.height * 3);
        assert_true(image_cover(&in, sizes[k][2], sizes[k][3], &out));
        assert_int_equal(out.width, sizes[k][2]);
        assert_int_equal(out.height, sizes[k][3]);
        for (size_t p = 0; p < (size_t)out.width * (size_t)out.height * 3; p++)
            assert_int_equal(out.rgb[p], 200);
        image_finish(&out);
        image_finish(&in);
    }
    in = (struct image){ 0 };
    assert_false(image_cover(&in, 64, 64, &out));
}

static void test_save(void **state)
{
    (void)state;
    struct image in = gradient(61, 37), out;
    const char *text[] = { "parameters", "a cat, steps 20", "Comment", "caf\xc3\xa9", NULL };
    const char *path = in_folder(folder, "saved.png");
    struct str first = { 0 }, second = { 0 };
    assert_true(image_save_png(path, &in, text));
    assert_true(image_load(path, LIMIT, &out));
    assert_int_equal(out.width, 61);
    assert_int_equal(out.height, 37);
    assert_memory_equal(in.rgb, out.rgb, 61 * 37 * 3);
    image_finish(&out);
    assert_true(file_read(path, 1 << 20, &first));
    assert_true(image_save_png(path, &in, text));
    assert_true(file_read(path, 1 << 20, &second));
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    assert_non_null(memmem(first.data, first.len, "tEXtparameters\0a cat, steps 20", 30));
    assert_non_null(memmem(first.data, first.len, "iTXtComment\0\0\0\0\0caf\xc3\xa9", 21));
    assert_true(first.len < 61 * 37 * 3);
    assert_false(image_load(path, 61 * 37 - 1, &out));
    assert_error("more than the limit of 2256");
    assert_true(image_save_png(path, &in, NULL));
    text[0] = "";
    assert_false(image_save_png(path, &in, text));
    assert_error("keyword");
    assert_false(image_save_png(in_folder(folder, "absent/x.png"), &in, NULL));
    image_finish(&in);
    assert_false(image_save_png(path, &in, NULL));
    assert_error("empty");
    str_finish(&first);
    str_finish(&second);
    assert_int_equal(count_files(folder), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_png_kinds),   cmocka_unit_test(test_png_headers),
        cmocka_unit_test(test_png_chunks),  cmocka_unit_test(test_png_order),
        cmocka_unit_test(test_truncation),  cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_orientation), cmocka_unit_test(test_png_orientation),
        cmocka_unit_test(test_jpeg_damage), cmocka_unit_test(test_bmp),
        cmocka_unit_test(test_bmp_kinds),   cmocka_unit_test(test_no_picture),
        cmocka_unit_test(test_cover),       cmocka_unit_test(test_save),
    };
    load_plugin("stb_image");
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
