// Compiled for avx512; every other file is for any machine.
#ifdef __AVX512VNNI__

#include "simd_avx512.h"
// after the lanes that it is written on
#include "kernels_impl.h"

const codegen25::Kernels* codegen25::avx512_kernels() {
    static constexpr Kernels kernels = table("avx512");
    __builtin_cpu_init();
    const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
    return has ? &kernels : nullptr;
}

#else

#include "kernels.h"

const codegen25::Kernels* codegen25::avx512_kernels() { return nullptr; }

#endif
