/* SPDX-License-Identifier: MIT
 * instance.c - the Vulkan instance, validation messages, and what each physical device can do. */
#include "gpu/gpu_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALIDATION_LAYER "VK_LAYER_KHRONOS_validation"

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT types,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data,
                                                 void *user)
{
    struct gpu_device *d = user;
    (void)types;
    atomic_fetch_add(&d->validation, 1);
    bool error = severity & VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
    log_line(error ? LOG_ERROR : LOG_WARN, "Vulkan validation: %s", data->pMessage);
    return VK_FALSE;
}

static bool has_layer(const char *name)
{
    uint32_t n = 0;
    vkEnumerateInstanceLayerProperties(&n, NULL);
    VkLayerProperties *layers = mem_alloc(n * sizeof *layers);
    vkEnumerateInstanceLayerProperties(&n, layers);
    bool found = false;
    for (uint32_t i = 0; i < n; i++) found |= strcmp(layers[i].layerName, name) == 0;
    mem_free(layers);
    return found;
}

bool gpu_instance_create(struct gpu_device *d, bool validate)
{
    if (validate && !has_layer(VALIDATION_LAYER))
        return fail("the Vulkan validation layer (%s) is not installed", VALIDATION_LAYER);
    static const VkValidationFeatureEnableEXT enabled[] = {
        VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT
    };
    VkValidationFeaturesEXT features = {
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .enabledValidationFeatureCount = 1,
        .pEnabledValidationFeatures = enabled,
    };
    VkDebugUtilsMessengerCreateInfoEXT messenger = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .pNext = &features,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                       VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = d,
    };
    VkApplicationInfo app = { .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                              .pApplicationName = "burin",
                              .apiVersion = VK_API_VERSION_1_2 };
    const char *layers[] = { VALIDATION_LAYER };
    const char *extensions[] = { VK_EXT_DEBUG_UTILS_EXTENSION_NAME,
                                 VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME };
    VkInstanceCreateInfo info = { .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                  .pApplicationInfo = &app };
    if (validate) {
        info.pNext = &messenger;
        info.enabledLayerCount = 1;
        info.ppEnabledLayerNames = layers;
        info.enabledExtensionCount = 2;
        info.ppEnabledExtensionNames = extensions;
    }
    VkResult r = vkCreateInstance(&info, NULL, &d->instance);
    if (r == VK_ERROR_INCOMPATIBLE_DRIVER)
        return fail("no Vulkan driver is installed (Debian and Ubuntu: mesa-vulkan-drivers)");
    if (!gpu_check(d, r, "start Vulkan")) return false;
    if (!validate) return true;
    messenger.pNext = NULL;
    PFN_vkCreateDebugUtilsMessengerEXT create =
        (PFN_vkCreateDebugUtilsMessengerEXT)vkGetInstanceProcAddr(d->instance,
                                                                  "vkCreateDebugUtilsMessengerEXT");
    return !create || gpu_check(d, create(d->instance, &messenger, NULL, &d->messenger),
                                "watch the validation layer");
}

bool gpu_has_extension(VkPhysicalDevice physical, const char *name)
{
    uint32_t n = 0;
    vkEnumerateDeviceExtensionProperties(physical, NULL, &n, NULL);
    VkExtensionProperties *all = mem_alloc(n * sizeof *all);
    vkEnumerateDeviceExtensionProperties(physical, NULL, &n, all);
    bool found = false;
    for (uint32_t i = 0; i < n; i++) found |= strcmp(all[i].extensionName, name) == 0;
    mem_free(all);
    return found;
}

uint64_t gpu_memory_budget(VkPhysicalDevice physical)
{
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT,
    };
    VkPhysicalDeviceMemoryProperties2 props = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
        .pNext = &budget,
    };
    if (!gpu_has_extension(physical, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME)) return 0;
    vkGetPhysicalDeviceMemoryProperties2(physical, &props);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < props.memoryProperties.memoryHeapCount; i++)
        if (props.memoryProperties.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            if (budget.heapBudget[i] > budget.heapUsage[i])
                bytes += budget.heapBudget[i] - budget.heapUsage[i];
    return bytes;
}

static enum gpu_type type_of(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: return GPU_TYPE_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: return GPU_TYPE_INTEGRATED;
    case VK_PHYSICAL_DEVICE_TYPE_CPU: return GPU_TYPE_CPU;
    default: return GPU_TYPE_OTHER;
    }
}

static void read_memory(VkPhysicalDevice physical, struct gpu_caps *c)
{
    VkPhysicalDeviceMemoryProperties m;
    vkGetPhysicalDeviceMemoryProperties(physical, &m);
    for (uint32_t i = 0; i < m.memoryHeapCount; i++)
        if (m.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            c->heap_bytes += m.memoryHeaps[i].size;
    c->budget_bytes = gpu_memory_budget(physical);
    /* A discrete card may expose all of its memory too, but the host reads it very slowly. */
    c->host_visible = c->type == GPU_TYPE_CPU || c->type == GPU_TYPE_INTEGRATED;
}

/* Compute units or multiprocessors; 0 where no extension tells (Intel). */
static uint32_t read_cores(VkPhysicalDevice physical)
{
    VkPhysicalDeviceShaderSMBuiltinsPropertiesNV nv = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV,
    };
    VkPhysicalDeviceShaderCorePropertiesAMD amd = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_PROPERTIES_AMD,
    };
    VkPhysicalDeviceProperties2 props = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2 };
    if (gpu_has_extension(physical, VK_NV_SHADER_SM_BUILTINS_EXTENSION_NAME)) props.pNext = &nv;
    if (gpu_has_extension(physical, VK_AMD_SHADER_CORE_PROPERTIES_EXTENSION_NAME))
        props.pNext = &amd;
    if (!props.pNext) return 0;
    vkGetPhysicalDeviceProperties2(physical, &props);
    return nv.shaderSMCount +
           amd.shaderEngineCount * amd.shaderArraysPerEngineCount * amd.computeUnitsPerShaderArray;
}

