#version 450
// SPDX-License-Identifier: MIT
// conv_simd.comp - convolution and its input gradient on any GPU.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "conv.glsl"
