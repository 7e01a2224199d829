// The border between Python and the kernel: everything that comes in is checked here, and nowhere behind.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>

#include "engine.h"
#include "matrix.h"
#include "suffixes.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace codegen25 {
namespace {

using Floats2 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Floats1 = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Tokens = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Any2 = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Shared = std::shared_ptr<Matrix>;
using Numpy = nb::ndarray<nb::numpy, float>;

constexpr int kMostThreads = 1024;
constexpr size_t kMostColumns = size_t{1} << 20;  // sums of a row of products then stay within 32 bits many times over
constexpr size_t kMostRows = size_t{1} << 23;

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
    std::string message;
    ((message += parts), ...);
    throw nb::value_error(message.c_str());
}

std::string str(int64_t n) { return std::to_string(n); }

std::vector<const Kernels*> available() {
    std::vector<const Kernels*> found;
    for (const Kernels* kernels : {avx512_kernels(), avx2_kernels(), portable_kernels()})
        if (kernels) found.push_back(kernels);
    return found;
}

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (const Kernels* kernels : available()) names.emplace_back(kernels->name);
    return names;
}

const Kernels& kernels_of(const std::string& isa) {
    std::string names;
    for (const Kernels* kernels : available()) {
        if (isa.empty() || isa == kernels->name) return *kernels;
        names += names.empty() ? kernels->name : std::string(", ") + kernels->name;
    }
    refuse("isa '", isa, "': this machine runs ", names);
}

void check_threads(int threads) {
    if (threads < 1 || threads > kMostThreads) refuse(str(threads), " threads: 1 to ", str(kMostThreads), " can be had");
}

template <typename T>
nb::ndarray<nb::numpy, T> array(std::unique_ptr<T[]> data, std::initializer_list<size_t> shape) {
    T* raw = data.release();
    return {raw, shape, nb::capsule(raw, [](void* p) noexcept { delete[] static_cast<T*>(p); })};
}

Numpy numpy(std::unique_ptr<float[]> data, std::initializer_list<size_t> shape) {
    return array(std::move(data), shape);
}

// Memory of logits that Python has let go, for those to come: fresh pages of it cost more than filling them.
class Buffers : public std::enable_shared_from_this<Buffers> {
public:
    Numpy take(size_t rows, size_t columns) {
        std::vector<float> buffer;
        {
            const std::lock_guard lock(mutex_);
            if (!free_.empty()) {
                buffer = std::move(free_.back());
                free_.pop_back();
            }
        }
        if (buffer.size() < rows * columns) buffer.resize(rows * columns);
        auto held = std::make_unique<Held>(Held{shared_from_this(), std::move(buffer)});
        float* data = held->buffer.data();
        return Numpy(data, {rows, columns}, nb::capsule(held.release(), [](void* p) noexcept {
                         const std::unique_ptr<Held> back(static_cast<Held*>(p));
                         back->owner->keep(std::move(back->buffer));
                     }));
    }

private:
    struct Held {
        std::shared_ptr<Buffers> owner;
        std::vector<float> buffer;
    };
    static constexpr size_t kMost = 4, kLargest = size_t{1} << 22;  // buffers, and numbers in one that is kept

    void keep(std::vector<float> buffer) {
        const std::lock_guard lock(mutex_);
        if (free_.size() < kMost && buffer.size() <= kLargest) free_.push_back(std::move(buffer));
    }

    std::mutex mutex_;
    std::vector<std::vector<float>> free_{};
};

// ------------------------------------------------------------------------------------------------------------ matrices

void check_size(size_t rows, size_t columns) {
    if (rows == 0 || columns == 0 || rows > kMostRows || columns > kMostColumns)
        refuse("a matrix of ", str(rows), " × ", str(columns), ": up to ", str(kMostRows), " × ", str(kMostColumns),
               " can be held, none empty");
}

