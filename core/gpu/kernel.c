/* SPDX-License-Identifier: MIT
 * kernel.c - compute pipelines, compiled on all cores before what uses them is recorded, and the
 * driver's pipeline cache on disk. */
#include "gpu/gpu_internal.h"

#include <string.h>

#include "base/embed.h"

#define CACHE_MAX (256u << 20)

static const char cache_magic[8] = "burinpc1";

struct cache_header {
    char magic[8];
    uint64_t hash, bytes;
};

/* Drivers trust the body of a cache, so a damaged file must not reach them. */
static bool cache_valid(const struct str *file)
{
    struct cache_header h;
    if (file->len < sizeof h) return false;
    memcpy(&h, file->data, sizeof h);
    return memcmp(h.magic, cache_magic, sizeof h.magic) == 0 && h.bytes == file->len - sizeof h &&
           h.hash == hash_bytes(file->data + sizeof h, h.bytes, 0);
}

static void cache_find_path(struct gpu_device *d, const char *folder)
{
    if (folder && !*folder) return;
    char *dir = folder ? str_dup(folder) : file_cache_dir("pipelines");
    if (!dir || (folder && !file_make_dirs(dir))) {
        mem_free(dir);
        return; /* no place to keep it: pipelines are compiled anew each time */
    }
    VkPhysicalDeviceProperties props;
    vkGetPhysicalDeviceProperties(d->physical, &props);
    struct str path = { 0 };
    str_addf(&path, "%s/%s-%08x.bin", dir, d->caps.uuid, props.driverVersion);
    d->cache_path = path.data;
    mem_free(dir);
}

bool gpu_kernels_init(struct gpu_device *d, const char *cache)
{
    struct str file = { 0 };
    cache_find_path(d, cache);
    bool usable = d->cache_path && file_exists(d->cache_path) &&
                  file_read(d->cache_path, CACHE_MAX, &file) && cache_valid(&file);
    VkPipelineCacheCreateInfo info = { .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO };
    if (usable) {
        info.initialDataSize = file.len - sizeof(struct cache_header);
        info.pInitialData = file.data + sizeof(struct cache_header);
        d->cache_hash = hash_bytes(info.pInitialData, info.initialDataSize, 0);
    }
    VkResult r = vkCreatePipelineCache(d->handle, &info, NULL, &d->cache);
    if (r != VK_SUCCESS && usable) {
        info.initialDataSize = 0;
        r = vkCreatePipelineCache(d->handle, &info, NULL, &d->cache);
    }
    str_finish(&file);
    return gpu_check(d, r, "make a pipeline cache");
}

static void cache_save(struct gpu_device *d)
{
    size_t bytes = 0;
    if (!d->cache_path || !d->cache || d->lost || !d->n_kernels ||
        vkGetPipelineCacheData(d->handle, d->cache, &bytes, NULL) != VK_SUCCESS || !bytes)
        return;
    uint8_t *data = mem_alloc(sizeof(struct cache_header) + bytes);
    uint8_t *body = data + sizeof(struct cache_header);
    if (vkGetPipelineCacheData(d->handle, d->cache, &bytes, body) == VK_SUCCESS) {
        struct cache_header h = { .hash = hash_bytes(body, bytes, 0), .bytes = bytes };
        memcpy(h.magic, cache_magic, sizeof h.magic);
        memcpy(data, &h, sizeof h);
        file_cache_enter();
        if (h.hash != d->cache_hash && !file_write(d->cache_path, data, sizeof h + bytes))
            log_line(LOG_DEBUG, "the pipeline cache was not kept");
        file_cache_leave();
    }
    mem_free(data);
}

void gpu_kernels_finish(struct gpu_device *d)
{
    if (d->handle) cache_save(d);
    for (int i = 0; i < d->n_kernels; i++) {
        if (d->handle) vkDestroyPipeline(d->handle, d->kernels[i]->pipeline, NULL);
        mem_free(d->kernels[i]);
    }
    mem_free(d->kernels);
    if (d->handle) vkDestroyPipelineCache(d->handle, d->cache, NULL);
    mem_free(d->cache_path);
}

/* ---- pipelines ------------------------------------------------------------------------------- */

