// Compiled for avx2; every other file is for any machine.
#ifdef __AVX2__

#include "simd_avx2.h"
// after the lanes that it is written on
#include "kernels_impl.h"

const codegen25::Kernels* codegen25::avx2_kernels() {
    static constexpr Kernels kernels = table("avx2");
    __builtin_cpu_init();
    const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    return has ? &kernels : nullptr;
}

#else

#include "kernels.h"

const codegen25::Kernels* codegen25::avx2_kernels() { return nullptr; }

#endif