Shared packed(const Any2& q, const Any2& scale, int bits, int group) {
    if (bits != 4 && bits != 8) refuse(str(bits), " bits: 4 and 8 can be read");
    if (group != 32 && group != 64) refuse("groups of ", str(group), ": 32 and 64 can be read");
    if (q.dtype() != (bits == 8 ? nb::dtype<int8_t>() : nb::dtype<uint8_t>()))
        refuse("q: int8 is needed for 8 bits, uint8 for 4");
    const size_t rows = q.shape(0), columns = q.shape(1) * 8 / bits;
    check_size(rows, columns);
    if (columns % group) refuse("q: ", str(columns), " inputs do not divide into groups of ", str(group));
    const auto type = scale.dtype();
    if (type.bits != 16 || type.code != static_cast<uint8_t>(nb::dlpack::dtype_code::Float))
        refuse("scale: float16 is needed");
    if (scale.shape(0) != rows || scale.shape(1) != columns / group)
        refuse("scale: [", str(scale.shape(0)), ", ", str(scale.shape(1)), "], not [", str(rows), ", ",
               str(columns / group), "]");
    const auto* integers = static_cast<const uint8_t*>(q.data());
    const auto* scales = static_cast<const uint8_t*>(scale.data());
    nb::gil_scoped_release release;
    return std::make_shared<Matrix>(
        Matrix::packed(integers, scales, static_cast<int>(rows), static_cast<int>(columns), bits, group));
}

Shared quantized(const Any2& weights, int bits, const std::string& dtype, int threads) {
    if (bits != 4 && bits != 8) refuse(str(bits), " bits: 4 and 8 can be made");
    check_threads(threads);
    check_size(weights.shape(0), weights.shape(1));
    Floats type = Floats::f32;
    if (dtype == "float16" || dtype == "bfloat16") {
        type = dtype == "float16" ? Floats::f16 : Floats::bf16;
        if (weights.dtype() != nb::dtype<uint16_t>()) refuse("weights: ", dtype, " comes as uint16");
    } else if (dtype != "float32" || weights.dtype() != nb::dtype<float>()) {
        refuse("weights: dtype is float32, or float16 or bfloat16 in uint16");
    }
    const auto* data = static_cast<const uint8_t*>(weights.data());
    nb::gil_scoped_release release;
    Pool pool(threads);
    return std::make_shared<Matrix>(Matrix::quantized(data, type, static_cast<int>(weights.shape(0)),
                                                      static_cast<int>(weights.shape(1)), bits, pool, kernels_of("")));
}

Numpy dequantized(const Matrix& m) {
    auto out = std::make_unique<float[]>(static_cast<size_t>(m.rows()) * m.columns());
    for (int n = 0; n < m.rows(); n++) m.row(n, out.get() + static_cast<size_t>(n) * m.columns());
    return numpy(std::move(out), {static_cast<size_t>(m.rows()), static_cast<size_t>(m.columns())});
}

// What `packed` takes: integers, and the bits of the scales.
nb::tuple stored(const Matrix& m) {
    if (m.columns() % m.group())
        refuse("a matrix of ", str(m.columns()), " columns has no whole groups of ", str(m.group()));
    const size_t rows = m.rows(), row_bytes = static_cast<size_t>(m.columns()) * m.bits() / 8;
    const size_t row_scales = m.columns() / m.group();
    auto integers = std::make_unique<uint8_t[]>(rows * row_bytes);
    auto scales = std::make_unique<uint16_t[]>(rows * row_scales);
    {
        nb::gil_scoped_release release;
        for (size_t n = 0; n < rows; n++)
            m.stored(static_cast<int>(n), integers.get() + n * row_bytes, scales.get() + n * row_scales);
    }
    return nb::make_tuple(array(std::move(integers), {rows, row_bytes}), array(std::move(scales), {rows, row_scales}));
}

