// Longest matches of a text in a suffix array: binary search that never compares a token twice in one search (Manber and
// Myers, 1993), for many places of the text in step, so that one search works while others wait for memory.
#include "suffixes.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

namespace nb = nanobind;
using namespace nb::literals;

namespace codegen25 {
namespace {

using Ids = nb::ndarray<const uint16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Places = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Lengths = nb::ndarray<nb::numpy, int64_t, nb::ndim<1>>;

constexpr size_t kInStep = 32;

// A text, the places in it where suffixes start in the order of the suffixes, and what is looked for. A place that lies
// beyond the text, as one of a damaged file may, is an empty suffix.
struct Text {
    const uint16_t* ids;
    size_t size;
    const uint32_t* suffixes;
    size_t count;
    const uint16_t* query;
    size_t query_size;
};

// How many ids from `query[start]` on, up to `end`, stand at `place` too, `known` of which are known to.
size_t common(const Text& text, size_t place, size_t start, size_t end, size_t known) {
    size_t length = known;
    while (start + length < end && place + length < text.size && text.ids[place + length] == text.query[start + length])
        ++length;
    return length;
}

// Whether the suffix at `place`, which has `length` ids in common with the query, sorts before it.
bool before(const Text& text, size_t place, size_t start, size_t end, size_t length) {
    if (start + length == end) return false;
    return place + length >= text.size || text.ids[place + length] < text.query[start + length];
}

// One binary search. Suffixes up to `low` sort before the query, those from `high` on do not; the ids that these two
// have in common with the query, every suffix between them has too.
struct Search {
    size_t start, end;
    int64_t low = -1, high;
    size_t low_length = 0, high_length = 0, middle = 0, place = 0;

    Search(const Text& text, size_t start, size_t limit)
        : start(start), end(std::min(text.query_size, start + std::min(limit, text.query_size))),
          high(static_cast<int64_t>(text.count)) {}

    bool active() const { return high - low > 1; }
    void choose(const Text& text) {
        middle = static_cast<size_t>(low + (high - low) / 2);
        __builtin_prefetch(text.suffixes + middle);
    }
    void fetch(const Text& text) {
        place = text.suffixes[middle];
        if (place < text.size) __builtin_prefetch(text.ids + place + std::min(low_length, high_length));
    }
    void halve(const Text& text) {
        const size_t length = common(text, place, start, end, std::min(low_length, high_length));
        if (before(text, place, start, end, length)) {
            low = static_cast<int64_t>(middle);
            low_length = length;
        } else {
            high = static_cast<int64_t>(middle);
            high_length = length;
        }
    }
    int64_t length() const { return static_cast<int64_t>(std::max(low_length, high_length)); }
};

void run(const Text& text, std::vector<Search>& searches) {
    std::vector<Search*> active;
    for (Search& search : searches) active.push_back(&search);
    while (true) {
        std::erase_if(active, [](const Search* search) { return !search->active(); });
        if (active.empty()) return;
        for (Search* search : active) search->choose(text);
        for (Search* search : active) search->fetch(text);
        for (Search* search : active) search->halve(text);
    }
}

Lengths longest_matches(const Ids& ids, const Places& suffixes, const Ids& query, const Places& starts, size_t limit) {
    const Text text{ids.data(), ids.size(), suffixes.data(), suffixes.size(), query.data(), query.size()};
    for (size_t i = 0; i < starts.size(); ++i)
        if (starts.data()[i] >= query.size()) throw nb::value_error("a start lies beyond the query");
    auto out = std::make_unique<int64_t[]>(starts.size());
    {
        nb::gil_scoped_release release;
        std::vector<Search> searches;
        for (size_t first = 0; first < starts.size(); first += kInStep) {
            const size_t last = std::min(starts.size(), first + kInStep);
            searches.clear();
            for (size_t i = first; i < last; ++i) searches.emplace_back(text, starts.data()[i], limit);
            run(text, searches);
            for (size_t i = first; i < last; ++i) out[i] = searches[i - first].length();
        }
    }
    int64_t* raw = out.release();
    return Lengths(raw, {starts.size()}, nb::capsule(raw, [](void* p) noexcept { delete[] static_cast<int64_t*>(p); }));
}

// The first suffix that does not sort before the query; with `past`, the first behind those that begin with it.
size_t bound(const Text& text, bool past) {
    size_t low = 0, high = text.count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2, place = text.suffixes[middle];
        const size_t length = common(text, place, 0, text.query_size, 0);
        const bool begins = length == text.query_size;
        if (begins ? past : before(text, place, 0, text.query_size, length))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

std::pair<size_t, size_t> occurrences(const Ids& ids, const Places& suffixes, const Ids& query) {
    const Text text{ids.data(), ids.size(), suffixes.data(), suffixes.size(), query.data(), query.size()};
    nb::gil_scoped_release release;
    return {bound(text, false), bound(text, true)};
}

}  // namespace

void bind_suffixes(nb::module_& m) {
    m.def("longest_matches", &longest_matches, "ids"_a, "suffixes"_a, "query"_a, "starts"_a, "limit"_a);
    m.def("occurrences", &occurrences, "ids"_a, "suffixes"_a, "query"_a);
}

}  // namespace codegen25