static const struct embed_file *find_shader(const char *name)
{
    for (const struct embed_file *f = embed_spirv; f->name; f++)
        if (strcmp(f->name, name) == 0) return f;
    fail("there is no shader called \"%s\"", name);
    return NULL;
}

static VkResult create_pipeline(const struct gpu_device *d, struct gpu_kernel *k)
{
    const struct embed_file *f = k->code;
    VkSpecializationMapEntry entries[GPU_MAX_SPEC];
    for (uint32_t i = 0; i < (uint32_t)k->n_spec; i++)
        entries[i] = (VkSpecializationMapEntry){ .constantID = i, .offset = 4 * i, .size = 4 };
    VkSpecializationInfo spec = { .mapEntryCount = (uint32_t)k->n_spec,
                                  .pMapEntries = entries,
                                  .dataSize = 4 * (size_t)k->n_spec,
                                  .pData = k->spec };
    VkShaderModuleCreateInfo code = { .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                      .codeSize = (size_t)(f->end - f->data) & ~(size_t)3,
                                      .pCode = (const uint32_t *)(const void *)f->data };
    VkShaderModule module;
    VkResult r = vkCreateShaderModule(d->handle, &code, NULL, &module);
    if (r != VK_SUCCESS) return r;
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = { .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                   .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                   .module = module,
                   .pName = "main",
                   .pSpecializationInfo = &spec },
        .layout = d->pipeline_layout,
    };
    r = vkCreateComputePipelines(d->handle, d->cache, 1, &info, NULL, &k->pipeline);
    vkDestroyShaderModule(d->handle, module, NULL);
    return r;
}

struct compilation {
    const struct gpu_device *device;
    int next; /* counted up by all threads */
    VkResult *result;
};

static void compile_kernels(void *user, int64_t begin, int64_t end)
{
    struct compilation *c = user;
    const struct gpu_device *d = c->device;
    (void)begin, (void)end; /* kernels differ a hundredfold: whoever is free takes the next */
    for (int i; (i = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED)) < d->n_kernels;)
        if (!d->kernels[i]->pipeline) c->result[i] = create_pipeline(d, d->kernels[i]);
}

bool gpu_kernels_compile(struct gpu_device *d)
{
    if (d->null || d->n_compiled == d->n_kernels) return true;
    struct compilation c = { .device = d, .next = d->n_compiled };
    c.result = mem_alloc((size_t)d->n_kernels * sizeof *c.result);
    parallel(d->n_kernels - d->n_compiled, 1, compile_kernels, &c);
    bool ok = true;
    for (int i = d->n_compiled; ok && i < d->n_kernels; i++)
        ok = gpu_check(d, c.result[i], "compile it") ||
             fail_prefix("shader %s", d->kernels[i]->shader);
    if (ok) d->n_compiled = d->n_kernels;
    mem_free(c.result);
    return ok;
}

struct gpu_kernel *gpu_kernel_get(struct gpu_device *d, const char *shader, const uint32_t *spec,
                                  int n_spec)
{
    if (n_spec < 0 || n_spec > GPU_MAX_SPEC) {
        fail("shader %s: %d specialization constants, %d at most", shader, n_spec, GPU_MAX_SPEC);
        return NULL;
    }
    size_t spec_bytes = 4 * (size_t)n_spec;
    uint64_t hash = hash_bytes(spec, spec_bytes, hash_bytes(shader, strlen(shader), 0));
    for (int i = 0; i < d->n_kernels; i++) {
        struct gpu_kernel *k = d->kernels[i];
        if (k->hash == hash && k->n_spec == n_spec && strcmp(k->shader, shader) == 0 &&
            (n_spec == 0 || memcmp(k->spec, spec, spec_bytes) == 0))
            return k;
    }
    const struct embed_file *f = find_shader(shader);
    if (!f) return NULL;
    struct gpu_kernel *k = mem_alloc(sizeof *k);
    k->hash = hash;
    k->shader = f->name;
    k->code = f;
    k->n_spec = n_spec;
    if (n_spec) memcpy(k->spec, spec, spec_bytes);
    d->kernels = array_reserve(d->kernels, d->n_kernels, &d->kernel_capacity, sizeof *d->kernels);
    d->kernels[d->n_kernels++] = k;
    return k;
}

int gpu_kernel_count(const struct gpu_device *d) { return d->n_kernels; }
