// Searching in suffix arrays, for attribution: what `codegen25/attribute` asks of the kernel's module.
#pragma once

#include <nanobind/nanobind.h>

namespace codegen25 {

void bind_suffixes(nanobind::module_& m);

}  // namespace codegen25
