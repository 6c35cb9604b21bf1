/* SPDX-License-Identifier: MIT
 * data.h - text and images on their way into a batch. Depends on base, plug. */
#ifndef BURIN_DATA_H
#define BURIN_DATA_H

#include "base/base.h"

/* ---- images (image.c, decoder.c, resize.c, png.c) -------------------------------------------- */

/* 8-bit RGB, rows top to bottom; zero = empty */
struct image {
    int width, height;
    uint8_t *rgb;
    bool lent; /* rgb is only read, and until the next image_load */
};

/* From now on codecs run in another process, so that a crash, a hang or a want of memory there is
 * an error of the picture. To be called once, after plugins are loaded and before there are
 * threads, a device or anything that should not be copied. Where it cannot be, or has not been,
 * codecs run in this process; the log says so once. */
void image_decoder_start(void);
/* Codecs run in this process again; why: for the log, or NULL. Waits for the other's end. */
void image_decoder_stop(const char *why);

/* Decodes a file through the codec plugins: at most max_pixels, transparency over white, EXIF
 * orientation applied. false with the path and the reason. */
bool image_load(const char *path, uint64_t max_pixels, struct image *out);
bool image_size(const char *path, int *width, int *height); /* header only, orientation applied */
/* What decodes a file, and by which rules its pixels become a picture: "stb_image 1.1 ...". A
 * picture is the same as long as this, the file and the size that it covers are. Caller frees; NULL
 * with a sentence. */
char *image_recipe(const char *path);
/* The size that covers width x height, and where the crop around its centre begins. */
struct image_fit {
    int64_t width, height, left, top;
};
struct image_fit image_fit(int from_width, int from_height, int width, int height);
/* Scales to cover width x height (area average down, Lanczos up) and crops around the centre. */
bool image_cover(const struct image *in, int width, int height, struct image *out);
/* Key, value, ..., NULL */
bool image_save_png(const char *path, const struct image *in, const char *const *text);
void image_finish(struct image *i);

/* ---- text (tokenizer.c, clean.c) ------------------------------------------------------------- */

/* CLIP's byte-pair tokenizer. One table for the process, unpacked from the binary on first use. */
/* The table itself: a heading, then a pair of symbols a line in order of rank. The caller
 * frees it; *n bytes and a NUL. */
char *tokenizer_vocabulary(size_t *n);
enum tokenizer_flavour {
    TOKENIZER_HF,          /* ftfy-like cleanup only (Hugging Face, sd-scripts) */
    TOKENIZER_OPENAI,      /* and HTML entities decoded twice (OpenAI, OpenCLIP) */
    TOKENIZER_PLAIN,       /* no cleanup */
    TOKENIZER_HF_PAD_BANG, /* Hugging Face with pad token "!": each "!" is id 0 */
};
/* Token ids of a text without begin and end marks, not truncated. ids is grown with
 * mem_grow semantics: *out is allocated for the caller (mem_free). Returns the number
 * of tokens, -1 on invalid UTF-8. */
int tokenizer_encode(const char *text, size_t bytes, enum tokenizer_flavour flavour, int32_t **out);
/* Ids for a text encoder: chunks * 77 ids in rows of [BOS, 75 tokens, EOS], chunks = max_tokens /
 * 75. pad: the padding id (49407 or 0). The rule is sd-scripts' (strategy_base._get_input_ids). */
bool tokenizer_chunks(const char *text, size_t bytes, enum tokenizer_flavour flavour,
                      int max_tokens, int32_t pad, int32_t *out);
/* The same for captions with A1111's weights: (x:1.2), (x), [x], and a backslash before a literal
 * bracket. weights: one per id of out; 1 outside brackets. */
bool tokenizer_chunks_weighted(const char *text, size_t bytes, enum tokenizer_flavour flavour,
                               int max_tokens, int32_t pad, int32_t *out, float *weights);
/* How many tokens a text has, without marks; -1 on invalid UTF-8. */
int tokenizer_count(const char *text, size_t bytes, enum tokenizer_flavour flavour, bool weighted);

/* ---- captions (caption.c) -------------------------------------------------------------------- */

/* Reads a caption file: UTF-8 (BOM dropped) or UTF-16 with BOM; anything else is an error naming
 * the encoding it looks like. The result is the lines that are not blank, joined by '\n'. Caller
 * frees. */
char *caption_load(const char *path);
/* An item's caption: its own, else its caption file, else its class tokens, else "". NULL with a
 * sentence when there is a caption file that cannot be read. Caller frees. */
struct burin_item;
char *caption_of(const struct burin_item *item);

#endif
