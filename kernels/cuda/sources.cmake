# The files of the CUDA kernels, for all that compile them: kernels/cuda with
# nvcc, tests/kernels/cuda for the CPU, tests/gpu on machines with the toolkit
# alone.
set(RQ_CUDA_DIR ${CMAKE_CURRENT_LIST_DIR})
set(RQ_CUDA_CU_SRCS
  ${RQ_CUDA_DIR}/decode.cu
  ${RQ_CUDA_DIR}/encode.cu
  ${RQ_CUDA_DIR}/page_ops.cu
  ${RQ_CUDA_DIR}/paged_append.cu
  ${RQ_CUDA_DIR}/paged_gather.cu)
set(RQ_CUDA_CC_SRCS
  ${RQ_CUDA_DIR}/format_table.cc
  ${RQ_CUDA_DIR}/paged_layer.cc
  ${RQ_CUDA_DIR}/section_format.cc
  ${RQ_CUDA_DIR}/status.cc
  ${RQ_CUDA_DIR}/task.cc)
set(RQ_CUDA_HDRS
  ${RQ_CUDA_DIR}/decode.cuh
  ${RQ_CUDA_DIR}/decode.h
  ${RQ_CUDA_DIR}/device_buffer.h
  ${RQ_CUDA_DIR}/dispatch.h
  ${RQ_CUDA_DIR}/element.cuh
  ${RQ_CUDA_DIR}/encode.cuh
  ${RQ_CUDA_DIR}/encode.h
  ${RQ_CUDA_DIR}/format_table.h
  ${RQ_CUDA_DIR}/launch.h
  ${RQ_CUDA_DIR}/octet.cuh
  ${RQ_CUDA_DIR}/page_ops.cuh
  ${RQ_CUDA_DIR}/page_ops.h
  ${RQ_CUDA_DIR}/paged_append.cuh
  ${RQ_CUDA_DIR}/paged_append.h
  ${RQ_CUDA_DIR}/paged_attention.h
  ${RQ_CUDA_DIR}/paged_gather.cuh
  ${RQ_CUDA_DIR}/paged_gather.h
  ${RQ_CUDA_DIR}/paged_layer.h
  ${RQ_CUDA_DIR}/paged_rows.cuh
  ${RQ_CUDA_DIR}/quantize_row.cuh
  ${RQ_CUDA_DIR}/row_lanes.cuh
  ${RQ_CUDA_DIR}/section_format.h
  ${RQ_CUDA_DIR}/section_kernel.cuh
  ${RQ_CUDA_DIR}/shared_memory.h
  ${RQ_CUDA_DIR}/status.h
  ${RQ_CUDA_DIR}/task.h)
