# Each instruction set's kernels are compiled with its own flags and nothing else is; src/kernels/vector.c chooses at run time.
set(DM_AVX2_FLAGS -mavx2 -mfma -mf16c)
set(DM_AVX512_FLAGS ${DM_AVX2_FLAGS} -mavx512f -mavx512bw -mavx512dq -mavx512vl)
set(DM_AMX_FLAGS ${DM_AVX512_FLAGS} -mavx512bf16 -mamx-tile -mamx-bf16)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
    set_source_files_properties(src/kernels/quantized_avx2.c PROPERTIES COMPILE_OPTIONS "${DM_AVX2_FLAGS}")
    set_source_files_properties(src/kernels/quantized_avx512.c PROPERTIES COMPILE_OPTIONS "${DM_AVX512_FLAGS};-mavx512vnni")
    set_source_files_properties(src/kernels/vector_avx2.c PROPERTIES COMPILE_OPTIONS "${DM_AVX2_FLAGS}")
    set_source_files_properties(src/kernels/vector_avx512.c PROPERTIES COMPILE_OPTIONS "${DM_AVX512_FLAGS}")
    set_source_files_properties(src/kernels/matmul_amx.c src/kernels/tiles_amx.c src/kernels/split_tiles_amx.c
        PROPERTIES COMPILE_OPTIONS "${DM_AMX_FLAGS}")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    set_source_files_properties(src/kernels/quantized_neon.c PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+dotprod")
endif()
