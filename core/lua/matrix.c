/* SPDX-License-Identifier: MIT
 * matrix.c - arithmetic on host tensors for Lua: what LoRA files are merged, split and resized
 * with. Operands have any float type; results are f32, sums float64. */
#include <math.h>
#include <string.h>

#include "lua/script.h"
#include "host/matrix.h"

static double *doubles(const struct tensor *t)
{
    double *d = mem_alloc((size_t)(t->count + 1) * sizeof *d);
    for (int64_t i = 0; i < t->count; i++) d[i] = tensor_get(t, i);
    return d;
}

static void keep(struct tensor *t, double *d)
{
    for (int64_t i = 0; i < t->count; i++) ((float *)t->own)[i] = (float)d[i];
    mem_free(d);
}

static void check_matrix(lua_State *L, const struct tensor *t, int arg)
{
    luaL_argcheck(L, t->rank == 2 && t->count > 0, arg, "a matrix (two dims) is expected");
}

/* core.matmul(a, b, scale?) -> scale * a (m, k) b (k, n) */
static int core_matmul(lua_State *L)
{
    const struct tensor *a = tensor_check(L, 1), *b = tensor_check(L, 2);
    check_matrix(L, a, 1);
    check_matrix(L, b, 2);
    luaL_argcheck(L, b->dim[0] == a->dim[1], 2,
                  "as many rows as the first matrix has columns are expected");
    int64_t dim[2] = { a->dim[0], b->dim[1] };
    double scale = luaL_optnumber(L, 3, 1);
    struct tensor *c = tensor_push(L, BURIN_F32, 2, dim);
    double *x = doubles(a), *y = doubles(b), *z = mem_alloc((size_t)c->count * sizeof *z);
    matrix_product(x, y, scale, z, dim[0], a->dim[1], dim[1]);
    mem_free(x);
    mem_free(y);
    keep(c, z);
    return 1;
}

static void push_factors(lua_State *L, int64_t m, int64_t n, int64_t r, struct tensor *out[3])
{
    const int64_t u[2] = { m, r }, v[2] = { n, r };
    out[0] = tensor_push(L, BURIN_F32, 2, u);
    out[1] = tensor_push(L, BURIN_F32, 1, &r);
    out[2] = tensor_push(L, BURIN_F32, 2, v);
}

/* core.svd(a, rank) -> u (m, rank), s (rank), v (n, rank), of the greatest singular values; see
 * matrix.h. core.svd_product(x, y) -> all of x (m, k) y (k, n), of which there are min(m, k, n). */
static int core_svd(lua_State *L)
{
    const struct tensor *a = tensor_check(L, 1);
    check_matrix(L, a, 1);
    int64_t m = a->dim[0], n = a->dim[1], r = luaL_checkinteger(L, 2);
    luaL_argcheck(L, r >= 1 && r <= m && r <= n, 2, "the rank is outside 1 .. min(rows, columns)");
    struct tensor *out[3];
    push_factors(L, m, n, r, out);
    double *x = doubles(a), *u = doubles(out[0]), *s = doubles(out[1]), *v = doubles(out[2]);
    matrix_svd(x, m, n, r, u, s, v);
    mem_free(x);
    keep(out[0], u);
    keep(out[1], s);
    keep(out[2], v);
    return 3;
}

static int core_svd_product(lua_State *L)
{
    const struct tensor *a = tensor_check(L, 1), *b = tensor_check(L, 2);
    check_matrix(L, a, 1);
    check_matrix(L, b, 2);
    luaL_argcheck(L, b->dim[0] == a->dim[1], 2,
                  "as many rows as the first matrix has columns are expected");
    int64_t m = a->dim[0], k = a->dim[1], n = b->dim[1], r = m < n ? m : n;
    struct tensor *out[3];
    push_factors(L, m, n, k < r ? k : r, out);
    double *x = doubles(a), *y = doubles(b), *u = doubles(out[0]), *s = doubles(out[1]),
           *v = doubles(out[2]);
    matrix_svd_product(x, y, m, k, n, u, s, v);
    mem_free(x);
    mem_free(y);
    keep(out[0], u);
    keep(out[1], s);
    keep(out[2], v);
    return 3;
}

static struct tensor *same_count(lua_State *L, const struct tensor *a, const struct tensor *b,
                                 int arg)
{
    luaL_argcheck(L, a->count == b->count, arg,
                  "as many elements as the other tensor has are expected");
    return tensor_push(L, BURIN_F32, a->rank, a->dim);
}

