# The options of OpenSSF's hardening guide for C that gcc 12 takes, as far as CMakeLists.txt does not ask for them anyway.
# tests/test_cli_hardening.c reads in the program what came of them; docs/security.md says what each is for.
add_compile_options(-Wformat=2 -Werror=format-security -Werror=implicit -Werror=incompatible-pointer-types
                    -Werror=int-conversion)
if(CMAKE_C_COMPILER_ID STREQUAL GNU)
  add_compile_options(-Wtrampolines -Wbidi-chars=any)
endif()
if(TINYLORA_SANITIZE) # whose own checks are in place of these
  return()
endif()

add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection
                    -fno-delete-null-pointer-checks -fno-strict-overflow -fno-strict-aliasing
                    $<$<C_COMPILER_ID:GNU>:-ftrivial-auto-var-init=zero>)
# Scratch of 8 to 600 KiB on the stack of an inner loop: to zero it and to probe its pages took a fifth of a sweep's time.
set_source_files_properties(core/matrix.c adapters/lora.c adapters/middle.c adapters/outer.c adapters/thin.c PROPERTIES
                            COMPILE_OPTIONS "-ftrivial-auto-var-init=uninitialized;-fno-stack-clash-protection")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  add_compile_options(-fcf-protection=full)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  add_compile_options(-mbranch-protection=standard)
endif()
set(is_module $<STREQUAL:$<TARGET_PROPERTY:TYPE>,MODULE_LIBRARY>)
add_compile_options($<$<NOT:${is_module}>:-fPIE>)
add_link_options($<$<NOT:${is_module}>:-pie> -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--as-needed
                 -Wl,--no-copy-dt-needed-entries)
