/* SPDX-License-Identifier: MIT
 * text.h - private to data/: text as code points, and its cleanup. */
#ifndef BURIN_DATA_TEXT_H
#define BURIN_DATA_TEXT_H

#include "base/base.h"

/* Zero = empty */
struct text {
    int32_t *c;
    size_t n, cap;
};

void text_add(struct text *t, int32_t c);
void text_add_text(struct text *t, const int32_t *c, size_t n);
bool text_decode(struct text *t, const char *utf8,
                 size_t bytes);                                /* appends; false on invalid UTF-8 */
void text_encode(const int32_t *c, size_t n, struct str *out); /* appends */
void text_finish(struct text *t);

bool text_is_space(int32_t c);     /* Unicode White_Space, the \s of Python's regex module */
bool text_is_letter(int32_t c);    /* \p{L} */
bool text_is_number(int32_t c);    /* \p{N} */
void text_squeeze(struct text *t); /* white space to single spaces, none at the ends */
void text_lower(struct text *t);   /* as Python's str.lower */

/* clean.c: the repairs that ftfy makes to prompts; see there. */
void text_clean(struct text *t);

/* html.c: character references. */
void html_unescape_strict(struct text *t); /* only "&name;" and "&#n;", as ftfy does */
void html_unescape(struct text *t); /* as browsers do: also without ";", longest known name */

int32_t windows_1252(int byte); /* clean.c: 0x80..0x9f -> code point */

#endif
