# stb_image shifts negative numbers on purpose; its own code is exempt from that sanitizer, not from memory checks.
if(BURIN_SANITIZE)
  set_source_files_properties(${dir}/stb.c PROPERTIES COMPILE_OPTIONS -fno-sanitize=undefined)
endif()
