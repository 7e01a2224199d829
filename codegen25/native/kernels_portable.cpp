#include "simd_portable.h"
// after the lanes that it is written on
#include "kernels_impl.h"

const codegen25::Kernels* codegen25::portable_kernels() {
    static constexpr Kernels kernels = table("portable");
    return &kernels;
}
