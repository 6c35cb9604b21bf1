/* SPDX-License-Identifier: MIT
 * device.c - choosing and opening a device, submitting to its queue and waiting for it. */
#include "gpu/gpu_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *result_text(VkResult r)
{
    switch (r) {
    case VK_ERROR_OUT_OF_HOST_MEMORY: return "out of host memory";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY: return "out of device memory";
    case VK_ERROR_INITIALIZATION_FAILED: return "the driver failed to initialise";
    case VK_ERROR_MEMORY_MAP_FAILED: return "the memory cannot be mapped";
    case VK_ERROR_FEATURE_NOT_PRESENT: return "a feature is missing";
    case VK_ERROR_EXTENSION_NOT_PRESENT: return "an extension is missing";
    case VK_ERROR_LAYER_NOT_PRESENT: return "a layer is missing";
    case VK_ERROR_INCOMPATIBLE_DRIVER: return "the driver is incompatible";
    case VK_ERROR_TOO_MANY_OBJECTS: return "too many objects";
    default: return NULL;
    }
}

bool gpu_check(struct gpu_device *d, VkResult result, const char *doing)
{
    if (result == VK_SUCCESS) return true;
    if (result == VK_ERROR_DEVICE_LOST) {
        d->lost = true;
        if (!d->last_program[0])
            return fail_as(FAIL_LOST, "cannot %s: the device %s was lost", doing, d->caps.name);
        return fail_as(FAIL_LOST,
                       "the device %s was lost; the last work it was given is program \"%s\", from "
                       "\"%s\" to \"%s\" (drivers reset a device that is silent for two seconds)",
                       d->caps.name, d->last_program, d->last_first, d->last_last);
    }
    const char *text = result_text(result);
    return text ? fail("cannot %s: %s", doing, text)
                : fail("cannot %s: Vulkan error %d", doing, (int)result);
}

/* ---- opening --------------------------------------------------------------------------------- */

static int find_by_name(const struct gpu_caps *caps, int n, const char *name)
{
    char *end;
    long index = strtol(name, &end, 10);
    if (*name && !*end) return index >= 0 && index < n ? (int)index : -1;
    for (int i = 0; i < n; i++)
        if (strcasestr(caps[i].name, name) || strncasecmp(caps[i].uuid, name, 32) == 0) return i;
    return -1;
}

/* Index of the wanted device, or -1 with an error that lists what there is. */
static int choose(const struct gpu_caps *caps, int n, const char *name)
{
    if (n == 0) {
        fail("no Vulkan 1.2 device was found (Debian and Ubuntu: mesa-vulkan-drivers)");
        return -1;
    }
    if (name) {
        int i = find_by_name(caps, n, name);
        if (i >= 0) return i;
        struct str all = { 0 };
        for (int k = 0; k < n; k++) str_addf(&all, "%s%d = %s", k ? ", " : "", k, caps[k].name);
        fail("no device is called \"%s\"; there is %s", name, all.data);
        str_finish(&all);
        return -1;
    }
    for (int i = 0; i < n; i++)
        if (caps[i].storage16) return i;
    return 0; /* the reason is told when it is opened */
}

