#version 450
// SPDX-License-Identifier: MIT
// conv_dw_cpu.comp - weight gradient of a convolution on CPU drivers.
#extension GL_GOOGLE_include_directive : require
#define GEMM_CPU
#include "types.glsl"
#include "conv_dw.glsl"
