# A text file as bytes of a C array, so that the file stays the one source (string literals end at 4095 bytes):
# embed_text(results results/schema.sql) lets results/*.c say  static const char sql[] = {
#                                                              #include "results_schema_sql.inc"
#                                                                  0};
function(embed_text room file)
  if(NOT TARGET ${room})
    return()
  endif()
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${file})
  file(READ ${CMAKE_SOURCE_DIR}/${file} hex HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "[^a-z0-9]" "_" name ${file})
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/${name}.inc CONTENT "${bytes}\n" @ONLY)
  target_include_directories(${room} PRIVATE ${CMAKE_BINARY_DIR}/generated)
endfunction()
