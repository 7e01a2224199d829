#include "pages.h"

#include <algorithm>
#include <cstring>

namespace codegen25 {
namespace {

constexpr size_t kSlab = size_t{8} << 20;

int pages_for(int tokens) { return (tokens + kLanes - 1) / kLanes; }

}  // namespace

Pages::Pages(int layers, int kv_heads, int depth, size_t limit)
    : kv_heads_(kv_heads),
      block_(static_cast<size_t>(kLanes) * depth),
      page_bytes_(2 * block_ * sizeof(uint16_t) * layers * kv_heads),
      limit_(limit) {}

int Pages::take() {
    if (limit_ && used_bytes() + page_bytes_ > limit_) throw std::bad_alloc();
    if (free_.empty()) {
        const size_t count = std::max<size_t>(1, kSlab / page_bytes_);
        Memory slab(count * page_bytes_);
        // Room first: after it nothing here can fail.
        slabs_.reserve(slabs_.size() + 1);
        data_.reserve(data_.size() + count);
        holders_.reserve(holders_.size() + count);
        free_.reserve(data_.size() + count);
        for (size_t i = count; i-- > 0;) free_.push_back(static_cast<int>(data_.size() + i));
        for (size_t i = 0; i < count; i++) {
            data_.push_back(slab.as<uint16_t>() + i * page_bytes_ / sizeof(uint16_t));
            holders_.push_back(0);
        }
        slabs_.push_back(std::move(slab));
    }
    const int page = free_.back();
    free_.pop_back();
    holders_[page] = 1;
    used_++;
    // Attention multiplies the tokens of a page that are not there yet by 0, which leaves NaN what it is.
    std::memset(data_[page], 0, page_bytes_);
    return page;
}

void Pages::release(int page) {
    if (--holders_[page] > 0) return;
    free_.push_back(page);
    used_--;
}

void Pages::copy(int from, int to) { std::memcpy(data_[to], data_[from], page_bytes_); }

Sequences::~Sequences() {
    for (auto& [_, sequence] : held_)
        for (const int page : sequence.pages) pages_.release(page);
}

int64_t Sequences::create() {
    held_[++next_] = {};
    return next_;
}

int64_t Sequences::fork(int64_t sequence) {
    Sequence copy = held_.at(sequence);
    for (const int page : copy.pages) pages_.hold(page);
    held_[++next_] = std::move(copy);
    return next_;
}

void Sequences::truncate(int64_t sequence, int length) {
    held_.at(sequence).length = length;
    trim(sequence);
}

void Sequences::trim(int64_t sequence) {
    Sequence& s = held_.at(sequence);
    for (; static_cast<int>(s.pages.size()) > pages_for(s.length); s.pages.pop_back()) pages_.release(s.pages.back());
}

void Sequences::free(int64_t sequence) {
    truncate(sequence, 0);
    held_.erase(sequence);
}

void Sequences::reserve(int64_t sequence, int count) {
    Sequence& s = held_.at(sequence);
    const int wanted = pages_for(s.length + count);
    s.pages.reserve(wanted);
    try {
        while (static_cast<int>(s.pages.size()) < wanted) s.pages.push_back(pages_.take());
        // The last page that is begun may be another's too: from here on each has its own.
        if (s.length % kLanes && pages_.shared(s.pages[s.length / kLanes])) {
            const int own = pages_.take();
            pages_.copy(s.pages[s.length / kLanes], own);
            pages_.release(s.pages[s.length / kLanes]);
            s.pages[s.length / kLanes] = own;
        }
    } catch (const std::bad_alloc&) {
        trim(sequence);
        throw;
    }
}

}  // namespace codegen25
