/* What an engine outside of this tree sees: the installed header and library. */
#include <ratequant/kv/c_api.h>
#include <stdio.h>

int main(void) {
  rq_kv_quantizer quantizer = {.struct_size = sizeof(quantizer)};
  rq_kv_section_layout layout = {.struct_size = sizeof(layout)};
  if (rq_kv_abi_version() != RQ_KV_ABI_VERSION ||
      rq_kv_parse_quantizer("kivi", &quantizer) != RQ_KV_OK ||
      rq_kv_section_layout_of(&quantizer, RQ_KV_KEY, 4, 64, 32, &layout) !=
          RQ_KV_OK) {
    fprintf(stderr, "%s\n", rq_kv_last_error_message());
    return 1;
  }
  printf("%d\n", (int)layout.section_bytes);
  return 0;
}
