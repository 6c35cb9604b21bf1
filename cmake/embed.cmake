# Turns files into object code: no file is needed beside the binary.
#
# burin_embed_files(target table dir pattern): every matching file below dir, as one row {name, data, bytes} of
# `const struct embed_file embed_<table>[]` (core/base/embed.h), NULL-terminated. The name is the path below dir.
# burin_embed_shaders(target dir): the same for dir/*.comp, compiled to SPIR-V, table "spirv", name without suffix. The
# generated shaders.h has an enumerator for each, its row in that table counted from 1: naming a shader that is not there
# does not compile.

function(burin_embed_rows target table files names)
  set(rows "")
  set(decls "")
  set(asm "")
  set(i 0)
  foreach(file name IN ZIP_LISTS files names)
    string(APPEND asm ".balign 8\nembed_${table}_${i}:\n.incbin \"${file}\"\nembed_${table}_${i}_end:\n.byte 0\n.globl embed_${table}_${i}\n.globl embed_${table}_${i}_end\n")
    string(APPEND decls "extern const unsigned char embed_${table}_${i}[], embed_${table}_${i}_end[];\n")
    string(APPEND rows "    {\"${name}\", embed_${table}_${i}, embed_${table}_${i}_end},\n")
    math(EXPR i "${i} + 1")
  endforeach()
  set(out ${CMAKE_BINARY_DIR}/generated)
  file(CONFIGURE OUTPUT ${out}/embed_${table}.S @ONLY CONTENT ".section .rodata\n${asm}\n.section .note.GNU-stack,\"\",%progbits\n")
  file(CONFIGURE OUTPUT ${out}/embed_${table}.c @ONLY CONTENT
    "#include \"base/embed.h\"\n${decls}const struct embed_file embed_${table}[] = {\n${rows}    {0, 0, 0},\n};\n")
  set_source_files_properties(${out}/embed_${table}.S PROPERTIES OBJECT_DEPENDS "${files}")
  target_sources(${target} PRIVATE ${out}/embed_${table}.S ${out}/embed_${table}.c)
endfunction()

function(burin_embed_files target table dir pattern)
  file(GLOB_RECURSE files CONFIGURE_DEPENDS ${dir}/${pattern})
  set(names "")
  foreach(file ${files})
    file(RELATIVE_PATH name ${dir} ${file})
    list(APPEND names ${name})
  endforeach()
  burin_embed_rows(${target} ${table} "${files}" "${names}")
endfunction()

function(burin_embed_shaders target dir)
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.comp)
  set(core ${CMAKE_SOURCE_DIR}/core)
  file(GLOB headers CONFIGURE_DEPENDS ${dir}/lib/*.glsl ${core}/graph/*.def)
  list(APPEND headers ${core}/graph/shader.h ${core}/graph/control.h ${core}/base/philox.h)
  set(files "")
  set(names "")
  set(enum "")
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/spirv)
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    set(spv ${CMAKE_BINARY_DIR}/spirv/${name}.spv)
    add_custom_command(OUTPUT ${spv}
      COMMAND ${GLSLANG} --quiet --target-env vulkan1.2 -I${dir}/lib -I${core}/graph -I${core}/base -o ${spv} ${source}
      DEPENDS ${source} ${headers}
      COMMENT "Shader ${name}" VERBATIM)
    list(APPEND files ${spv})
    list(APPEND names ${name})
    string(APPEND enum "    SHADER_${name},\n")
  endforeach()
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/shaders.h @ONLY CONTENT "enum shader {\n    SHADER_none,\n${enum}};\n")
  burin_embed_rows(${target} spirv "${files}" "${names}")
endfunction()