static void read_caps(VkPhysicalDevice physical, struct gpu_caps *c)
{
    VkPhysicalDeviceDriverProperties driver = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES,
    };
    VkPhysicalDeviceSubgroupProperties subgroup = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES,
        .pNext = &driver,
    };
    VkPhysicalDeviceIDProperties id = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES,
                                        .pNext = &subgroup };
    VkPhysicalDeviceProperties2 props = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                          .pNext = &id };
    VkPhysicalDeviceShaderFloat16Int8Features small = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES,
    };
    VkPhysicalDevice16BitStorageFeatures storage = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES,
        .pNext = &small,
    };
    VkPhysicalDeviceFeatures2 features = { .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                           .pNext = &storage };
    vkGetPhysicalDeviceProperties2(physical, &props);
    vkGetPhysicalDeviceFeatures2(physical, &features);

    const VkPhysicalDeviceProperties *p = &props.properties;
    const VkPhysicalDeviceLimits *l = &p->limits;
    snprintf(c->name, sizeof c->name, "%s", p->deviceName);
    snprintf(c->driver, sizeof c->driver, "%.60s %.60s", driver.driverName, driver.driverInfo);
    snprintf(c->api, sizeof c->api, "%u.%u.%u", VK_API_VERSION_MAJOR(p->apiVersion) & 127u,
             VK_API_VERSION_MINOR(p->apiVersion) & 1023u, VK_API_VERSION_PATCH(p->apiVersion));
    for (unsigned i = 0; i < VK_UUID_SIZE; i++)
        snprintf(c->uuid + 2 * i, 3, "%02x", id.deviceUUID[i]);
    c->type = type_of(p->deviceType);
    c->vendor = p->vendorID;
    c->subgroup = subgroup.subgroupSize;
    c->cores = read_cores(physical);
    memcpy(c->max_groups, l->maxComputeWorkGroupCount, sizeof c->max_groups);
    c->max_group_size = l->maxComputeWorkGroupInvocations;
    c->max_shared = l->maxComputeSharedMemorySize;
    c->max_range = l->maxStorageBufferRange;
    c->alignment = l->minStorageBufferOffsetAlignment;
    c->timestamps = l->timestampComputeAndGraphics;
    c->storage16 = storage.storageBuffer16BitAccess;
    c->float16 = small.shaderFloat16;
    c->coopmat = gpu_has_extension(physical, "VK_KHR_cooperative_matrix");
    read_memory(physical, c);
}

struct candidate {
    VkPhysicalDevice handle;
    struct gpu_caps caps;
    int order;
};

static int compare_candidates(const void *a, const void *b)
{
    static const int rank[] = {
        [GPU_TYPE_DISCRETE] = 0, [GPU_TYPE_INTEGRATED] = 1, [GPU_TYPE_OTHER] = 2, [GPU_TYPE_CPU] = 3
    };
    const struct candidate *x = a, *y = b;
    if (x->caps.type != y->caps.type) return rank[x->caps.type] - rank[y->caps.type];
    return x->order - y->order; /* qsort is not stable */
}

int gpu_enumerate(VkInstance instance, VkPhysicalDevice **handles, struct gpu_caps **caps)
{
    uint32_t n = 0;
    VkResult r = vkEnumeratePhysicalDevices(instance, &n, NULL);
    VkPhysicalDevice *all = mem_alloc((n + 1) * sizeof *all);
    if (r == VK_SUCCESS && n) r = vkEnumeratePhysicalDevices(instance, &n, all);
    struct candidate *found = mem_alloc((n + 1) * sizeof *found);
    int kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        VkPhysicalDeviceProperties props;
        vkGetPhysicalDeviceProperties(all[i], &props);
        if (props.apiVersion < VK_API_VERSION_1_2) continue;
        found[kept] = (struct candidate){ .handle = all[i], .order = kept };
        read_caps(all[i], &found[kept++].caps);
    }
    qsort(found, (size_t)kept, sizeof *found, compare_candidates);
    *handles = mem_alloc((n + 1) * sizeof **handles);
    *caps = mem_alloc((n + 1) * sizeof **caps);
    for (int i = 0; i < kept; i++) {
        (*handles)[i] = found[i].handle;
        (*caps)[i] = found[i].caps;
    }
    mem_free(found);
    mem_free(all);
    if (r == VK_SUCCESS || r == VK_INCOMPLETE) return kept;
    fail("cannot list the Vulkan devices (error %d)", r);
    return -1;
}
