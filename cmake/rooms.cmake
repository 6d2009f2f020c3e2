# The program, its tests and benchmarks: every tests/test_*.c is one cmocka program, every bench/bench_*.c one benchmark.
file(GLOB cli_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/cli/*.c)
if(cli_sources)
  add_executable(tinylora ${cli_sources})
  target_link_libraries(tinylora PRIVATE experiments $<TARGET_NAME_IF_EXISTS:notebooks_export>)
  target_compile_definitions(tinylora PRIVATE TINYLORA_VERSION="${PROJECT_VERSION}"
                             TINYLORA_MODELS_DIR="${CMAKE_SOURCE_DIR}/models")
endif()

enable_testing()
file(GLOB test_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/test_*.c)
foreach(source ${test_sources})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} EXCLUDE_FROM_ALL ${source})
  # The room is the second word of the name; tests of "library" need no room's symbols.
  string(REGEX REPLACE "^test_([a-z]+).*" "\\1" room ${name})
  string(REPLACE "notebooks" "notebooks_export" room ${room})
  if(TARGET ${room} AND NOT room STREQUAL "tinylora")
    target_link_libraries(${name} PRIVATE ${room} PkgConfig::cmocka)
  elseif(room STREQUAL "cli") # drives the program from outside, reads what it printed and stored
    target_link_libraries(${name} PRIVATE results PkgConfig::cmocka)
  else()
    target_link_libraries(${name} PRIVATE PkgConfig::cmocka m)
  endif()
  target_compile_definitions(${name} PRIVATE SOURCE_DIR="${CMAKE_SOURCE_DIR}" BUILD_DIR="${CMAKE_BINARY_DIR}")
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  # Threads that spin at barriers starve each other where tests run side by side (cli/main.c does the same).
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "GOMP_SPINCOUNT=5000")
  list(APPEND test_targets ${name})
endforeach()
# Preloaded by test_cli_faults: the disk's failures.
add_library(fault_shim MODULE EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/tests/fault_shim.c)
target_link_libraries(fault_shim PRIVATE ${CMAKE_DL_LIBS})
target_compile_options(fault_shim PRIVATE -fno-sanitize=all)
add_dependencies(test_cli_faults fault_shim)
add_custom_target(tests DEPENDS ${test_targets})
if(TARGET tinylora)
  add_dependencies(tests tinylora)
endif()

include(cmake/fuzz.cmake)

file(GLOB bench_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/bench/bench_*.c)
foreach(source ${bench_sources})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} EXCLUDE_FROM_ALL ${source})
  target_link_libraries(${name} PRIVATE experiments)
  list(APPEND bench_targets ${name})
endforeach()
add_custom_target(benches DEPENDS ${bench_targets})

# What models/abacus/README.md tells to run: the problems that the embedded model is made of.
add_executable(abacus_generate EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/models/abacus/generate.c)
target_link_libraries(abacus_generate PRIVATE core)
