/* SPDX-License-Identifier: MIT
 * vulkan_call.c - the n-th call of a function of Vulkan's fails, for LD_PRELOAD (vulkan_test.lua).
 * VULKAN_ORDER is a file that says "<function> <n> <result> <times>", read when the first call is
 * made. times: in so many processes, one after the other; without it, in each. At its end a process
 * that meets none of them says how many such calls it made. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

static char which[64];
static int nth, calls, result, times;

__attribute__((destructor)) static void at_end(void)
{
    if (!times) fprintf(stderr, "%d calls of %s\n", calls, which);
}

/* 0: this call goes on. */
static VkResult fate(const char *function)
{
    const char *path = getenv("VULKAN_ORDER");
    if (!which[0]) {
        FILE *f = path ? fopen(path, "r") : NULL;
        times = 1 << 30;
        if (!f || fscanf(f, "%63s %d %d %d", which, &nth, &result, &times) < 3) abort();
        fclose(f);
    }
    if (strcmp(which, function) != 0 || __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) != nth ||
        !times)
        return VK_SUCCESS;
    fprintf(stderr, "met %s\n", function);
    FILE *f = fopen(path, "w");
    if (!f || fprintf(f, "%s %d %d %d", which, nth, result, times - 1) < 0 || fclose(f)) abort();
    return (VkResult)result;
}

#define FAILS(name, parameters, ...)                          \
    VKAPI_ATTR VkResult VKAPI_CALL name parameters            \
    {                                                         \
        static __typeof__(&name) real;                        \
        void *symbol = real ? NULL : dlsym(RTLD_NEXT, #name); \
        if (symbol) memcpy(&real, &symbol, sizeof real);      \
        VkResult r = fate(#name);                             \
        return r ? r : real(__VA_ARGS__);                     \
    }

#define CREATE(What)                                                                              \
    FAILS(                                                                                        \
        vkCreate##What,                                                                           \
        (VkDevice d, const Vk##What##CreateInfo *i, const VkAllocationCallbacks *a, Vk##What *o), \
        d, i, a, o)

#pragma GCC visibility push(default)
CREATE(Buffer)
CREATE(ShaderModule)
CREATE(DescriptorPool)
CREATE(DescriptorSetLayout)
CREATE(PipelineLayout)
CREATE(PipelineCache)
CREATE(CommandPool)
CREATE(Semaphore)
FAILS(vkCreateInstance,
      (const VkInstanceCreateInfo *i, const VkAllocationCallbacks *a, VkInstance *o), i, a, o)
FAILS(vkCreateDevice,
      (VkPhysicalDevice p, const VkDeviceCreateInfo *i, const VkAllocationCallbacks *a,
       VkDevice *o),
      p, i, a, o)
FAILS(vkAllocateMemory,
      (VkDevice d, const VkMemoryAllocateInfo *i, const VkAllocationCallbacks *a,
       VkDeviceMemory *o),
      d, i, a, o)
FAILS(vkBindBufferMemory, (VkDevice d, VkBuffer b, VkDeviceMemory m, VkDeviceSize at), d, b, m, at)
FAILS(vkMapMemory,
      (VkDevice d, VkDeviceMemory m, VkDeviceSize at, VkDeviceSize n, VkMemoryMapFlags f, void **o),
      d, m, at, n, f, o)
FAILS(vkCreateComputePipelines,
      (VkDevice d, VkPipelineCache c, uint32_t n, const VkComputePipelineCreateInfo *i,
       const VkAllocationCallbacks *a, VkPipeline *o),
      d, c, n, i, a, o)
FAILS(vkAllocateDescriptorSets,
      (VkDevice d, const VkDescriptorSetAllocateInfo *i, VkDescriptorSet *o), d, i, o)
FAILS(vkAllocateCommandBuffers,
      (VkDevice d, const VkCommandBufferAllocateInfo *i, VkCommandBuffer *o), d, i, o)
FAILS(vkBeginCommandBuffer, (VkCommandBuffer c, const VkCommandBufferBeginInfo *i), c, i)
FAILS(vkEndCommandBuffer, (VkCommandBuffer c), c)
FAILS(vkQueueSubmit, (VkQueue q, uint32_t n, const VkSubmitInfo *i, VkFence f), q, n, i, f)
FAILS(vkWaitSemaphores, (VkDevice d, const VkSemaphoreWaitInfo *i, uint64_t t), d, i, t)
