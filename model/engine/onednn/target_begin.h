// Compiles what follows for the instruction set TARGET, up to target_end.h.
#define DPT_STRING(x) #x
#if defined(__clang__)
#define DPT_TARGET(t) _Pragma(DPT_STRING(clang attribute push(__attribute__((target(t))), apply_to = function)))
DPT_TARGET(TARGET)
#else
#pragma GCC push_options
#define DPT_TARGET(t) _Pragma(DPT_STRING(GCC target t))
DPT_TARGET(TARGET)
#endif
