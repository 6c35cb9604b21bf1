#version 450
// SPDX-License-Identifier: MIT
// conv_dw_simd.comp - weight gradient of a convolution on any GPU.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "conv_dw.glsl"
