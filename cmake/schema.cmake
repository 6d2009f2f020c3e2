# results/schema.sql as bytes of a C array, so that the file stays the one source (string literals end at 4095).
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/results/schema.sql)
file(READ ${CMAKE_SOURCE_DIR}/results/schema.sql schema_hex HEX)
string(REGEX REPLACE "(................................)" "\\1\n" schema_hex "${schema_hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," schema_bytes "${schema_hex}")
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/schema_sql.inc CONTENT "${schema_bytes}\n" @ONLY)
target_include_directories(results PRIVATE ${CMAKE_BINARY_DIR}/generated)