Numpy multiply(const Matrix& m, const Floats2& x, const std::string& isa, int threads) {
    const Kernels& kernels = kernels_of(isa);
    check_threads(threads);
    if (x.shape(1) != static_cast<size_t>(m.columns()))
        refuse("x: ", str(x.shape(1)), " columns, the matrix has ", str(m.columns()));
    const size_t rows = x.shape(0), width = static_cast<size_t>(m.weights().groups) * kGroup;
    if (rows > kMostRows) refuse("x: too many rows");
    const size_t padded = static_cast<size_t>(m.weights().tiles) * kLanes;
    std::vector<float> line(width), wide(rows * padded);
    std::vector<int8_t> values(rows * width);
    std::vector<float> scales(rows * width / kGroup);
    std::vector<int32_t> starts(rows * width / kGroup * Activations::kStarts);
    const Activations to{values.data(), scales.data(), starts.data(), m.weights().groups};
    for (size_t i = 0; i < rows; i++) {
        std::copy_n(x.data() + i * x.shape(1), x.shape(1), line.data());
        kernels.quantize(line.data(), to, static_cast<int>(i));
    }
    Pool pool(threads);
    pool.run((m.weights().tiles + 7) / 8, [&](int task) {
        const int last = std::min(m.weights().tiles, task * 8 + 8);
        kernels.multiply(m.weights(), to, static_cast<int>(rows), task * 8, last, wide.data(), padded, false);
    });
    const size_t n = m.rows();
    auto out = std::make_unique<float[]>(rows * n);
    for (size_t i = 0; i < rows; i++) std::copy_n(&wide[i * padded], n, &out[i * n]);
    return numpy(std::move(out), {rows, n});
}

// -------------------------------------------------------------------------------------------------------------- engine

using PyLayer = std::tuple<Floats1, Shared, Shared, Shared, Shared, Floats1, Shared, Shared, Shared>;

// An engine and what it borrows.
class PyEngine {
public:
    PyEngine(int hidden, int intermediate, int heads, int kv_heads, int head_dim, int max_positions, double rope_theta,
             double eps, Shared embedding, Shared head, const std::vector<PyLayer>& layers,
             const Floats1& norm, int threads, const std::string& isa, size_t cache_limit)
        : matrices_{embedding} {
        check_threads(threads);
        const Kernels& kernels = kernels_of(isa);
        for (const int n : {hidden, intermediate, heads, kv_heads, head_dim, max_positions})
            if (n < 1 || n > (1 << 20)) refuse("a size of ", str(n), ": 1 to ", str(1 << 20), " can be had");
        if (heads % kv_heads) refuse(str(heads), " heads do not divide into ", str(kv_heads), " kv heads");
        if (head_dim % 2) refuse("head_dim ", str(head_dim), " is odd");
        if (static_cast<int64_t>(heads) * head_dim > static_cast<int64_t>(kMostColumns))
            refuse(str(heads), " heads of ", str(head_dim), " are too many");
        if (!(rope_theta > 0) || !std::isfinite(rope_theta) || !(eps >= 0) || !std::isfinite(eps))
            refuse("rope_theta and eps must be positive numbers");
        if (layers.empty()) refuse("no layers");
        check(embedding, "embedding", embedding ? embedding->rows() : 0, hidden);
        const Shared out = head ? head : embedding;
        check(out, "head", embedding->rows(), hidden);
        matrices_.push_back(out);
        std::vector<Layer> checked;
        for (const PyLayer& l : layers) checked.push_back(layer(l, hidden, intermediate, heads, kv_heads, head_dim));
        const Shape shape{hidden, intermediate, heads, kv_heads, head_dim, max_positions,
                          static_cast<float>(rope_theta), static_cast<float>(eps)};
        engine_ = std::make_unique<Engine>(shape, *embedding, *out, std::move(checked), floats(norm, "norm", hidden),
                                           threads, kernels, cache_limit);
    }

    int64_t create() {
        const auto lock = turn();
        return engine_->sequences().create();
    }
    int64_t fork(int64_t sequence) {
        const auto lock = turn();
        return known(sequence).fork(sequence);
    }
    void truncate(int64_t sequence, int64_t length) {
        const auto lock = turn();
        const int held = known(sequence).length(sequence);
        if (length < 0 || length > held)
            refuse("sequence ", str(sequence), " holds ", str(held), " tokens, not ", str(length));
        engine_->sequences().truncate(sequence, static_cast<int>(length));
    }
    int length(int64_t sequence) {
        const auto lock = turn();
        return known(sequence).length(sequence);
    }
    void free(int64_t sequence) {
        const auto lock = turn();
        known(sequence).free(sequence);
    }

