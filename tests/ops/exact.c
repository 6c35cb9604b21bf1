/* SPDX-License-Identifier: MIT
 * exact.c - every binding gets a buffer of its own, as long as it is, for LD_PRELOAD
 * (scripts/dev/validate gpu). GPU-assisted validation as Debian 12 has it (1.3.239) compares an
 * access with the length of the whole buffer that is bound; here many variables share one, so that
 * it would find nothing. A buffer that lies in the memory of another, from the binding's first byte
 * to its last, makes it exact. It lives as long as the other one. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

struct alias {
    VkDeviceSize offset, bytes;
    VkBuffer handle;
    struct alias *next;
};
struct buffer {
    VkBuffer handle;
    VkBufferUsageFlags usage;
    VkDeviceMemory memory;
    VkDeviceSize at; /* in the memory */
    struct alias *alias;
    struct buffer *next;
};

static struct buffer *buffers; /* of all devices */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned made, shared; /* bindings with a buffer of their own, and without */

#define REAL(name, real)                        \
    static __typeof__(&name) real;              \
    do {                                        \
        void *symbol = dlsym(RTLD_NEXT, #name); \
        if (!symbol) abort();                   \
        memcpy(&real, &symbol, sizeof real);    \
    } while (0)

__attribute__((destructor)) static void at_end(void)
{
    if (made + shared) fprintf(stderr, "exact: %u bindings, %u others\n", made, shared);
}

static void *fresh(size_t bytes)
{
    void *p = calloc(1, bytes);
    if (!p) abort();
    return p;
}

static struct buffer **find(VkBuffer handle)
{
    struct buffer **b = &buffers;
    while (*b && (*b)->handle != handle) b = &(*b)->next;
    return b;
}

static VkResult make(VkDevice device, struct buffer *b, struct alias *a)
{
    REAL(vkCreateBuffer, create);
    REAL(vkBindBufferMemory, bind);
    REAL(vkGetBufferMemoryRequirements, require);
    VkBufferCreateInfo info = { .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                .size = a->bytes,
                                .usage = b->usage };
    VkMemoryRequirements need;
    VkResult r = create(device, &info, NULL, &a->handle);
    if (r) return r;
    require(device, a->handle, &need);
    return (b->at + a->offset) % need.alignment
               ? VK_ERROR_UNKNOWN
               : bind(device, a->handle, b->memory, b->at + a->offset);
}

/* The buffer of a binding; the one that it lies in where that cannot be. */
static void exact(VkDevice device, VkDescriptorBufferInfo *info)
{
    struct buffer *b = *find(info->buffer);
    if (!b || !b->memory || info->range == VK_WHOLE_SIZE) {
        shared++;
        return;
    }
    struct alias *a = b->alias;
    while (a && (a->offset != info->offset || a->bytes != info->range)) a = a->next;
    if (!a) {
        a = fresh(sizeof *a);
        *a = (struct alias){ info->offset, info->range, NULL, b->alias };
        if (make(device, b, a)) abort();
        b->alias = a;
    }
    made++;
    *info = (VkDescriptorBufferInfo){ a->handle, 0, a->bytes };
}

#pragma GCC visibility push(default)
VKAPI_ATTR VkResult VKAPI_CALL vkCreateBuffer(VkDevice d, const VkBufferCreateInfo *i,
                                              const VkAllocationCallbacks *a, VkBuffer *out)
{
    REAL(vkCreateBuffer, real);
    VkResult r = real(d, i, a, out);
    if (r) return r;
    struct buffer *b = fresh(sizeof *b);
    pthread_mutex_lock(&lock);
    *b = (struct buffer){ .handle = *out, .usage = i->usage, .next = buffers };
    buffers = b;
    pthread_mutex_unlock(&lock);
    return r;
}

VKAPI_ATTR VkResult VKAPI_CALL vkBindBufferMemory(VkDevice d, VkBuffer handle, VkDeviceMemory m,
                                                  VkDeviceSize at)
{
    REAL(vkBindBufferMemory, real);
    VkResult r = real(d, handle, m, at);
    pthread_mutex_lock(&lock);
    struct buffer *b = *find(handle);
    if (b && !r) b->memory = m, b->at = at;
    pthread_mutex_unlock(&lock);
    return r;
}

VKAPI_ATTR void VKAPI_CALL vkDestroyBuffer(VkDevice d, VkBuffer handle,
                                           const VkAllocationCallbacks *callbacks)
{
    REAL(vkDestroyBuffer, real);
    pthread_mutex_lock(&lock);
    struct buffer **at = find(handle), *b = *at;
    if (b) *at = b->next;
    pthread_mutex_unlock(&lock);
    while (b && b->alias) {
        struct alias *a = b->alias;
        b->alias = a->next;
        real(d, a->handle, callbacks);
        free(a);
    }
    free(b);
    real(d, handle, callbacks);
}

VKAPI_ATTR void VKAPI_CALL vkUpdateDescriptorSets(VkDevice d, uint32_t n,
                                                  const VkWriteDescriptorSet *writes, uint32_t k,
                                                  const VkCopyDescriptorSet *copies)
{
    REAL(vkUpdateDescriptorSets, real);
    VkWriteDescriptorSet write[16];
    VkDescriptorBufferInfo info[16];
    if (n > 16) abort();
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < n; i++) {
        write[i] = writes[i];
        if (!writes[i].pBufferInfo || writes[i].descriptorCount != 1) continue;
        info[i] = *writes[i].pBufferInfo;
        exact(d, &info[i]);
        write[i].pBufferInfo = &info[i];
    }
    pthread_mutex_unlock(&lock);
    real(d, n, write, k, copies);
}
