/* SPDX-License-Identifier: MIT
 * zip.c - the archive around a checkpoint: every entry of the directory is checked against its
 * local header and against its neighbours before any is used. Entries must be stored, and must
 * follow one another without holes or overlaps up to the directory, so that no two readers can see
 * different contents in one file. Field layout: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3, 4.5. */
#include "torch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIRECTORY_MAX (64u << 20)
#define ENTRY_NAME_MAX 1024
enum { LOCAL = 30, CENTRAL = 46, END = 22, END64 = 56, LOCATOR = 20 }; /* sizes without names */
enum { HAS_DESCRIPTOR = 1 << 3, UTF8_NAME = 1 << 11 };

static uint16_t le16(const void *at)
{
    const uint8_t *b = at;
    return (uint16_t)(b[0] | b[1] << 8);
}

static uint32_t le32(const void *at)
{
    return le16(at) | (uint32_t)le16((const uint8_t *)at + 2) << 16;
}

static uint64_t le64(const void *at)
{
    return le32(at) | (uint64_t)le32((const uint8_t *)at + 4) << 32;
}

/* ---- checksums ------------------------------------------------------------------------------- */

/* table[k][b]: the CRC-32 of byte b followed by k zero bytes. Sixteen bytes are done at a time; see
 * Kounavis and Berry, "Novel table lookup-based algorithms for high-performance CRC generation"
 * (2008). */
static uint32_t table[16][256];

void pt_crc_init(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = b;
        for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        table[0][b] = c;
    }
    for (int k = 1; k < 16; k++)
        for (int b = 0; b < 256; b++)
            table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 0xff];
}

static uint32_t crc_add(uint32_t crc, const uint8_t *p, size_t n)
{
    for (; n >= 16; n -= 16, p += 16) {
        uint32_t first = crc ^ le32(p);
        crc = table[15][first & 0xff] ^ table[14][first >> 8 & 0xff] ^
              table[13][first >> 16 & 0xff] ^ table[12][first >> 24];
        for (int k = 4; k < 16; k++) crc ^= table[15 - k][p[k]];
    }
    for (; n; n--) crc = table[0][(crc ^ *p++) & 0xff] ^ crc >> 8;
    return crc;
}