    Numpy forward(const std::vector<int64_t>& sequences, const std::vector<int64_t>& counts, const Tokens& tokens,
                  const std::vector<bool>& all_logits) {
        const auto lock = turn();
        const std::vector<Row> rows = checked(sequences, counts, tokens, all_logits);
        size_t wanted = 0;
        for (const Row& row : rows) wanted += row.all_logits ? row.tokens.size() : 1;
        Numpy logits = buffers_->take(wanted, engine_->vocabulary());
        {
            nb::gil_scoped_release release;
            engine_->forward(rows, logits.data());
        }
        return logits;
    }

    size_t cache_bytes() {
        const auto lock = turn();
        return engine_->pages().used_bytes();
    }
    size_t page_bytes() const { return engine_->pages().page_bytes(); }
    size_t weight_bytes() const {
        size_t total = 0;
        for (const Shared& m : std::set(matrices_.begin(), matrices_.end())) total += m->nbytes();
        return total;
    }
    int threads() const { return engine_->threads(); }
    std::string isa() const { return engine_->isa(); }

private:
    // One call at a time. The GIL is let go meanwhile: who has the turn may be waiting for it.
    std::unique_lock<std::mutex> turn() {
        nb::gil_scoped_release release;
        return std::unique_lock(engine_->mutex());
    }
    static void check(const Shared& m, const std::string& name, int rows, int columns) {
        if (!m) refuse(name, " is missing");
        if (m->rows() != rows || m->columns() != columns)
            refuse(name, ": ", str(m->rows()), " × ", str(m->columns()), ", not ", str(rows), " × ", str(columns));
    }
    static std::vector<float> floats(const Floats1& x, const std::string& name, int size) {
        if (x.shape(0) != static_cast<size_t>(size)) refuse(name, ": ", str(x.shape(0)), " numbers, not ", str(size));
        std::vector<float> copy(x.data(), x.data() + size);
        for (const float v : copy)
            if (!std::isfinite(v)) refuse(name, ": holds NaN or infinity");
        return copy;
    }
    Layer layer(const PyLayer& l, int hidden, int intermediate, int heads, int kv_heads, int head_dim) {
        const auto& [input_norm, q, k, v, o, post_norm, gate, up, down] = l;
        check(q, "q", heads * head_dim, hidden);
        check(k, "k", kv_heads * head_dim, hidden);
        check(v, "v", kv_heads * head_dim, hidden);
        check(o, "o", hidden, heads * head_dim);
        check(gate, "gate", intermediate, hidden);
        check(up, "up", intermediate, hidden);
        check(down, "down", hidden, intermediate);
        matrices_.insert(matrices_.end(), {q, k, v, o, gate, up, down});
        return {floats(input_norm, "input norm", hidden), floats(post_norm, "post norm", hidden), q.get(), k.get(),
                v.get(), o.get(), gate.get(), up.get(), down.get()};
    }
    Sequences& known(int64_t sequence) {
        if (!engine_->sequences().has(sequence)) refuse("there is no sequence ", str(sequence));
        return engine_->sequences();
    }
    std::vector<Row> checked(const std::vector<int64_t>& sequences, const std::vector<int64_t>& counts,
                             const Tokens& tokens, const std::vector<bool>& all_logits) {
        if (sequences.size() != counts.size() || sequences.size() != all_logits.size())
            refuse("every row needs a sequence, a count and whether all its logits are wanted");
        if (std::set(sequences.begin(), sequences.end()).size() < sequences.size())
            refuse("a sequence may stand in one row of a call only");
        const size_t total = tokens.shape(0);
        for (size_t i = 0; i < total; i++)
            if (tokens.data()[i] < 0 || tokens.data()[i] >= engine_->vocabulary())
                refuse("token ", str(tokens.data()[i]), " is not in a vocabulary of ", str(engine_->vocabulary()));
        std::vector<Row> rows;
        size_t at = 0;
        for (size_t i = 0; i < sequences.size(); i++) {
            if (counts[i] < 1 || static_cast<size_t>(counts[i]) > total - at)
                refuse("row ", str(i), ": ", str(counts[i]), " tokens; every row needs one at least, and they are ",
                       str(total), " in all");
            const int past = known(sequences[i]).length(sequences[i]);
            if (past + counts[i] > engine_->shape().max_positions)
                refuse("row ", str(i), ": ", str(past), " and ", str(counts[i]), " tokens are over the model's ",
                       str(engine_->shape().max_positions), " positions");
            rows.push_back({sequences[i], {tokens.data() + at, static_cast<size_t>(counts[i])}, all_logits[i]});
            at += counts[i];
        }
        if (at != total) refuse(str(total), " tokens for rows of ", str(at));
        return rows;
    }

