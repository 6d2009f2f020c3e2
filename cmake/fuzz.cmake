# Parsers under any bytes: libFuzzer with clang and -DTINYLORA_FUZZ=ON (tests/fuzz/run.sh), else a replay of the corpora
# under ctest: the seeds and findings in tests/fuzz/corpus, and the malformed files beside this repository where they are.
# A target is named after the room it needs and what it reads.
set(shared_data ${CMAKE_SOURCE_DIR}/../shared)
if(DEFINED ENV{TINYLORA_SHARED})
  set(shared_data $ENV{TINYLORA_SHARED})
endif()
set(corpora_core_json ${shared_data}/data/json/JSONTestSuite/test_parsing)
set(corpora_core_safetensors ${shared_data}/badfiles/safetensors)
set(corpora_core_gguf ${shared_data}/badfiles/gguf)
set(corpora_core_model_config ${shared_data}/badfiles/config)
set(corpora_core_tokenizer ${shared_data}/badfiles/tokenizer)
set(corpora_rl_dataset ${shared_data}/badfiles/dataset)

file(GLOB fuzz_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/*_*.c)
list(FILTER fuzz_sources EXCLUDE REGEX "no_kernels")
foreach(source ${fuzz_sources})
  get_filename_component(parser ${source} NAME_WE)
  string(REGEX REPLACE "_.*" "" room ${parser})
  add_executable(fuzz_${parser} EXCLUDE_FROM_ALL ${source})
  if(room STREQUAL cli) # the program's own files are no library
    string(REPLACE cli_ cli/ file ${parser})
    target_sources(fuzz_${parser} PRIVATE ${file}.c)
    set(room core)
  endif()
  target_link_libraries(fuzz_${parser} PRIVATE ${room})
  target_compile_definitions(fuzz_${parser} PRIVATE _GNU_SOURCE) # memfd_create
  list(APPEND fuzz_targets fuzz_${parser})
  if(TINYLORA_FUZZ)
    target_link_options(fuzz_${parser} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(fuzz_${parser} PRIVATE tests/fuzz/replay.c)
    add_test(NAME fuzz_${parser}
             COMMAND fuzz_${parser} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${parser} ${corpora_${parser}})
  endif()
endforeach()
add_custom_target(fuzzers DEPENDS ${fuzz_targets})
add_dependencies(tests ${fuzz_targets})
