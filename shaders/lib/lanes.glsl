// SPDX-License-Identifier: MIT
// lanes.glsl - one subgroup per row. Lanes are counted rather than read from built-ins, and each
// workgroup takes further rows in turn, so a subgroup of another size, or one that is only partly
// filled, costs time and nothing else.
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require

uint lanes, lane;                                // invocations on the row; which of them this is
void lanes_count()
{
    lanes = subgroupAdd(1u);
    lane = subgroupExclusiveAdd(1u);
}

// for (uint row = ROWS_FIRST; row < rows; row += ROWS_NEXT)
#define ROWS_FIRST (group_number() * gl_NumSubgroups + gl_SubgroupID)
#define ROWS_NEXT (gl_NumWorkGroups.x * gl_NumWorkGroups.y * gl_NumWorkGroups.z * gl_NumSubgroups)

float sum4(vec4 v) { return (v.x + v.y) + (v.z + v.w); }