bool pt_zip_read(const struct pt_zip *z, void *dst, uint64_t bytes, uint64_t offset)
{
    char *p = dst;
    while (bytes) {
        ssize_t n = pread(z->fd, p, bytes < 1u << 30 ? (size_t)bytes : 1u << 30, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return pt_fail("cannot read %s: %s", z->path,
                           n ? strerror(errno) : "it was cut off while it was read");
        p += n;
        offset += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return true;
}

/* A checksum of 0 stands for none: torch.serialization.set_crc32_options(False). */
bool pt_zip_check(const struct pt_zip *z, struct pt_entry *e)
{
    e->checked = e->checked || e->crc == 0;
    const size_t room = e->bytes < 1u << 20 ? (size_t)e->bytes : 1u << 20;
    uint8_t *part = pt_host->alloc(room);
    uint32_t crc = ~0u;
    bool ok = true;
    for (uint64_t at = 0; !e->checked && ok && at < e->bytes; at += room) {
        size_t n = e->bytes - at < room ? (size_t)(e->bytes - at) : room;
        ok = pt_zip_read(z, part, n, e->data + at);
        if (ok) crc = crc_add(crc, part, n);
    }
    pt_host->free(part);
    if (!e->checked && ok && ~crc != e->crc)
        ok = pt_fail(
            "%s: the bytes of its entry \"%s\" do not match their checksum; the file is damaged, "
            "download it again",
            z->path, pt_show(e->name));
    e->checked = e->checked || ok;
    return ok;
}

/* ---- the directory --------------------------------------------------------------------------- */

static bool damaged(const struct pt_zip *z, const struct pt_entry *e, const char *what)
{
    return pt_fail("%s: the entry \"%s\" of its zip archive %s", z->path, pt_show(e->name), what);
}

/* Of the directory: entries, begin, length */
struct place {
    uint64_t n, offset, bytes;
};

/* The end record, with its 64-bit form before it where there is one. No comment may follow it: a
 * comment can hold a second end record, and readers disagree about which of the two counts. */
static bool find_directory(const struct pt_zip *z, struct place *d)
{
    uint8_t end[END64 + LOCATOR + END] = { 0 };
    uint64_t have = z->bytes < sizeof end ? z->bytes : sizeof end;
    uint8_t *last = end + sizeof end - END, *locator = last - LOCATOR, *wide = locator - END64;
    if (!pt_zip_read(z, end + sizeof end - have, have, z->bytes - have)) return false;
    if (have < END || memcmp(last, "PK\5\6", 4) != 0 || le16(last + 20) != 0)
        return pt_fail("%s does not end as a zip archive does: it is cut off, or something was "
                       "appended to it; download it again",
                       z->path);
    *d = (struct place){ le16(last + 10), le32(last + 16), le32(last + 12) };
    uint64_t stop = z->bytes - END;
    bool ok = le16(last + 4) == 0 && le16(last + 6) == 0 && le16(last + 8) == le16(last + 10);
    if (memcmp(locator, "PK\6\7", 4) == 0) {
        struct place w = { le64(wide + 32), le64(wide + 48), le64(wide + 40) };
        stop -= LOCATOR + END64;
        ok = ok && have == sizeof end && memcmp(wide, "PK\6\6", 4) == 0 &&
             le64(wide + 4) == END64 - 12 && le64(locator + 8) == stop && le32(locator + 4) == 0 &&
             le32(locator + 16) <= 1 && le32(wide + 16) == 0 && le32(wide + 20) == 0 &&
             le64(wide + 24) == w.n && (d->n == 0xffff || d->n == w.n) &&
             (d->offset == UINT32_MAX || d->offset == w.offset) &&
             (d->bytes == UINT32_MAX || d->bytes == w.bytes);
        *d = w;
    }
    if (!ok || d->offset > stop || d->bytes != stop - d->offset || d->n > d->bytes / CENTRAL)
        return pt_fail("%s: the end of its zip archive contradicts itself or the file's %llu "
                       "bytes; it is damaged, download it again",
                       z->path, (unsigned long long)z->bytes);
    if (d->bytes > DIRECTORY_MAX)
        return pt_fail(
            "%s: the directory of its zip archive has %llu bytes; no checkpoint needs more than %u",
            z->path, (unsigned long long)d->bytes, DIRECTORY_MAX);
    return true;
}

/* Values of 2^32 - 1 stand for those of the 64-bit extra field, in this order. */
static bool read_wide(const uint8_t *extra, size_t n, uint64_t *value[3])
{
    while (n >= 4) {
        size_t length = le16(extra + 2);
        if (length > n - 4) return false;
        const uint8_t *at = extra + 4, *end = at + length;
        for (int k = 0; le16(extra) == 1 && k < 3; k++) {
            if (*value[k] != UINT32_MAX) continue;
            if (end - at < 8) return false;
            *value[k] = le64(at);
            at += 8;
        }
        extra += 4 + length;
        n -= 4 + length;
    }
    return true;
}

/* One entry of the directory; *at moves behind it. The name moves down by one byte, over the
 * header, which makes room for its NUL. */
static bool read_central(const struct pt_zip *z, struct pt_entry *e, char **at, const char *end)
{
    char *h = *at;
    e->name = "?";
    if (end - h < CENTRAL || memcmp(h, "PK\1\2", 4) != 0)
        return damaged(z, e, "is damaged; download the file again");
    size_t name = le16(h + 28), extra = le16(h + 30), comment = le16(h + 32);
    if ((size_t)(end - h - CENTRAL) < name + extra + comment)
        return damaged(z, e, "is cut off; download the file again");
    if (name == 0 || name > ENTRY_NAME_MAX || memchr(h + CENTRAL, 0, name))
        return damaged(z, e, "has an impossible name; the file is damaged");
    uint16_t flags = le16(h + 8), method = le16(h + 10), disk = le16(h + 34);
    uint64_t packed = le32(h + 20);
    e->crc = le32(h + 16);
    e->bytes = le32(h + 24);
    e->header = le32(h + 42);
    e->described = flags & HAS_DESCRIPTOR;
    bool sizes = read_wide((uint8_t *)h + CENTRAL + name, extra,
                           (uint64_t *[]){ &e->bytes, &packed, &e->header });
    *at = h + CENTRAL + name + extra + comment;
    e->name = memmove(h + CENTRAL - 1, h + CENTRAL, name);
    h[CENTRAL - 1 + name] = 0;
    if (flags & ~(HAS_DESCRIPTOR | UTF8_NAME))
        return damaged(
            z, e,
            flags & 1 ? "is encrypted; torch.save never does that"
                      : "has flags that torch.save never sets; it is no checkpoint, or damaged");
    if (method != 0)
        return damaged(
            z, e,
            "is compressed, which torch.save never does; unpack the file and pack it again without "
            "compression (zip -0), or save it again with torch.save");
    if (!sizes || packed != e->bytes || disk != 0)
        return damaged(z, e, "has contradictory sizes; the file is damaged");
    return true;
}

/* The header before the data must say what the directory says. */
static bool read_local(const struct pt_zip *z, struct pt_entry *e, uint64_t limit)
{
    uint8_t h[LOCAL + ENTRY_NAME_MAX];
    size_t name = strlen(e->name);
    if (e->header > limit || limit - e->header < LOCAL + name)
        return damaged(z, e,
                       "lies outside of the file, which is damaged or cut off; download it again");
    if (!pt_zip_read(z, h, LOCAL + name, e->header)) return false;
    if (memcmp(h, "PK\3\4", 4) != 0)
        return damaged(z, e, "is not where the directory says; the file is damaged");
    if (le16(h + 26) != name || memcmp(h + LOCAL, e->name, name) != 0)
        return damaged(z, e,
                       "has another name in front of its data; the file is damaged or forged");
    uint16_t flags = le16(h + 6);
    bool later = flags & HAS_DESCRIPTOR;
    uint32_t bytes = e->bytes < UINT32_MAX ? (uint32_t)e->bytes : UINT32_MAX;
    if (flags & ~(HAS_DESCRIPTOR | UTF8_NAME) || later != e->described || le16(h + 8) != 0)
        return damaged(
            z, e,
            "has other flags in front of its data than in the directory; the file is damaged or "
            "forged");
    if (!later && (le32(h + 14) != e->crc || le32(h + 18) != bytes || le32(h + 22) != bytes))
        return damaged(
            z, e,
            "has another size or checksum in front of its data; the file is damaged or forged");
    e->data = e->header + LOCAL + name + le16(h + 28);
    if (e->data > limit || e->bytes > limit - e->data)
        return damaged(z, e,
                       "lies outside of the file, which is damaged or cut off; download it again");
    return true;
}

static int by_header(const void *a, const void *b)
{
    const struct pt_entry *x = a, *y = b;
    return x->header < y->header ? -1 : x->header > y->header;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct pt_entry *)a)->name, ((const struct pt_entry *)b)->name);
}

