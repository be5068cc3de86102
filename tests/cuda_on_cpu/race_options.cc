// ThreadSanitizer's options in programs of the race-checking variant.

extern "C" __attribute__((visibility("default"))) const char*
__tsan_default_options();

// The first race ends the program: a test that raced has failed.
const char* __tsan_default_options() { return "halt_on_error=1:exitcode=66"; }