/* A queue family without graphics keeps the desktop alive while we train. */
static bool choose_family(struct gpu_device *d, uint32_t *timestamp_bits)
{
    uint32_t n = 0;
    vkGetPhysicalDeviceQueueFamilyProperties(d->physical, &n, NULL);
    VkQueueFamilyProperties *all = mem_alloc((n + 1) * sizeof *all);
    vkGetPhysicalDeviceQueueFamilyProperties(d->physical, &n, all);
    int best = -1;
    for (uint32_t i = 0; i < n; i++) {
        if (!(all[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || !all[i].queueCount) continue;
        bool pure = !(all[i].queueFlags & VK_QUEUE_GRAPHICS_BIT);
        if (best < 0 || (pure && (all[best].queueFlags & VK_QUEUE_GRAPHICS_BIT))) best = (int)i;
    }
    d->family = best < 0 ? 0 : (uint32_t)best;
    *timestamp_bits = best < 0 ? 0 : all[best].timestampValidBits;
    mem_free(all);
    return best >= 0 || fail("the device %s has no compute queue", d->caps.name);
}

static bool create_handle(struct gpu_device *d)
{
    VkPhysicalDeviceVulkan12Features have12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
    };
    VkPhysicalDeviceFeatures2 have = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                       .pNext = &have12 };
    vkGetPhysicalDeviceFeatures2(d->physical, &have);
    if (!d->caps.storage16)
        return fail("the device %s cannot store 16-bit numbers (storageBuffer16BitAccess)",
                    d->caps.name);
    VkPhysicalDeviceVulkan11Features want11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
        .storageBuffer16BitAccess = VK_TRUE,
    };
    VkPhysicalDeviceVulkan12Features want12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .pNext = &want11,
        .timelineSemaphore = VK_TRUE,
        .shaderFloat16 = have12.shaderFloat16,
        .shaderInt8 = have12.shaderInt8,
        .storageBuffer8BitAccess = have12.storageBuffer8BitAccess,
        .shaderSubgroupExtendedTypes = have12.shaderSubgroupExtendedTypes,
    };
    VkPhysicalDeviceFeatures2 want = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                       .pNext = &want12,
                                       .features = { .shaderInt16 = have.features.shaderInt16,
                                                     .shaderInt64 = have.features.shaderInt64 } };
    float priority = 0.5f;
    VkDeviceQueueCreateInfo queue = { .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                      .queueFamilyIndex = d->family,
                                      .queueCount = 1,
                                      .pQueuePriorities = &priority };
    VkDeviceCreateInfo info = { .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                .pNext = &want,
                                .queueCreateInfoCount = 1,
                                .pQueueCreateInfos = &queue };
    if (!gpu_check(d, vkCreateDevice(d->physical, &info, NULL, &d->handle), "open the device"))
        return false;
    vkGetDeviceQueue(d->handle, d->family, 0, &d->queue);
    return true;
}

static bool create_layouts(struct gpu_device *d)
{
    VkDescriptorSetLayoutBinding bindings[GPU_MAX_BINDINGS];
    for (uint32_t i = 0; i < GPU_MAX_BINDINGS; i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){
            .binding = i,
            .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            .descriptorCount = 1,
            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
        };
    VkDescriptorSetLayoutCreateInfo set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = GPU_MAX_BINDINGS,
        .pBindings = bindings,
    };
    VkPushConstantRange push = { .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .size = GPU_MAX_PUSH };
    VkPipelineLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &d->set_layout,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &push,
    };
    return gpu_check(d, vkCreateDescriptorSetLayout(d->handle, &set, NULL, &d->set_layout),
                     "describe the bindings") &&
           gpu_check(d, vkCreatePipelineLayout(d->handle, &layout, NULL, &d->pipeline_layout),
                     "describe the bindings");
}

static bool create_sync(struct gpu_device *d)
{
    VkSemaphoreTypeCreateInfo type = { .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                       .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE };
    VkSemaphoreCreateInfo semaphore = { .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                        .pNext = &type };
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .queueFamilyIndex = d->family,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
    };
    return gpu_check(d, vkCreateSemaphore(d->handle, &semaphore, NULL, &d->timeline),
                     "make a semaphore") &&
           gpu_check(d, vkCreateCommandPool(d->handle, &pool, NULL, &d->pool),
                     "make a command pool");
}

static bool open_physical(struct gpu_device *d, const char *name)
{
    VkPhysicalDevice *handles = NULL;
    struct gpu_caps *caps = NULL;
    int n = gpu_enumerate(d->instance, &handles, &caps);
    int i = n < 0 ? -1 : choose(caps, n, name);
    if (i >= 0) {
        d->physical = handles[i];
        d->caps = caps[i];
    }
    mem_free(handles);
    mem_free(caps);
    if (i < 0) return false;
    VkPhysicalDeviceProperties props;
    vkGetPhysicalDeviceProperties(d->physical, &props);
    uint32_t bits, bindings = props.limits.maxPerStageDescriptorStorageBuffers;
    if (bindings < GPU_MAX_BINDINGS)
        return fail("the device %s binds %u buffers at most; %d are needed", d->caps.name, bindings,
                    GPU_MAX_BINDINGS);
    if (!choose_family(d, &bits)) return false;
    d->caps.timestamps = bits > 0;
    d->tick = (double)props.limits.timestampPeriod * 1e-9;
    vkGetPhysicalDeviceMemoryProperties(d->physical, &d->memory);
    /* A command buffer should take tens of milliseconds; a CPU driver has no watchdog. */
    d->chunk_flops = d->caps.type == GPU_TYPE_CPU        ? 1e18
                     : d->caps.type == GPU_TYPE_DISCRETE ? 200e9
                                                         : 50e9;
    return true;
}