/* core.add(a, b, f?) -> a + f b, of a's shape */
static int core_add(lua_State *L)
{
    const struct tensor *a = tensor_check(L, 1), *b = tensor_check(L, 2);
    double f = luaL_optnumber(L, 3, 1);
    struct tensor *c = same_count(L, a, b, 2);
    for (int64_t i = 0; i < c->count; i++)
        ((float *)c->own)[i] = (float)(tensor_get(a, i) + f * tensor_get(b, i));
    return 1;
}

/* core.multiply(a, b, f?) -> f a b, element by element */
static int core_multiply(lua_State *L)
{
    const struct tensor *a = tensor_check(L, 1), *b = tensor_check(L, 2);
    double f = luaL_optnumber(L, 3, 1);
    struct tensor *c = same_count(L, a, b, 2);
    for (int64_t i = 0; i < c->count; i++)
        ((float *)c->own)[i] = (float)(f * tensor_get(a, i) * tensor_get(b, i));
    return 1;
}

/* core.kron(a, b, f?) -> f times the Kronecker product of a (p, q) and
 * b (r, s, ...): (p r, q s, ...) */
static int core_kron(lua_State *L)
{
    const struct tensor *a = tensor_check(L, 1), *b = tensor_check(L, 2);
    double f = luaL_optnumber(L, 3, 1);
    check_matrix(L, a, 1);
    luaL_argcheck(L, b->rank >= 2 && b->count > 0, 2, "at least two dims are expected");
    int64_t dim[BURIN_FILE_RANK], p = a->dim[0], q = a->dim[1], r = b->dim[0], s = b->dim[1],
                                  inner = b->count / (r * s);
    luaL_argcheck(L, a->count <= ((int64_t)1 << 32) / b->count, 2,
                  "the product is larger than any weight");
    memcpy(dim, b->dim, sizeof dim);
    dim[0] = p * r;
    dim[1] = q * s;
    struct tensor *c = tensor_push(L, BURIN_F32, b->rank, dim);
    float *out = c->own;
    for (int64_t i = 0; i < p * r; i++)
        for (int64_t j = 0; j < q * s; j++) {
            double x = f * tensor_get(a, i / r * q + j / s);
            for (int64_t k = 0; k < inner; k++)
                *out++ = (float)(x * tensor_get(b, (i % r * s + j % s) * inner + k));
        }
    return 1;
}

/* core.row_norms(a) -> the Euclidean norm of each row of a (rows, ...) */
static int core_row_norms(lua_State *L)
{
    const struct tensor *a = tensor_check(L, 1);
    luaL_argcheck(L, a->rank >= 1 && a->count > 0, 1, "has no rows");
    struct tensor *c = tensor_push(L, BURIN_F32, 1, a->dim);
    int64_t each = a->count / c->count;
    for (int64_t i = 0; i < c->count; i++) {
        double sum = 0;
        for (int64_t k = 0; k < each; k++)
            sum += tensor_get(a, i * each + k) * tensor_get(a, i * each + k);
        ((float *)c->own)[i] = (float)sqrt(sum);
    }
    return 1;
}

/* core.scale_rows(a, f, g?) -> row i of a times f[i], or f[i] / g[i] where g[i] is not 0 */
static int core_scale_rows(lua_State *L)
{
    const struct tensor *a = tensor_check(L, 1), *f = tensor_check(L, 2);
    const struct tensor *g = lua_isnoneornil(L, 3) ? NULL : tensor_check(L, 3);
    luaL_argcheck(L, a->rank >= 1 && f->count == a->dim[0] && f->count > 0, 2,
                  "one factor for each row is expected");
    luaL_argcheck(L, !g || g->count == f->count, 3, "one divisor for each row is expected");
    struct tensor *c = tensor_push(L, BURIN_F32, a->rank, a->dim);
    int64_t each = a->count / f->count;
    for (int64_t i = 0; i < a->count; i++) {
        double divisor = g ? tensor_get(g, i / each) : 1;
        ((float *)c->own)[i] =
            (float)(divisor != 0 ? tensor_get(a, i) * tensor_get(f, i / each) / divisor : 0);
    }
    return 1;
}

void script_open_matrix(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "matmul", core_matmul },
        { "svd", core_svd },
        { "svd_product", core_svd_product },
        { "add", core_add },
        { "multiply", core_multiply },
        { "kron", core_kron },
        { "row_norms", core_row_norms },
        { "scale_rows", core_scale_rows },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
