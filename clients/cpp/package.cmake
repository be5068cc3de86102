# cmake --install <build> --component ratequant_client: what a C++ engine links
# against, found by find_package(ratequant_client [COMPONENTS mocks]) wherever the
# folder goes. Headers are included as here, "clients/cpp/client.h", from a folder
# of their own.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# The client and the libraries it is made of.
set(RQ_CLIENT_TARGETS client client_mocks proto kv_cache kv_cache_books kv_attention kv_codec
    kv_arithmetic)
set(RQ_CLIENT_FINDS_CUDA "")
if(RATEQUANT_HAS_CUDA)
  list(APPEND RQ_CLIENT_TARGETS kv_cuda)
  set(RQ_CLIENT_FINDS_CUDA "find_dependency(CUDAToolkit)")
endif()
foreach(target ${RQ_CLIENT_TARGETS})
  set_target_properties(rq_${target} PROPERTIES EXPORT_NAME ${target})
endforeach()
list(TRANSFORM RQ_CLIENT_TARGETS PREPEND rq_)

set(RQ_CLIENT_INCLUDES ${CMAKE_INSTALL_INCLUDEDIR}/ratequant_client)
set(RQ_CLIENT_PACKAGE ${CMAKE_INSTALL_LIBDIR}/cmake/ratequant_client)
install(TARGETS ${RQ_CLIENT_TARGETS} EXPORT ratequant_client
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/ratequant_client COMPONENT ratequant_client
  INCLUDES DESTINATION ${RQ_CLIENT_INCLUDES})
install(EXPORT ratequant_client NAMESPACE ratequant:: FILE ratequant_clientTargets.cmake
  DESTINATION ${RQ_CLIENT_PACKAGE} COMPONENT ratequant_client)
install(DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/
  DESTINATION ${RQ_CLIENT_INCLUDES}/clients/cpp COMPONENT ratequant_client
  FILES_MATCHING PATTERN "*.h" PATTERN examples EXCLUDE)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/kernels/include/ratequant
  DESTINATION ${RQ_CLIENT_INCLUDES} COMPONENT ratequant_client
  FILES_MATCHING PATTERN "*.h" PATTERN c_api.h EXCLUDE)
install(DIRECTORY ${PROJECT_BINARY_DIR}/proto/google ${PROJECT_BINARY_DIR}/proto/ratequant
  DESTINATION ${RQ_CLIENT_INCLUDES} COMPONENT ratequant_client
  FILES_MATCHING PATTERN "*.h")

configure_package_config_file(ratequant_clientConfig.cmake.in ratequant_clientConfig.cmake
  INSTALL_DESTINATION ${RQ_CLIENT_PACKAGE})
write_basic_package_version_file(ratequant_clientConfigVersion.cmake
  VERSION ${PROJECT_VERSION} COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/ratequant_clientConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/ratequant_clientConfigVersion.cmake
  DESTINATION ${RQ_CLIENT_PACKAGE} COMPONENT ratequant_client)