struct gpu_device *gpu_device_create(const struct gpu_device_params *params)
{
    static const struct gpu_device_params none;
    if (!params) params = &none;
    const char *name = params->name ? params->name : getenv("BURIN_DEVICE");
    if (name && !*name) name = NULL;
    if (name && strcmp(name, "null") == 0) return gpu_null_create();
    struct gpu_device *d = mem_alloc(sizeof *d);
    if (gpu_instance_create(d, params->validate) && open_physical(d, name) && create_handle(d) &&
        create_layouts(d) && create_sync(d) && gpu_kernels_init(d, params->cache))
        return d;
    gpu_device_destroy(d);
    return NULL;
}

void gpu_device_destroy(struct gpu_device *d)
{
    if (!d) return;
    if (d->handle) vkDeviceWaitIdle(d->handle);
    gpu_kernels_finish(d);
    gpu_memory_finish(d);
    if (d->handle) {
        vkDestroyCommandPool(d->handle, d->pool, NULL);
        vkDestroySemaphore(d->handle, d->timeline, NULL);
        vkDestroyPipelineLayout(d->handle, d->pipeline_layout, NULL);
        vkDestroyDescriptorSetLayout(d->handle, d->set_layout, NULL);
        vkDestroyDevice(d->handle, NULL);
    }
    if (d->messenger) {
        PFN_vkDestroyDebugUtilsMessengerEXT destroy =
            (PFN_vkDestroyDebugUtilsMessengerEXT)vkGetInstanceProcAddr(
                d->instance, "vkDestroyDebugUtilsMessengerEXT");
        destroy(d->instance, d->messenger, NULL);
    }
    if (d->instance) vkDestroyInstance(d->instance, NULL);
    mem_free(d);
}

const struct gpu_caps *gpu_device_caps(const struct gpu_device *d) { return &d->caps; }

int gpu_validation_count(const struct gpu_device *d) { return atomic_load(&d->validation); }

int gpu_device_list(struct gpu_caps *out, int n)
{
    struct gpu_device d = { 0 };
    VkPhysicalDevice *handles = NULL;
    struct gpu_caps *caps = NULL;
    if (!gpu_instance_create(&d, false)) return -1;
    int found = gpu_enumerate(d.instance, &handles, &caps);
    for (int i = 0; i < found && i < n; i++) out[i] = caps[i];
    mem_free(handles);
    mem_free(caps);
    vkDestroyInstance(d.instance, NULL);
    return found;
}

/* ---- the queue ------------------------------------------------------------------------------- */

bool gpu_submit(struct gpu_device *d, const VkCommandBuffer *commands, uint32_t n, uint64_t *value)
{
    if (d->lost) return gpu_check(d, VK_ERROR_DEVICE_LOST, "submit work");
    uint64_t next = d->submitted + 1;
    VkTimelineSemaphoreSubmitInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &next,
    };
    VkSubmitInfo info = { .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                          .pNext = &timeline,
                          .commandBufferCount = n,
                          .pCommandBuffers = commands,
                          .signalSemaphoreCount = 1,
                          .pSignalSemaphores = &d->timeline };
    if (!gpu_check(d, vkQueueSubmit(d->queue, 1, &info, VK_NULL_HANDLE), "submit work"))
        return false;
    d->submitted = *value = next;
    return true;
}

bool gpu_wait_value(struct gpu_device *d, uint64_t value)
{
    if (value <= d->completed) return true;
    VkSemaphoreWaitInfo info = { .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                 .semaphoreCount = 1,
                                 .pSemaphores = &d->timeline,
                                 .pValues = &value };
    VkResult r = d->lost ? VK_ERROR_DEVICE_LOST : vkWaitSemaphores(d->handle, &info, UINT64_MAX);
    if (!gpu_check(d, r, "wait for the device")) return false;
    d->completed = value;
    return true;
}

bool gpu_wait(struct gpu_device *d) { return gpu_wait_value(d, d->submitted); }
