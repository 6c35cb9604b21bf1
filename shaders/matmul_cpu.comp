#version 450
// SPDX-License-Identifier: MIT
// matmul_cpu.comp - matrix products on CPU drivers.
#extension GL_GOOGLE_include_directive : require
#define GEMM_CPU
#include "types.glsl"
#include "matmul.glsl"
