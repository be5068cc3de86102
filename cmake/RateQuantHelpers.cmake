# Target helpers. Every target lists its files; nothing is globbed.
include_guard()

set(RQ_WARNINGS -Wall -Wextra -Werror)
if(RATEQUANT_SANITIZE)
  add_compile_options(-fsanitize=${RATEQUANT_SANITIZE} -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${RATEQUANT_SANITIZE})
endif()

# rq_cc_library(NAME name [HDRS ...] SRCS ... [DEPS ...] [INCLUDES dir...])
# makes the static library rq_<name> with the alias ratequant::<name>. Includes
# are written from the root of the repository.
function(rq_cc_library)
  cmake_parse_arguments(RQ "" "NAME" "HDRS;SRCS;DEPS;INCLUDES;COPTS" ${ARGN})
  add_library(rq_${RQ_NAME} STATIC ${RQ_SRCS} ${RQ_HDRS})
  add_library(ratequant::${RQ_NAME} ALIAS rq_${RQ_NAME})
  foreach(folder ${PROJECT_SOURCE_DIR} ${RQ_INCLUDES})
    target_include_directories(rq_${RQ_NAME} PUBLIC $<BUILD_INTERFACE:${folder}>)
  endforeach()
  target_compile_options(rq_${RQ_NAME} PRIVATE ${RQ_WARNINGS} ${RQ_COPTS})
  target_link_libraries(rq_${RQ_NAME} PUBLIC ${RQ_DEPS})
endfunction()

# rq_cc_binary(NAME name SRCS ... [DEPS ...]) makes bin/<name>.
function(rq_cc_binary)
  cmake_parse_arguments(RQ "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${RQ_NAME} ${RQ_SRCS})
  target_include_directories(${RQ_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${RQ_NAME} PRIVATE ${RQ_WARNINGS})
  target_link_libraries(${RQ_NAME} PRIVATE ${RQ_DEPS})
endfunction()

# rq_cc_test(NAME name SRCS ... [DEPS ...] [TIMEOUT seconds] [ENV K=V...])
# makes tests/bin/<name>, one ctest test per gtest binary.
function(rq_cc_test)
  cmake_parse_arguments(RQ "" "NAME;TIMEOUT" "SRCS;DEPS;ENV" ${ARGN})
  add_executable(${RQ_NAME} ${RQ_SRCS})
  set_target_properties(${RQ_NAME} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_include_directories(${RQ_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${RQ_NAME} PRIVATE ${RQ_WARNINGS})
  target_link_libraries(${RQ_NAME} PRIVATE ${RQ_DEPS} GTest::gmock GTest::gtest_main)
  add_test(NAME ${RQ_NAME} COMMAND ${RQ_NAME} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT RQ_TIMEOUT)
    set(RQ_TIMEOUT 300)
  endif()
  set_tests_properties(${RQ_NAME} PROPERTIES TIMEOUT ${RQ_TIMEOUT}
    ENVIRONMENT "RATEQUANT_BIN_DIR=${CMAKE_BINARY_DIR}/bin;${RQ_ENV}")
endfunction()
