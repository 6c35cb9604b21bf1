#version 450
// SPDX-License-Identifier: MIT
// matmul_simd.comp - matrix products on any GPU.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "matmul.glsl"