    std::vector<Shared> matrices_;
    std::unique_ptr<Engine> engine_;
    std::shared_ptr<Buffers> buffers_ = std::make_shared<Buffers>();
};

// Bytes per second that all threads together read from memory; the best of a few rounds.
double read_bandwidth(int mebibytes, int threads) {
    if (mebibytes < 1 || mebibytes > (1 << 20)) refuse(str(mebibytes), " MiB: 1 to ", str(1 << 20), " can be read");
    check_threads(threads);
    nb::gil_scoped_release release;
    const Memory memory(static_cast<size_t>(mebibytes) << 20);
    auto* words = memory.as<uint64_t>();
    const size_t part = (size_t{1} << 20) / sizeof(uint64_t);
    for (size_t i = 0; i < part * mebibytes; i += 512) words[i] = i;
    Pool pool(threads);
    std::atomic<uint64_t> seen = 0;
    double best = 0;
    for (int round = 0; round < 5; round++) {
        const auto start = std::chrono::steady_clock::now();
        pool.run(mebibytes, [&](int task) {
            uint64_t sums[8] = {};
            const uint64_t* p = words + task * part;
            for (size_t i = 0; i < part; i += 8)
                for (int j = 0; j < 8; j++) sums[j] += p[i + j];
            for (const uint64_t s : sums) seen += s;
        });
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        best = std::max(best, static_cast<double>(memory.size()) / took.count());
    }
    return seen ? best : 0;
}

}  // namespace

NB_MODULE(_native, m) {
    m.def("isas", &isas);
    m.def("read_bandwidth", &read_bandwidth, "mebibytes"_a, "threads"_a);
    nb::class_<Matrix>(m, "Matrix")
        .def_static("packed", &packed, "q"_a, "scale"_a, "bits"_a, "group"_a)
        .def_static("quantized", &quantized, "weights"_a, "bits"_a, "dtype"_a, "threads"_a = 1)
        .def("dequantized", &dequantized)
        .def("stored", &stored)
        .def("multiply", &multiply, "x"_a, "isa"_a = "", "threads"_a = 1)
        .def_prop_ro("rows", &Matrix::rows)
        .def_prop_ro("columns", &Matrix::columns)
        .def_prop_ro("bits", &Matrix::bits)
        .def_prop_ro("group", &Matrix::group)
        .def_prop_ro("nbytes", &Matrix::nbytes);
    nb::class_<PyEngine>(m, "Engine")
        .def(nb::init<int, int, int, int, int, int, double, double, Shared, Shared,
                      const std::vector<PyLayer>&, const Floats1&, int, const std::string&, size_t>(),
             nb::kw_only(), "hidden"_a, "intermediate"_a, "heads"_a, "kv_heads"_a, "head_dim"_a, "max_positions"_a,
             "rope_theta"_a, "eps"_a, "embedding"_a, "head"_a.none(), "layers"_a, "norm"_a, "threads"_a, "isa"_a = "",
             "cache_limit"_a = 0)
        .def("new", &PyEngine::create)
        .def("forward", &PyEngine::forward, "sequences"_a, "counts"_a, "tokens"_a, "all_logits"_a)
        .def("fork", &PyEngine::fork, "sequence"_a)
        .def("truncate", &PyEngine::truncate, "sequence"_a, "length"_a)
        .def("length", &PyEngine::length, "sequence"_a)
        .def("free", &PyEngine::free, "sequence"_a)
        .def_prop_ro("cache_bytes", &PyEngine::cache_bytes)
        .def_prop_ro("page_bytes", &PyEngine::page_bytes)
        .def_prop_ro("weight_bytes", &PyEngine::weight_bytes)
        .def_prop_ro("threads", &PyEngine::threads)
        .def_prop_ro("isa", &PyEngine::isa);
    bind_suffixes(m);
}

}  // namespace codegen25
