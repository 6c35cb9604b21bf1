// SPDX-License-Identifier: MIT
// vector.glsl - one kernel text for two widths: WIDE (spec 8) moves four neighbours at once, for
// rows whose length is a multiple of four; otherwise an element at a time, in the first component.
layout(constant_id = KERNEL_SPEC_OWN) const bool WIDE = true;
const uint WIDTH = WIDE ? 4 : 1;

// name_get(i), name_put(i, v): the WIDTH elements from WIDTH * i on.
#define VECTOR(name) \
    vec4 name##_get(uint i) \
    { \
        if (WIDE) return name##_at4(i); \
        return vec4(name##_at(i), 0.0, 0.0, 0.0); \
    }
#define VECTOR_OUT(name) \
    void name##_put(uint i, vec4 v) \
    { \
        if (WIDE) name##_set4(i, v); \
        else name##_set(i, v.x); \
    }
