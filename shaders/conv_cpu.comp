#version 450
// SPDX-License-Identifier: MIT
// conv_cpu.comp - convolution and its input gradient on CPU drivers.
#extension GL_GOOGLE_include_directive : require
#define GEMM_CPU
#include "types.glsl"
#include "conv.glsl"
