/* SPDX-License-Identifier: MIT
 * driver.c - runs a fuzz target without libFuzzer: every seed once, then mutations of them that
 * depend only on their number, so that a failure can be repeated:  fuzz_x --runs N [--from K] files
 * or folders... */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define SEEDS_MAX 256
#define GROWTH 256 /* bytes that mutations may add */

static struct {
    uint8_t *data;
    size_t n;
} seeds[SEEDS_MAX];
static int n_seeds;
static uint64_t random_state;

/* splitmix64, see Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
 */
static uint64_t random_bits(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t below(size_t n) { return n ? (size_t)(random_bits() % n) : 0; }

static void add_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || n_seeds == SEEDS_MAX) {
        fprintf(stderr, "cannot use the seed %s\n", path);
        exit(2);
    }
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    seeds[n_seeds].data = malloc((size_t)n + 1);
    seeds[n_seeds].n = fread(seeds[n_seeds].data, 1, (size_t)n, f);
    n_seeds++;
    fclose(f);
}

static int visible(const struct dirent *e) { return e->d_name[0] != '.'; }

static void add(const char *path)
{
    struct dirent **names;
    int n = scandir(path, &names, visible, alphasort);
    if (n < 0) add_file(path);
    for (int i = 0; i < n; i++) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        add_file(file);
        free(names[i]);
    }
    if (n >= 0) free(names);
}

/* One small change; returns the new length, at most n + 16. */
static size_t mutate(uint8_t *b, size_t n)
{
    static const uint8_t interesting[] = { 0,   1,   0x7f, 0x80, 0xff, '"', '{',
                                           '[', '}', ']',  '\\', ',',  '-', '9' };
    size_t at = below(n), k = 1 + below(16);
    switch (below(7)) {
    case 0:
        if (n) b[at] ^= (uint8_t)(1u << below(8));
        return n;
    case 1:
        if (n) b[at] = (uint8_t)random_bits();
        return n;
    case 2:
        if (n) b[at] = interesting[below(sizeof interesting)];
        return n;
    case 3: /* remove */
        k = k > n - at ? n - at : k;
        memmove(b + at, b + at + k, n - at - k);
        return n - k;
    case 4: /* repeat a piece */
        k = k > n - at ? n - at : k;
        memmove(b + at + k, b + at, n - at);
        return n + k;
    case 5: /* copy a piece elsewhere */
        k = k > n - at ? n - at : k;
        if (n) memmove(b + below(n - k + 1), b + at, k);
        return n;
    default: return below(8) ? n : at; /* cut, now and then */
    }
}

static void run(uint64_t number)
{
    random_state = number * 0x2545f4914f6cdd1du;
    size_t s = below((size_t)n_seeds), n = seeds[s].n;
    uint8_t *b = malloc(n + GROWTH + 16);
    memcpy(b, seeds[s].data, n);
    for (size_t changes = 1 + below(8); changes > 0; changes--) {
        size_t next = mutate(b, n);
        n = next > seeds[s].n + GROWTH ? seeds[s].n + GROWTH : next;
    }
    uint8_t *exact = malloc(n ? n : 1); /* no spare byte behind it: an overrun is seen */
    memcpy(exact, b, n);
    free(b);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

int main(int argc, char **argv)
{
    uint64_t runs = 1000, from = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc) runs = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--from") == 0 && i + 1 < argc)
            from = strtoull(argv[++i], NULL, 10);
        else add(argv[i]);
    }
    if (!n_seeds) {
        fprintf(stderr, "usage: %s [--runs N] [--from K] seeds...\n", argv[0]);
        return 2;
    }
    for (int i = 0; i < n_seeds; i++) LLVMFuzzerTestOneInput(seeds[i].data, seeds[i].n);
    for (uint64_t i = from; i < from + runs; i++) {
        if (getenv("FUZZ_TRACE")) fprintf(stderr, "run %llu\n", (unsigned long long)i);
        run(i);
    }
    printf("%d seeds, %llu mutations\n", n_seeds, (unsigned long long)runs);
    for (int i = 0; i < n_seeds; i++) free(seeds[i].data);
    return 0;
}