/* Does a descriptor of n bytes at this place repeat the checksum and sizes? With or without a
 * signature, and with sizes of 4 or 8 bytes. */
static bool is_descriptor(const struct pt_zip *z, const struct pt_entry *e, uint64_t at, uint64_t n)
{
    uint8_t b[24];
    if ((n != 12 && n != 16 && n != 20 && n != 24) || !pt_zip_read(z, b, n, at)) return false;
    bool wide = n >= 20;
    const uint8_t *crc = b + (n % 8 ? 0 : 4);
    uint64_t packed = wide ? le64(crc + 4) : le32(crc + 4),
             bytes = wide ? le64(crc + 12) : le32(crc + 8);
    return (crc == b || memcmp(b, "PK\7\10", 4) == 0) && le32(crc) == e->crc &&
           packed == e->bytes && bytes == e->bytes;
}

/* No hole, no overlap, no name twice. Between an entry and the next there is its descriptor at
 * most. */
static bool check_whole(struct pt_zip *z, uint64_t directory)
{
    qsort(z->entry, z->n, sizeof *z->entry, by_header);
    uint64_t at = 0;
    for (uint32_t i = 0; i <= z->n; i++) {
        uint64_t next = i < z->n ? z->entry[i].header : directory;
        const struct pt_entry *before = i ? &z->entry[i - 1] : NULL;
        bool ok = before && before->described ? next > at && is_descriptor(z, before, at, next - at)
                                              : next == at;
        if (!ok)
            return pt_fail("%s: byte %llu of its zip archive was expected to begin %s, but that "
                           "begins at byte %llu: its entries %s; the file is damaged or forged",
                           z->path, (unsigned long long)at,
                           i < z->n ? pt_show(z->entry[i].name) : "the directory",
                           (unsigned long long)next, next < at ? "overlap" : "leave a hole");
        if (i < z->n) at = z->entry[i].data + z->entry[i].bytes;
    }
    qsort(z->entry, z->n, sizeof *z->entry, by_name);
    for (uint32_t i = 1; i < z->n; i++)
        if (strcmp(z->entry[i - 1].name, z->entry[i].name) == 0)
            return damaged(z, &z->entry[i], "is there twice; the file is damaged or forged");
    return true;
}

bool pt_zip_open(struct pt_zip *z, const char *path, int fd, uint64_t bytes)
{
    *z = (struct pt_zip){ .path = path, .fd = fd, .bytes = bytes };
    struct place d = { 0 };
    if (!find_directory(z, &d)) return false;
    z->n = (uint32_t)d.n; /* at most DIRECTORY_MAX / CENTRAL */
    z->directory = pt_host->alloc((size_t)d.bytes + 1);
    z->entry = pt_host->alloc((size_t)(d.n + 1) * sizeof *z->entry);
    char *at = z->directory;
    bool ok = pt_zip_read(z, at, d.bytes, d.offset);
    for (uint32_t i = 0; ok && i < z->n; i++)
        ok = read_central(z, &z->entry[i], &at, z->directory + d.bytes) &&
             read_local(z, &z->entry[i], d.offset);
    if (ok && at != z->directory + d.bytes)
        ok = pt_fail("%s: the directory of its zip archive lists %u entries, but holds more; the "
                     "file is damaged",
                     path, z->n);
    ok = ok && check_whole(z, d.offset);
    if (!ok) pt_zip_finish(z);
    return ok;
}

void pt_zip_finish(struct pt_zip *z)
{
    pt_host->free(z->entry);
    pt_host->free(z->directory);
    z->entry = NULL;
    z->directory = NULL;
}

struct pt_entry *pt_zip_find(const struct pt_zip *z, const char *name)
{
    const struct pt_entry key = { .name = name };
    return z->n ? bsearch(&key, z->entry, z->n, sizeof key, by_name) : NULL;
}
