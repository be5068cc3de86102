/* Checks of the tests in C. */
#ifndef RATEQUANT_TESTS_KERNELS_CACHE_C_CHECK_H_
#define RATEQUANT_TESTS_KERNELS_CACHE_C_CHECK_H_

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ratequant/kv/c_api.h"

/* Ends the test when the condition doesn't hold. */
#define CHECK(condition)                                                \
  do {                                                                  \
    if (!(condition)) {                                                 \
      fprintf(stderr, "%s:%d: failed: %s (last error: %s)\n", __FILE__, \
              __LINE__, #condition, rq_kv_last_error_message());        \
      exit(1);                                                          \
    }                                                                   \
  } while (0)

/* The call fails with this code, and says this. */
#define CHECK_FAILS(call, code, text)                        \
  do {                                                       \
    CHECK((call) == (code));                                 \
    CHECK(strstr(rq_kv_last_error_message(), text) != NULL); \
  } while (0)

#endif /* RATEQUANT_TESTS_KERNELS_CACHE_C_CHECK_H_ */
