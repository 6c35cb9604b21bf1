// SPDX-License-Identifier: MIT
// ids.glsl - row numbers held as I32 or as whole F32 numbers in binding IDS_BINDING of type IDS_TYPE.
layout(set = 0, binding = IDS_BINDING, std430) readonly buffer ids_words { uint ids_word[]; };
uint id_at(uint i)
{
    return IDS_TYPE == F32 ? uint(uintBitsToFloat(ids_word[i])) : ids_word[i];
}
