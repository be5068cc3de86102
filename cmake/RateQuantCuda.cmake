# RATEQUANT_CUDA decides whether the CUDA kernels are built; RATEQUANT_HAS_CUDA
# says whether they are.
include_guard()

# Datacenter and workstation GPUs from Ampere to Blackwell.
set(RATEQUANT_CUDA_ARCHITECTURES 80 90 120)

# Flags of every .cu file. Contracted multiplications and additions, flushed
# subnormals or approximate divisions would give other bytes than the CPU's
# (kernels/FORMAT.md). CMake 3.25 knows no CUDA dialect above 17.
set(RQ_CUDA_FLAGS
  -std=c++20 -fmad=false -ftz=false -prec-div=true -prec-sqrt=true
  -Xcompiler=-Wall,-Wextra)

macro(rq_enable_cuda)
  include(CheckLanguage)
  set(RATEQUANT_HAS_CUDA OFF)
  if(NOT RATEQUANT_CUDA MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR
      "RATEQUANT_CUDA is '${RATEQUANT_CUDA}'; supported: AUTO, ON, OFF")
  endif()
  # Sanitizers are flags of the host's compiler that nvcc doesn't know; under
  # them the kernels are tested on the CPU.
  if(RATEQUANT_SANITIZE AND RATEQUANT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "RATEQUANT_CUDA=ON doesn't go with RATEQUANT_SANITIZE")
  endif()
  if(NOT RATEQUANT_CUDA STREQUAL "OFF" AND NOT RATEQUANT_SANITIZE)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
        set(CMAKE_CUDA_ARCHITECTURES ${RATEQUANT_CUDA_ARCHITECTURES})
      endif()
      enable_language(CUDA)
      find_package(CUDAToolkit REQUIRED)
      set(RATEQUANT_HAS_CUDA ON)
      if(CCACHE)
        set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
      endif()
      message(STATUS "CUDA kernels: built for ${CMAKE_CUDA_ARCHITECTURES}")
    elseif(RATEQUANT_CUDA STREQUAL "ON")
      message(FATAL_ERROR "RATEQUANT_CUDA is ON and there is no CUDA compiler; "
        "put nvcc on the PATH or set CMAKE_CUDA_COMPILER")
    else()
      message(STATUS "CUDA kernels: not built, there is no CUDA compiler")
    endif()
  endif()
endmacro()

rq_enable_cuda()
